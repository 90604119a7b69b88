//! Whom the objects in our schemas may belong to, and what a database must be like.

use sqlx::{Executor, PgConnection, Row};

use super::role::{ROLE, RoleName};

/// A superuser must not use what somebody else put there.
#[derive(Debug, thiserror::Error)]
#[error(
    "its schema {schema} belongs to {owner}, and the user is a superuser: whatever {owner} has put into it would run with all \
     rights. Log in as {owner}; or, if it is not yours, drop the schema"
)]
struct OfAStranger {
    schema: &'static str,
    owner: String,
}

/// Refuses a schema that exists and belongs to neither the owner of the database, nor a superuser, nor the service, if the
/// user is a superuser: whoever may create schemas may have made it first, with triggers that wait for us.
pub async fn check(
    connection: &mut PgConnection,
    schema: &'static str,
    role: &RoleName,
) -> Result<(), sqlx::Error> {
    let stranger: Option<String> = sqlx::query_scalar(
        "SELECT quote_ident(o.rolname) FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner
             JOIN pg_database d ON d.datname = current_database() JOIN pg_roles me ON me.rolname = session_user
         WHERE n.nspname = $1 AND me.rolsuper AND NOT o.rolsuper AND o.oid <> d.datdba AND o.rolname <> ALL ($2)",
    )
    .bind(schema)
    .bind([role.as_str(), ROLE])
    .fetch_optional(connection)
    .await?;
    match stranger {
        Some(owner) => Err(sqlx::Error::Configuration(OfAStranger { schema, owner }.into())),
        None => Ok(()),
    }
}

/// Text must come back as it was written.
#[derive(Debug, thiserror::Error)]
#[error(
    "its encoding is {0}, which cannot hold every text: create the database with ENCODING 'UTF8' (TEMPLATE template0), and \
     restore a dump into it if there is data already"
)]
struct NotUtf8(String);

/// Refuses a database with an encoding other than UTF-8.
pub async fn check_encoding(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let asked = connection.fetch_one("SELECT current_setting('server_encoding')").await?;
    let encoding: String = asked.try_get(0)?;
    if encoding == "UTF8" { Ok(()) } else { Err(sqlx::Error::Configuration(NotUtf8(encoding).into())) }
}
