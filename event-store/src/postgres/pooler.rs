//! Refuses a pooler, such as pgbouncer, that gives its clients a connection of the server only for a transaction or a
//! statement.
//!
//! A node needs sessions: the search path, the role, timeouts and prepared statements belong to a session, and so does
//! `LISTEN`. Behind such a pooler all of them seem to work, and end up with another client.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};

use super::connecting;

/// What was missed.
#[derive(Debug)]
pub(super) enum Wanted {
    /// A setting was gone with the next statement.
    Settings,
    /// Two connections used the same session of the server in turns, or one used several.
    Session,
}

/// There is no session behind a connection.
#[derive(Debug)]
pub(super) struct NotASession(pub(super) Wanted);

impl fmt::Display for NotASession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self.0 {
            Wanted::Settings => "a setting (search_path) was lost with the next statement",
            Wanted::Session => "statements of one connection reached several sessions of the server",
        };
        write!(
            f,
            "a pooler such as pgbouncer is in between, and not in session mode: {found}. Watchword needs sessions, for \
             its search_path, role, timeouts, prepared statements and LISTEN: set pool_mode = session for this database \
             in the pooler, or connect to the server directly"
        )
    }
}

impl std::error::Error for NotASession {}

impl From<NotASession> for sqlx::Error {
    fn from(error: NotASession) -> Self {
        Self::Configuration(error.into())
    }
}

/// Checks that two connections that are open at once have a session of the server each: a pooler in another mode would
/// give both of them the same one in turns, or another one for each statement.
///
/// Sends only simple queries: such poolers confuse prepared statements.
pub async fn check(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
    limit: Duration,
) -> Result<(), sqlx::Error> {
    let mut other = connecting::connect(options, limit).await?;
    // A pooler hands out either the session that was returned last, or the one that was returned first. In this order two
    // of them cannot look like one for each connection.
    let mine = session_of(connection).await?;
    let theirs = [session_of(&mut other).await?, session_of(&mut other).await?];
    let again = session_of(connection).await?;
    // It has done its work; a failure to close it makes no difference.
    let _ = other.close().await;
    if mine == again && theirs[0] == theirs[1] && mine != theirs[0] {
        Ok(())
    } else {
        Err(NotASession(Wanted::Session).into())
    }
}

async fn session_of(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_catalog.pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}
