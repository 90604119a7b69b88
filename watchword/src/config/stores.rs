//! The locations of journal and keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use event_store::PostgresSettings;
use event_store::location::{Location, is_kurrent};
use event_store::postgres::role::RoleName;

use super::keys;
use super::parse::location;
use super::values::{ConfigError, Values};
use crate::databases::{Databases, SharedJournal};

/// The location of the journal, for which there are more kinds than for other stores.
pub(super) enum JournalLocation {
    Store(Location),
    #[cfg(feature = "kurrentdb")]
    Kurrent(event_store::KurrentUrl),
}

pub(super) fn journal_location(text: &str) -> Result<JournalLocation, String> {
    if is_kurrent(text) { kurrent(text) } else { location(text).map(JournalLocation::Store) }
}

#[cfg(feature = "kurrentdb")]
fn kurrent(text: &str) -> Result<JournalLocation, String> {
    text.trim().parse().map(JournalLocation::Kurrent).map_err(|error| format!("{error}"))
}

#[cfg(not(feature = "kurrentdb"))]
fn kurrent(_: &str) -> Result<JournalLocation, String> {
    Err("this program was built without KurrentDB: build it with `cargo build --release --features kurrentdb`".to_owned())
}

impl JournalLocation {
    fn used(self, by: &UseOfDatabases) -> Self {
        match self {
            Self::Store(location) => Self::Store(by.of(location)),
            #[cfg(feature = "kurrentdb")]
            kurrent @ Self::Kurrent(_) => kurrent,
        }
    }
}

/// How nodes use databases.
pub(super) struct UseOfDatabases {
    /// The role that they work as.
    pub role: RoleName,
    /// How long they wait for an answer.
    pub answer: Duration,
}

impl UseOfDatabases {
    /// A location that is used like this.
    pub fn of(&self, location: Location) -> Location {
        match location {
            Location::Postgres(url) => {
                Location::Postgres(url.with_role(self.role.clone()).answering_within(self.answer))
            }
            file @ Location::File(_) => file,
        }
    }
}

pub(super) fn role_name(text: &str) -> Result<RoleName, String> {
    let wrong = || "give lower-case letters, digits and _, 63 at most, such as watchword_acme".to_owned();
    RoleName::parse(text).ok_or_else(wrong)
}

/// Requires journal and key store to be both files or both on servers: nodes that share one must share the other.
pub(super) fn journal_and_keys(
    values: &mut Values,
    data_dir: &Path,
    use_of: &UseOfDatabases,
    has_master_key: bool,
) -> Result<(Option<Databases>, PathBuf, PathBuf), ConfigError> {
    let settings = PostgresSettings {
        readers: values.take(&keys::POSTGRES_CONNECTIONS)?,
        statement_timeout: values.take(&keys::POSTGRES_STATEMENT_TIMEOUT)?,
        poll: values.take(&keys::POSTGRES_POLL)?,
        connect_timeout: use_of.answer.min(PostgresSettings::default().connect_timeout),
        answer: use_of.answer,
        ..PostgresSettings::default()
    };
    let journal = values.take_given(&keys::JOURNAL_URL)?.map(|journal| journal.used(use_of));
    let key_store = values.take_given(&keys::KEY_STORE_URL)?.map(|location| use_of.of(location));
    let bad = |origin: &str, problem: &str| {
        Err(ConfigError::Bad { origin: origin.to_owned(), problem: problem.to_owned() })
    };
    let (journal, beside) = match journal {
        None => return in_files(None, key_store, data_dir),
        Some(JournalLocation::Store(Location::File(journal))) => {
            return in_files(Some(journal), key_store, data_dir);
        }
        Some(JournalLocation::Store(Location::Postgres(url))) => {
            (SharedJournal::Postgres(url.clone()), Some(url))
        }
        #[cfg(feature = "kurrentdb")]
        Some(JournalLocation::Kurrent(url)) => {
            (SharedJournal::Kurrent { url, replica: data_dir.join(crate::databases::REPLICA) }, None)
        }
    };
    if !has_master_key {
        return bad(
            "master_key (WATCHWORD_MASTER_KEY)",
            "with a journal that nodes share it must be given, because all of them need the same one. Create it once: \
             openssl rand -base64 32",
        );
    }
    let key_store = match (key_store, beside) {
        (Some(Location::Postgres(key_store)), _) | (None, Some(key_store)) => key_store,
        (Some(Location::File(_)), Some(_)) => {
            return bad(
                "key_store_url",
                "nodes that share a journal share its keys: give a PostgreSQL database, or leave it out for the journal's",
            );
        }
        (_, None) => {
            return bad(
                "key_store_url",
                "nodes that share a journal share its keys, and KurrentDB keeps none: give a PostgreSQL database",
            );
        }
    };
    let databases = Databases { journal, key_store, settings };
    Ok((Some(databases), data_dir.join("journal.db"), data_dir.join("keys.db")))
}

/// The files of a single process.
fn in_files(
    journal: Option<PathBuf>,
    key_store: Option<Location>,
    data_dir: &Path,
) -> Result<(Option<Databases>, PathBuf, PathBuf), ConfigError> {
    let key_store = match key_store {
        None => data_dir.join("keys.db"),
        Some(Location::File(path)) => path,
        Some(Location::Postgres(_)) => {
            return Err(ConfigError::Bad {
                origin: "key_store_url".to_owned(),
                problem: "a journal in a file has its keys in a file: leave it out, or give sqlite:<path>"
                    .to_owned(),
            });
        }
    };
    Ok((None, journal.unwrap_or_else(|| data_dir.join("journal.db")), key_store))
}
