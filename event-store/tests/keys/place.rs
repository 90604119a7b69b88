//! A key store in a file or in a database, and what somebody else does to it.

use std::fs;
use std::sync::Arc;

use event_store::{KeyStore, MasterKey, OpenError, PostgresSettings, Sealer};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use test_services::Postgres;

/// What version 0.1 wrote into a key store of format 1.
pub const FORMAT_1_MASTER: &str = "Eo+HzlJ8Guf11Zno0TcAlHSZBcgMUbfyjik6EEaE+IE=";
pub const FORMAT_1_CHECK: &str = "1dfc19886ce18a6a72959ca1f7a8d9817d8d18f422e8d3957e34a5e68ec8f149a0a9c30273a0b1c232045f8c328d9827\
    5cad71c51926cd79fb3262";
pub const FORMAT_1_PERSON: &str = "01a1ff8fe4387fbebe7e728b372351ba";
pub const FORMAT_1_DATA_KEY: &str = "56d300fe076a47457c835285642d12329fec4d257d85eee0380050c57a7fa72cea80eb2e8caa30b5dcbf90a7200dd260\
    babd21d65adec3d47503e3b5e2e6dadba917c85eee4794cc";

/// The location of a key store.
pub enum Place {
    File(TempDir),
    Database(String),
}

impl Place {
    pub async fn open(&self, master: &MasterKey) -> Result<KeyStore, OpenError> {
        match self {
            Self::File(directory) => KeyStore::open(&directory.path().join("keys.db"), master).await,
            Self::Database(url) => {
                let url = url.parse().expect("a URL");
                KeyStore::open_postgres(&url, PostgresSettings::default(), master).await
            }
        }
    }

    pub async fn sealer(&self, master: &MasterKey) -> Sealer {
        Sealer::new(Arc::new(self.open(master).await.expect("opens")))
    }

    /// Creates a store of version 0.1, which has format 1, with the key of one person.
    pub async fn make_format_1(&self) {
        self.open(&MasterKey::generate()).await.expect("makes the tables").close().await;
        let statements = |blob: &dyn Fn(&str) -> String| {
            format!(
                "DROP TABLE checkpoints; DROP TABLE cosignatures; DELETE FROM meta; INSERT INTO meta VALUES ('check', {}); INSERT INTO data_keys VALUES ({}, {})",
                blob(FORMAT_1_CHECK),
                blob(FORMAT_1_PERSON),
                blob(FORMAT_1_DATA_KEY)
            )
        };
        match self {
            Self::File(directory) => {
                let statements = statements(&|hex| format!("x'{hex}'"));
                let options = SqliteConnectOptions::new().filename(directory.path().join("keys.db"));
                let mut file = options.connect().await.expect("opens");
                file.execute(AssertSqlSafe(format!("{statements}; PRAGMA user_version = 1")))
                    .await
                    .expect("writes");
                file.close().await.expect("closes");
            }
            Self::Database(url) => {
                let statements = statements(&|hex| {
                    if hex == FORMAT_1_PERSON { format!("'{hex}'") } else { format!("'\\x{hex}'") }
                });
                let all = format!(
                    "SET search_path = watchword_keys; {statements}; UPDATE format SET version = 1; COMMENT ON TABLE meta \
                     IS NULL"
                );
                Postgres::shared().psql(url, &all);
            }
        }
    }

    /// Changes the stored checkpoint, and returns what undoes it.
    pub async fn alter(&self, change: &str) -> impl Future<Output = ()> {
        let columns = "size, note, signed_at, epochs, mac";
        let alter = format!(
            "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT {columns} FROM checkpoints; UPDATE checkpoints SET {change}"
        );
        let undo = format!("UPDATE checkpoints SET ({columns}) = (SELECT {columns} FROM kept)");
        self.run(alter).await;
        self.run(undo)
    }

    pub async fn run(&self, statements: String) {
        match self {
            Self::File(directory) => {
                let options = SqliteConnectOptions::new().filename(directory.path().join("keys.db"));
                let mut file = options.connect().await.expect("opens");
                file.execute(AssertSqlSafe(statements)).await.expect("writes");
                file.close().await.expect("closes");
            }
            Self::Database(url) => {
                Postgres::shared().psql(url, &format!("SET search_path = watchword_keys; {statements}"));
            }
        }
    }

    /// Everything that is stored, in any form.
    pub fn dump(&self) -> String {
        match self {
            Self::File(directory) => {
                let read = |name: &str| fs::read(directory.path().join(name)).unwrap_or_default();
                let bytes = [read("keys.db"), read("keys.db-wal")].concat();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Self::Database(url) => Postgres::shared().psql(
                url,
                "SELECT encode(wrapped, 'escape') FROM watchword_keys.signing_keys
                 UNION ALL SELECT encode(wrapped, 'escape') FROM watchword_keys.data_keys
                 UNION ALL SELECT encode(value, 'escape') FROM watchword_keys.meta",
            ),
        }
    }
}
