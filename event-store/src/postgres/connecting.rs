//! The only place that connects to PostgreSQL: what every session needs is set before its first query, and asked of it
//! afterwards, since a pooler in between may not pass it on.
//!
//! Whoever may create objects in a schema of the search path decides what a name means: an operator `bigint * interval`
//! in `public` is a better match than the one in `pg_catalog`, and runs as whoever uses it. Database and user may have
//! any search path by default, so none is inherited. Names of our own tables are qualified.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};
use tokio::time::timeout;

use super::pooler::{NotASession, Wanted};
use super::role::MAY_SET;
use super::session::timed_out;
use super::url::PostgresUrl;

/// Only the server's own objects, then temporary ones, which are never used without their schema's name.
const PATH: &str = "pg_catalog, pg_temp";

/// What a session works with.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// A schema of ours, in which only its owner may create anything; `pg_catalog` comes before it in any case.
    schema: Option<&'static str>,
    role: Option<String>,
    settings: Vec<(&'static str, String)>,
}

impl Session {
    /// A session whose names without a schema are of this one. Only its owner may be able to create objects in it.
    #[must_use]
    pub fn within(schema: &'static str) -> Self {
        Self { schema: Some(schema), ..Self::default() }
    }

    /// Works as this role, whatever letters its name has.
    #[must_use]
    pub fn with_role(mut self, role: &str) -> Self {
        self.role = Some(role.to_owned());
        self
    }

    /// With a parameter of the server.
    #[must_use]
    pub fn with(mut self, parameter: &'static str, value: &str) -> Self {
        self.settings.push((parameter, value.to_owned()));
        self
    }

    fn path(&self) -> String {
        self.schema.map_or_else(|| PATH.to_owned(), |schema| format!("{schema}, pg_temp"))
    }

    fn statements(&self) -> String {
        let mut statements = format!("SET search_path = {};", self.path());
        let role = self.role.as_ref().map(|role| ("role", role));
        for (parameter, value) in self.settings.iter().map(|(name, value)| (*name, value)).chain(role) {
            statements.push_str("\nSELECT set_config('");
            statements.push_str(parameter);
            statements.push_str("', ");
            statements.push_str(&literal(value));
            statements.push_str(", false);");
        }
        statements
    }

    /// Makes a new connection such a session.
    pub async fn begin(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.begin_with(connection, "").await
    }

    /// Makes a new connection such a session, with more statements, which consist of constants and names that need no
    /// quotes.
    pub(super) async fn begin_with(
        &self,
        connection: &mut PgConnection,
        more: &str,
    ) -> Result<(), sqlx::Error> {
        // The first statement of every connection. Each is resolved after the one before it has run.
        let statements = format!("{}\n{more}", self.statements());
        connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await?;
        // In a message of its own, and so in another transaction: see `pooler`.
        let asked = sqlx::raw_sql("SELECT current_setting('search_path')").fetch_one(connection).await?;
        let path: String = asked.try_get(0)?;
        if path == self.path() { Ok(()) } else { Err(NotASession(Wanted::Settings).into()) }
    }

    /// Connects.
    pub async fn connect(
        &self,
        options: &PgConnectOptions,
        limit: Duration,
    ) -> Result<PgConnection, sqlx::Error> {
        let connected = timeout(limit, async {
            let mut connection = options.connect().await?;
            self.begin(&mut connection).await?;
            Ok(connection)
        });
        connected.await.unwrap_or_else(|_| Err(timed_out("the database does not answer")))
    }
}

/// A literal that means the same whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Connects as the user that logs in.
pub async fn connect(options: &PgConnectOptions, limit: Duration) -> Result<PgConnection, sqlx::Error> {
    Session::default().connect(options, limit).await
}

/// Connects to look: as the service's role if the user may and that role can read the journal, so that a look needs no
/// more rights than a node has.
pub async fn connect_to_look(url: &PostgresUrl, limit: Duration) -> Result<PgConnection, sqlx::Error> {
    let mut connection = connect(url.options(), limit).await?;
    let become_role = format!(
        "SELECT set_config('role', rolname, false) FROM pg_roles WHERE rolname = '{role}' AND {MAY_SET} AND EXISTS (
             SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'watchword' AND c.relname = 'events'
                 AND has_table_privilege(pg_roles.oid, c.oid, 'SELECT'))",
        role = url.role()
    );
    // It consists of constants and a name that needs no quotes.
    connection.execute(sqlx::raw_sql(AssertSqlSafe(become_role))).await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_any_letters_stays_a_name() {
        let session =
            Session::within("watchword_read").with("jit", "off").with_role("o'b\\'; DROP TABLE x; --");
        assert_eq!(
            session.statements(),
            "SET search_path = watchword_read, pg_temp;\n\
             SELECT set_config('jit', E'off', false);\n\
             SELECT set_config('role', E'o''b\\\\''; DROP TABLE x; --', false);"
        );
    }
}
