//! The address of a PostgreSQL database, with the role that connections work as.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::role::RoleName;
use super::session::ANSWER;

/// Where a PostgreSQL database is, and how to log in: `postgres://user:password@host:5432/database?sslmode=verify-full`.
///
/// `Display` and `Debug` omit user, password and parameters.
#[derive(Clone)]
pub struct PostgresUrl(PgConnectOptions, RoleName, Duration);

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
        refuse_unsupported(text)?;
        choose_cryptography();
        let options: PgConnectOptions =
            text.parse().map_err(|error: sqlx::Error| InvalidPostgresUrl(error.to_string()))?;
        let options = without_brackets(options);
        if options.get_database().is_none() {
            return Err(InvalidPostgresUrl("it names no database".to_owned()));
        }
        let options = options
            .application_name("watchword")
            // Nothing here is a floating-point number, and poolers refuse parameters that they do not know.
            .extra_float_digits(None)
            .disable_statement_logging();
        Ok(Self(options, RoleName::default(), ANSWER))
    }
}

/// `sslmode=verify-ca` takes the process's provider of cryptography. If two are built in, as with the feature `kurrentdb`,
/// none is the default.
fn choose_cryptography() {
    #[cfg(feature = "kurrentdb")]
    {
        // It fails if one was chosen already, which is as good.
        let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

/// Refuses what the driver would understand in another way, without a part of the URL in the message: it may be a part of
/// the password.
fn refuse_unsupported(text: &str) -> Result<(), InvalidPostgresUrl> {
    let refuse = |why: &str| Err(InvalidPostgresUrl(why.to_owned()));
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if rest.contains('@') {
        return refuse(
            "there is an @ behind the host. In a user name or password write %40 for @, %2F for /, %3F for ? and %23 for #",
        );
    }
    let (_, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
    let parameter = |name: &str| {
        let pairs = parameters.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).collect::<Vec<_>>()
    };
    let is_list = |value: &&str| value.contains(',') || value.to_ascii_lowercase().contains("%2c");
    if is_list(&hosts) || ["host", "hostaddr", "port"].iter().any(|name| parameter(name).iter().any(is_list))
    {
        return refuse(
            "it names several hosts. Give one that always leads to the primary: an address that moves with it, or a proxy \
             such as HAProxy or pgbouncer in session mode",
        );
    }
    if parameter("target_session_attrs").iter().any(|value| !["any", "read-write", "primary"].contains(value))
    {
        return refuse("target_session_attrs asks for a server that takes no writes. Leave it out");
    }
    Ok(())
}

/// In a URL an IPv6 address is in brackets, which are no part of it.
fn without_brackets(options: PgConnectOptions) -> PgConnectOptions {
    let address = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match address.map(str::to_owned) {
        Some(address) => options.host(&address),
        None => options,
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
        Self(self.0, role, self.2)
    }

    /// How long a caller waits for an answer of this database.
    pub fn answer(&self) -> Duration {
        self.2
    }

    /// The same database, for whose answers callers wait so long.
    #[must_use]
    pub fn answering_within(self, answer: Duration) -> Self {
        Self(self.0, self.1, answer)
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
            None if self.0.get_host().contains(':') => {
                write!(f, "postgres://[{}]:{}/{database}", self.0.get_host(), self.0.get_port())
            }
            None => write!(f, "postgres://{}:{}/{database}", self.0.get_host(), self.0.get_port()),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_is_without_its_brackets() {
        let url: PostgresUrl = "postgres://u:p@[::1]:6432/auth".parse().expect("a URL");
        assert_eq!((url.options().get_host(), url.options().get_port()), ("::1", 6432));
        assert_eq!(url.to_string(), "postgres://[::1]:6432/auth");
    }

    #[test]
    fn a_password_that_is_not_escaped_is_refused_and_not_shown() {
        for wrong in [
            "postgres://ada:hunter@2/secret@host/db",
            "postgres://ada:hunter@2?secret@host/db",
            "postgres://ada:hunter@2#secret@host/db",
            "postgres://ada:1234/secret@host/db",
        ] {
            let error = wrong.parse::<PostgresUrl>().expect_err(wrong).to_string();
            assert!(error.contains("write %40 for @"), "{wrong}: {error}");
            assert!(!error.contains("secret") && !error.contains("hunter"), "{wrong}: {error}");
        }
        for right in ["postgres://ada:hunter%402%2Fsecret@host/db", "postgres://ada:hunter@2@host/db"] {
            let url: PostgresUrl = right.parse().expect("a URL");
            assert_eq!(url.to_string(), "postgres://host:5432/db");
        }
    }

    #[test]
    fn several_hosts_are_refused_by_name() {
        for wrong in [
            "postgres://u:p@one:5432,two:5432/db",
            "postgres://u:p@one,two/db?target_session_attrs=read-write",
            "postgres://u:p@/db?host=one,two",
            "postgres://u:p@/db?host=one%2Ctwo",
        ] {
            let error = wrong.parse::<PostgresUrl>().expect_err(wrong).to_string();
            assert!(error.contains("it names several hosts"), "{wrong}: {error}");
        }
        "postgres://u:p@one/db?target_session_attrs=read-write"
            .parse::<PostgresUrl>()
            .expect("there is only one");
        let error =
            "postgres://u:p@one/db?target_session_attrs=standby".parse::<PostgresUrl>().expect_err("no");
        assert!(error.to_string().contains("target_session_attrs"), "{error}");
    }
}
