//! Connections to PostgreSQL, each as the service's role and with every wait bounded.

use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::time::timeout;

use super::connecting::Session;
use super::history::History;
use super::pool::Pool;
use super::role::RoleName;
use crate::journal::OpenError;

/// How long a caller waits for a database, unless the configuration says otherwise.
pub const ANSWER: Duration = Duration::from_secs(5);

/// Connections and timeouts of a store on PostgreSQL. The defaults suit a database nearby.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// How many connections read at the same time, in addition to one for the writer and one for the listener.
    pub readers: u32,
    /// How long to wait for a new or a free connection.
    pub connect_timeout: Duration,
    /// How long a statement may take, including waits for locks. The server ends it in four fifths of the time that a
    /// caller waits anyway.
    pub statement_timeout: Duration,
    /// After a lost connection, for how long to reconnect and to resend what was lost, until its outcome is known.
    pub patience: Duration,
    /// How long a caller waits for an answer, whatever happens in the background: the bound of each wait on a connection.
    /// One that exceeds it is closed.
    pub answer: Duration,
    /// How long to retry while a server refuses connections. Zero by default: callers get the error at once.
    pub grace: Duration,
    /// The role that connections work as, such as `watchword_service`; `None` if they work as the user that owns the
    /// tables. Determined when a store is opened.
    pub role: Option<RoleName>,
    /// How often to poll for new events if no notification comes.
    pub poll: Duration,
    /// How often to find out, with a new connection, which server the address leads to.
    pub look: Duration,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            readers: 8,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(15),
            answer: ANSWER,
            grace: Duration::ZERO,
            role: Some(RoleName::default()),
            poll: Duration::from_secs(1),
            look: Duration::from_secs(2),
        }
    }
}

impl PostgresSettings {
    /// How long to wait for the server: it gives up a little earlier, and says so.
    pub(crate) fn answer_timeout(&self) -> Duration {
        (self.server_timeout() + Duration::from_secs(1)).min(self.answer)
    }

    /// After how long the server gives up a statement, so that its refusal comes before nobody waits for it.
    fn server_timeout(&self) -> Duration {
        server_timeout(self.answer).min(self.statement_timeout)
    }

    fn session(&self) -> String {
        let milliseconds = self.server_timeout().as_millis();
        let for_locks = lock_timeout(self.server_timeout()).as_millis();
        let role = self.role.as_ref().map_or("NONE", RoleName::as_str);
        // It consists of constants, a number and a name that needs no quotes.
        format!(
            "SET ROLE {role};
             SET statement_timeout = {milliseconds};
             SET lock_timeout = {for_locks};
             SET idle_in_transaction_session_timeout = {milliseconds};
             -- A session of a node that is not reached any more must not take a place for hours.
             SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
             SET tcp_user_timeout = 25000;
             SET default_transaction_isolation = 'read committed';
             SET client_min_messages = warning;
             -- Every statement looks rows up by their keys. It is planned once, not at each execution, and the plan
             -- must not assume that tables are as small as they were then.
             SET plan_cache_mode = force_generic_plan;
             SET enable_seqscan = off; SET enable_bitmapscan = off;
             SET enable_hashjoin = off; SET enable_mergejoin = off;
             SET jit = off;
             -- What is acknowledged is durable, whatever the server's default is.
             SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') = 'off';"
        )
    }

    pub(super) async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        Session::default().begin_with(connection, &self.session()).await?;
        metrics::counter!("watchword_postgres_connects_total").increment(1);
        Ok(())
    }

    /// A connection outside the pool.
    pub(crate) async fn connect(&self, options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
        let connected = timeout(self.connect_timeout, async {
            let mut connection = options.connect().await?;
            self.prepare(&mut connection).await?;
            Ok(connection)
        });
        connected.await.unwrap_or_else(|_| Err(timed_out("the database does not answer")))
    }

    /// Like [`Self::connect`], but only to a server with the history that this node knows.
    pub(crate) async fn connect_to(
        &self,
        options: &PgConnectOptions,
        history: &History,
    ) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect(options).await?;
        let met = timeout(self.connect_timeout, history.meet(&mut connection)).await;
        met.unwrap_or_else(|_| Err(timed_out("the database does not answer")))?;
        Ok(connection)
    }

    /// A pool that connects on demand.
    pub(crate) fn pool(&self, options: &PgConnectOptions) -> Pool {
        let (settings, options) = (self.clone(), options.clone());
        Pool::new(self.readers, self.answer, move || {
            let (settings, options) = (settings.clone(), options.clone());
            Box::pin(async move { settings.connect(&options).await })
        })
    }

    /// Like [`Self::pool`], of connections to a server with the history that this node knows. Those to a server that was
    /// left behind are closed.
    pub(crate) fn pool_to(&self, options: &PgConnectOptions, history: &Arc<History>) -> Pool {
        let (settings, options, history) = (self.clone(), options.clone(), Arc::clone(history));
        Pool::new(self.readers, self.answer, move || {
            let (settings, options, history) = (settings.clone(), options.clone(), Arc::clone(&history));
            Box::pin(async move { settings.connect_to(&options, &history).await })
        })
    }
}

/// After how long a server gives up a statement for which a caller waits so long.
pub fn server_timeout(answer: Duration) -> Duration {
    answer * 4 / 5
}

/// After how long it gives up to wait for a lock, so that it says what it waited for, and not only that it took long.
pub fn lock_timeout(server_timeout: Duration) -> Duration {
    server_timeout * 9 / 10
}

/// Whether an error is about the connection, which was lost or not made, rather than about the statement.
pub(crate) fn is_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        // Class 08: connection exceptions; 57P: the server is shutting down or starting.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
        }
        _ => false,
    }
}

/// Whether the server takes no writes: it is a replica, or an administrator said so. Nothing was written. On another
/// connection there may be another server.
pub(crate) fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "25006")
}

/// Whether an error may pass: the server is unreachable, shutting down, starting, a replica or overloaded. A wrong
/// password, a missing database and an untrusted certificate do not count.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // The answer is not that of a PostgreSQL server, or TLS rejects it.
        sqlx::Error::Io(error) => !matches!(
            error.kind(),
            std::io::ErrorKind::InvalidData
                | std::io::ErrorKind::InvalidInput
                | std::io::ErrorKind::PermissionDenied
        ),
        sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        // Class 53: insufficient resources, such as connections; 58: system errors; 57014: statement timeout; 55P03,
        // 40001 and 40P01: conflicts with another session.
        sqlx::Error::Database(said) => {
            said.code().is_some_and(|code| {
                code.starts_with("53")
                    || code.starts_with("58")
                    || matches!(&*code, "57014" | "55P03" | "40001" | "40P01")
            }) || is_connection(error)
                || is_read_only(error)
        }
        _ => false,
    }
}

/// Why a store at this place was not opened.
pub(crate) fn not_opened(place: &(impl ToString + ?Sized), error: &sqlx::Error) -> OpenError {
    let (path, reason) = (place.to_string(), error.to_string());
    if is_away(error) { OpenError::Away { path, reason } } else { OpenError::Failed { path, reason } }
}

/// The error for an expired wait.
pub(crate) fn timed_out(what: &str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}
