//! A journal in either store, as its administrator sees it, and the history that the tests write to it.

use std::sync::Arc;

use aws_lc_rs::digest;
use domain::{StreamId, UserId};
use event_store::contract::{event, macs, never_looking, nothing};
use event_store::{
    Append, Journal, Macs, NewEvent, OpenError, PostgresJournal, PostgresUrl, SqliteJournal, Write,
};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use test_services::Postgres;
use uuid::Uuid;

/// A store, as its administrator sees it.
pub(super) enum Store {
    File(TempDir),
    Database(String),
}

impl Store {
    pub(super) fn both() -> [Self; 2] {
        [Self::file(), Self::Database(Postgres::shared().database())]
    }

    pub(super) fn file() -> Self {
        Self::File(TempDir::new().expect("makes a directory"))
    }

    pub(super) fn path(directory: &TempDir) -> std::path::PathBuf {
        directory.path().join("journal.db")
    }

    pub(super) fn url(url: &str) -> PostgresUrl {
        url.parse().expect("a URL")
    }

    pub(super) async fn try_open(&self, macs: &Macs) -> Result<Arc<dyn Journal>, OpenError> {
        Ok(match self {
            Self::File(directory) => Arc::new(SqliteJournal::open(&Self::path(directory), macs).await?),
            Self::Database(url) => {
                Arc::new(PostgresJournal::open(&Self::url(url), never_looking(), macs).await?)
            }
        })
    }

    pub(super) async fn open(&self) -> Arc<dyn Journal> {
        self.try_open(&macs()).await.expect("opens")
    }

    /// Statements that both databases understand; a table is called `events`, a constant of bytes `x'00'`.
    pub(super) async fn alter(&self, statements: &str) {
        match self {
            Self::File(directory) => {
                let mut file = SqliteConnectOptions::new()
                    .filename(Self::path(directory))
                    .connect()
                    .await
                    .expect("opens");
                let statements = format!(
                    "DROP TRIGGER IF EXISTS events_are_never_changed; DROP TRIGGER IF EXISTS events_are_never_deleted;
                     DROP TRIGGER IF EXISTS events_have_no_gaps; {statements}"
                );
                file.execute(AssertSqlSafe(statements)).await.expect("changes");
                file.close().await.expect("closes");
            }
            Self::Database(url) => {
                let statements = statements.replace("x'", "'\\x");
                Postgres::shared().psql(
                    url,
                    &format!(
                        "SET search_path = watchword; ALTER TABLE events DISABLE TRIGGER USER;
                         DO $$ BEGIN ALTER TABLE events ALTER COLUMN mac DROP NOT NULL;
                         EXCEPTION WHEN undefined_column THEN NULL; END $$; {statements}"
                    ),
                );
            }
        }
    }

    pub(super) async fn mac(&self, position: u64) -> Vec<u8> {
        match self {
            Self::File(directory) => {
                let mut file = SqliteConnectOptions::new()
                    .filename(Self::path(directory))
                    .connect()
                    .await
                    .expect("opens");
                sqlx::query_scalar("SELECT mac FROM events WHERE position = ?1")
                    .bind(position.cast_signed())
                    .fetch_one(&mut file)
                    .await
                    .expect("reads")
            }
            Self::Database(url) => {
                let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a URL");
                let mut connection = options.connect().await.expect("connects");
                sqlx::query_scalar("SELECT mac FROM watchword.events WHERE position = $1")
                    .bind(position.cast_signed())
                    .fetch_one(&mut connection)
                    .await
                    .expect("reads")
            }
        }
    }

    pub(super) async fn macs(&self, head: u64) -> Vec<Vec<u8>> {
        let mut macs = Vec::new();
        for position in 1..=head {
            macs.push(self.mac(position).await);
        }
        macs
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

fn about(person: u128, name: &'static str, data: &str) -> NewEvent {
    NewEvent {
        name: name.into(),
        data: data.to_owned(),
        person: Some(UserId(Uuid::from_u128(person))),
        personal: Some(vec![1, 2, 3, 4]),
        ..event()
    }
}

pub(super) fn user(number: u128) -> StreamId {
    StreamId::user(UserId(Uuid::from_u128(number)))
}

/// Two persons. 1: Ada registers, 2: gets a role, 3: loses it; 4: Eve registers, 5: is banned.
pub(super) async fn history(journal: &dyn Journal) {
    let ada = [
        ("UserRegistered", "{}"),
        ("RoleGranted", r#"{"role":"admin"}"#),
        ("RoleRevoked", r#"{"role":"admin"}"#),
    ];
    let eve = [("UserRegistered", "{}"), ("UserBanned", "{}")];
    for (number, events) in [(1, &ada[..]), (2, &eve[..])] {
        let events = events.iter().map(|(name, data)| about(number, name, data)).collect();
        let write = Write { stream: user(number), expected: 0, events };
        journal.append(Append { writes: vec![write], ..nothing() }).await.expect("appends");
    }
}

/// What version 0.1 stored instead of a MAC: a checksum, which anybody can compute.
pub(super) fn checksum(event: &schemas::RecordedEvent, position: i64) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    let version = event.version.cast_signed();
    for number in [position, version, i64::from(event.schema_version), event.at.as_microsecond()] {
        context.update(&number.to_le_bytes());
    }
    let metadata = serde_json::to_string(&event.metadata).expect("serializes");
    let person = event.person.map(|person| person.0.as_bytes().to_vec());
    let parts = [
        Some(event.id.as_bytes().to_vec()),
        Some(event.stream.as_str().as_bytes().to_vec()),
        Some(event.name.clone().into_bytes()),
        Some(metadata.into_bytes()),
        Some(event.data.clone().into_bytes()),
        person,
        event.personal.clone(),
    ];
    for part in parts {
        context.update(&part.as_ref().map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        context.update(&part.unwrap_or_default());
    }
    context.finish().as_ref()[..16].to_vec()
}
