//! The role that connections work as, which may read and append, but change no past event.
//!
//! Creating it requires CREATEROLE, which the owner of a database need not have, and on hosted databases often lacks.
//! Without the role, the owner of the tables works with them as itself, with a warning: its password allows anything.

use std::fmt;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgExecutor;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use crate::journal::OpenError;

/// The role that every connection of the service works as, unless the configuration names another. It may read and
/// append, but change no event.
pub(crate) const ROLE: &str = "watchword_service";

/// The name of such a role. A role belongs to a whole server: if several instances have databases on one server, each
/// should have its own role, as a user who may work as the role in one database could in the others.
///
/// At most 63 lower-case letters, digits and `_`, so that it needs no quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleName(String);

impl RoleName {
    /// Parses a name that needs no quotes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut letters = text.bytes();
        let begins = letters.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_');
        let goes_on = letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        // Names that PostgreSQL reserves, and words with a meaning of their own in place of a role name.
        let is_taken = text.starts_with("pg_")
            || ["none", "public", "current_user", "current_role", "session_user", "user"].contains(&text);
        (begins && goes_on && text.len() <= 63 && !is_taken).then(|| Self(text.to_owned()))
    }

    /// The name as written in SQL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the default, which instances share.
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
pub fn is_forbidden(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == FORBIDDEN)
}

/// Whether the user may work as a role, as SQL over `pg_roles`. Since PostgreSQL 16, a role's creator is its member and
/// may grant it, but may not necessarily work as it.
pub const MAY_SET: &str = "pg_has_role(current_user, oid, \
    CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END)";

/// Creates the role and lets the user work as it, as far as the user may do either. Roles belong to the whole server:
/// the owner of another database may have created this one, even at the same moment.
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
         EXCEPTION WHEN unique_violation OR insufficient_privilege THEN NULL;
         END $$;"
    );
    // It consists of constants and a name that needs no quotes.
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.map(drop)
}

/// Whether the user may work as the role.
pub(crate) async fn may_set<'e>(executor: impl PgExecutor<'e>, role: &RoleName) -> Result<bool, sqlx::Error> {
    let query = format!("SELECT coalesce((SELECT {MAY_SET} FROM pg_roles WHERE rolname = $1), false)");
    sqlx::query_scalar(AssertSqlSafe(query)).bind(role.as_str()).fetch_one(executor).await
}

/// The statement that a superuser must run so that this user can use the role.
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

/// The error for a user that neither owns the tables nor may work as the role.
pub(crate) fn missing(place: &str, role: &RoleName, statement: &str) -> OpenError {
    let reason = format!(
        "its user does not own the tables and may not work as the role {role}. Have a superuser, or a user who may grant that role, \
         run: {statement}"
    );
    OpenError::Failed { path: place.to_owned(), reason }
}

/// The error for a user whose role has no rights on these tables.
pub(crate) fn without_rights(place: &str, role: &RoleName) -> OpenError {
    let reason = format!(
        "the role {role} has no rights on its tables. Set postgres.role (WATCHWORD_POSTGRES_ROLE) to the role that has, \
         to; or have their owner run `watchword migrate` with this one"
    );
    OpenError::Failed { path: place.to_owned(), reason }
}
