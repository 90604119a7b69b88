//! The role that connections work as, which may read and append, and change nothing that was.
//!
//! Whoever makes it needs CREATEROLE, which an owner of a database need not have, and hosted ones often lack. Where there is no
//! such role, the owner of the tables can work with them as itself: with a warning, as whoever has its password may do anything.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgExecutor;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use crate::journal::OpenError;

/// The role that every connection of the service works as. It may read and append, and change no event.
pub(crate) const ROLE: &str = "watchword_service";

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
pub(crate) async fn make(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let statements = format!(
        "DO $$ BEGIN
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
                 CREATE ROLE {ROLE} NOLOGIN;
             END IF;
         EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
         END $$;
         DO $$ BEGIN
             IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}' AND NOT {MAY_SET}) THEN
                 EXECUTE format('GRANT {ROLE} TO %I', current_user);
             END IF;
         EXCEPTION WHEN insufficient_privilege THEN NULL;
         END $$;"
    );
    // It is made of constants.
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.map(drop)
}

/// Whether the user may work as the role.
pub(crate) async fn may_set<'e>(executor: impl PgExecutor<'e>) -> Result<bool, sqlx::Error> {
    let query = format!("SELECT coalesce((SELECT {MAY_SET} FROM pg_roles WHERE rolname = $1), false)");
    sqlx::query_scalar(AssertSqlSafe(query)).bind(ROLE).fetch_one(executor).await
}

/// What a superuser has to run so that this user can make use of the role.
pub(crate) async fn statement<'e>(executor: impl PgExecutor<'e>) -> Result<String, sqlx::Error> {
    let (user, exists): (String, bool) =
        sqlx::query_as("SELECT quote_ident(current_user), EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
            .bind(ROLE)
            .fetch_one(executor)
            .await?;
    let create = if exists { String::new() } else { format!("CREATE ROLE {ROLE} NOLOGIN; ") };
    Ok(format!("{create}GRANT {ROLE} TO {user};"))
}

/// The refusal for a user that neither owns the tables nor may work as the role.
pub(crate) fn missing(place: &str, statement: &str) -> OpenError {
    let reason = format!(
        "its user does not own the tables and may not work as the role {ROLE}. Have a superuser, or whoever may grant that role, \
         run: {statement}"
    );
    OpenError::Failed { path: place.to_owned(), reason }
}
