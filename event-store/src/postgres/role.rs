//! The role that connections work as, which may read and append, and change nothing that was.
//!
//! Whoever makes it needs CREATEROLE, which an owner of a database need not have, and hosted ones often lack. Where there is no
//! such role, the owner of the tables can work with them as itself: with a warning, as whoever has its password may do anything.

use std::fmt;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgExecutor;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use crate::journal::OpenError;

/// The role that every connection of the service works as, unless the configuration names another. It may read and append, and
/// change no event.
pub(crate) const ROLE: &str = "watchword_service";

/// The name of such a role. A role belongs to a whole server: where several instances have databases on one, each should have a
/// role of its own, as whoever may work as it in one of them could in the others.
///
/// Lower-case letters, digits and `_`, 63 at most, so that it needs no quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleName(String);

impl RoleName {
    /// The name, if it is one that needs no quotes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut letters = text.bytes();
        let begins = letters.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_');
        let goes_on = letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        // Those that PostgreSQL keeps for itself, and words that mean something where a role is named.
        let is_taken = text.starts_with("pg_")
            || ["none", "public", "current_user", "current_role", "session_user", "user"].contains(&text);
        (begins && goes_on && text.len() <= 63 && !is_taken).then(|| Self(text.to_owned()))
    }

    /// As SQL spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the one that all instances have by default.
    pub fn is_default(&self) -> bool {
        self.0 == ROLE
    }
}

impl Default for RoleName {
    fn default() -> Self {
        Self(ROLE.to_owned())
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `insufficient_privilege`
const FORBIDDEN: &str = "42501";

/// Whether an error says that the user may not do this.
pub(crate) fn is_forbidden(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == FORBIDDEN)
}

/// Whether the user may work as a role, as SQL over `pg_roles`. From PostgreSQL 16 on, who made a role is its member and may
/// grant it, and may still not work as it.
pub const MAY_SET: &str = "pg_has_role(current_user, oid, \
    CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END)";

/// Makes the role and lets the user work as it, as far as the user may do either. Roles belong to the whole server: another
/// database of it may have made this one, even at the same moment.
pub(crate) async fn make(connection: &mut PgConnection, role: &RoleName) -> Result<(), sqlx::Error> {
    let statements = format!(
        "DO $$ BEGIN
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
                 CREATE ROLE {role} NOLOGIN;
             END IF;
         EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
         END $$;
         DO $$ BEGIN
             IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}' AND NOT {MAY_SET}) THEN
                 EXECUTE format('GRANT {role} TO %I', current_user);
             END IF;
         EXCEPTION WHEN insufficient_privilege THEN NULL;
         END $$;"
    );
    // It is made of constants, and a name that needs no quotes.
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.map(drop)
}

/// Whether the user may work as the role.
pub(crate) async fn may_set<'e>(executor: impl PgExecutor<'e>, role: &RoleName) -> Result<bool, sqlx::Error> {
    let query = format!("SELECT coalesce((SELECT {MAY_SET} FROM pg_roles WHERE rolname = $1), false)");
    sqlx::query_scalar(AssertSqlSafe(query)).bind(role.as_str()).fetch_one(executor).await
}

/// What a superuser has to run so that this user can make use of the role.
pub(crate) async fn statement<'e>(
    executor: impl PgExecutor<'e>,
    role: &RoleName,
) -> Result<String, sqlx::Error> {
    let (user, exists): (String, bool) =
        sqlx::query_as("SELECT quote_ident(current_user), EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
            .bind(role.as_str())
            .fetch_one(executor)
            .await?;
    let create = if exists { String::new() } else { format!("CREATE ROLE {role} NOLOGIN; ") };
    Ok(format!("{create}GRANT {role} TO {user};"))
}

/// The refusal for a user that neither owns the tables nor may work as the role.
pub(crate) fn missing(place: &str, role: &RoleName, statement: &str) -> OpenError {
    let reason = format!(
        "its user does not own the tables and may not work as the role {role}. Have a superuser, or whoever may grant that role, \
         run: {statement}"
    );
    OpenError::Failed { path: place.to_owned(), reason }
}

/// The refusal for a user that may work as a role which was given none of these tables.
pub(crate) fn without_rights(place: &str, role: &RoleName) -> OpenError {
    let reason = format!(
        "the role {role} has no rights on its tables. Set postgres.role (WATCHWORD_POSTGRES_ROLE) to the role that they were given \
         to; or have their owner run `watchword migrate` with this one"
    );
    OpenError::Failed { path: place.to_owned(), reason }
}
