//! The address of a PostgreSQL database, with the role that connections work as.

use std::fmt;
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::role::RoleName;

/// Where a PostgreSQL database is, and how to log in: `postgres://user:password@host:5432/database?sslmode=verify-full`.
///
/// `Display` and `Debug` omit user, password and parameters.
#[derive(Clone)]
pub struct PostgresUrl(PgConnectOptions, RoleName);

/// The text is not a URL of a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PostgreSQL URL such as postgres://user:password@host:5432/database: {0}")]
pub struct InvalidPostgresUrl(String);

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(InvalidPostgresUrl("it does not start with postgres://".to_owned()));
        }
        let options: PgConnectOptions =
            text.parse().map_err(|error: sqlx::Error| InvalidPostgresUrl(error.to_string()))?;
        if options.get_database().is_none() {
            return Err(InvalidPostgresUrl("it names no database".to_owned()));
        }
        Ok(Self(options.application_name("watchword").disable_statement_logging(), RoleName::default()))
    }
}

impl PostgresUrl {
    /// The role that connections work as, whichever user logs in.
    pub fn role(&self) -> &RoleName {
        &self.1
    }

    /// The same database, with another role.
    #[must_use]
    pub fn with_role(self, role: RoleName) -> Self {
        Self(self.0, role)
    }

    /// The options that sqlx connects with.
    pub fn options(&self) -> &PgConnectOptions {
        &self.0
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.0.get_database().unwrap_or_default();
        match self.0.get_socket() {
            Some(socket) => write!(f, "postgres://{}/{database}", socket.display()),
            None => write!(f, "postgres://{}:{}/{database}", self.0.get_host(), self.0.get_port()),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
