//! The location of a store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::postgres::{InvalidPostgresUrl, PostgresUrl};

/// A file for one process, or a PostgreSQL database for several. Shown without a password.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a process has three of them")]
pub enum Location {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Postgres(PostgresUrl),
}

/// The text is not the location of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLocation {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is a KurrentDB server, which stores only journals.
    #[error(
        "only the journal can be in KurrentDB: give sqlite:<path>, or postgres://user:password@host:5432/database"
    )]
    Kurrent,
    /// It is a URL of something else.
    #[error("give sqlite:<path>, or postgres://user:password@host:5432/database")]
    Scheme,
    /// It looks like a PostgreSQL URL, but is not valid.
    #[error(transparent)]
    Postgres(#[from] InvalidPostgresUrl),
}

impl Location {
    /// The file, unless it is a database.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }

    /// Whether several processes can open it at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

/// `postgres://…`, `sqlite:…`, `sqlite://…`, or a path.
impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.parse()?));
        }
        if is_kurrent(text) {
            return Err(InvalidLocation::Kurrent);
        }
        let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:")).unwrap_or(text);
        if path.contains("://") {
            return Err(InvalidLocation::Scheme);
        }
        if path.is_empty() { Err(InvalidLocation::Empty) } else { Ok(Self::File(path.into())) }
    }
}

/// Whether this is meant as the URL of a KurrentDB or EventStoreDB server.
pub fn is_kurrent(text: &str) -> bool {
    let scheme = text.trim().split_once("://").map(|(scheme, _)| scheme);
    matches!(scheme, Some("esdb" | "esdb+discover" | "kurrentdb" | "kurrentdb+discover"))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_databases_are_told_apart() {
        for path in ["a/b.db", "sqlite:a/b.db", "sqlite://a/b.db"] {
            let location: Location = path.parse().expect(path);
            assert_eq!((location.file(), location.is_shared()), (Some(Path::new("a/b.db")), false));
        }
        let location: Location =
            "postgres://u:hunter2@db.example:6432/auth?sslmode=verify-full".parse().expect("a URL");
        assert_eq!((location.file(), location.is_shared()), (None, true));
        assert_eq!(format!("{location}"), "postgres://db.example:6432/auth");
        assert!(!format!("{location:?}").contains("hunter2"));
        assert_eq!("".parse::<Location>().err(), Some(InvalidLocation::Empty));
        assert_eq!("mysql://host/db".parse::<Location>().err(), Some(InvalidLocation::Scheme));
        for kurrent in ["esdb://ada:hunter2@host", "kurrentdb+discover://host:2113"] {
            assert!(is_kurrent(kurrent));
            assert_eq!(kurrent.parse::<Location>().err(), Some(InvalidLocation::Kurrent));
        }
        assert!(!is_kurrent("postgres://host/esdb://") && !is_kurrent("esdb.db"));
        assert!(matches!("postgres://host".parse::<Location>(), Err(InvalidLocation::Postgres(_))));
    }
}
