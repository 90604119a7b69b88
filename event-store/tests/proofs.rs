//! Without the instance key, even an administrator who can write to the store cannot make an event: every read refuses
//! what they change, and accepts the rest.
//! Longer than most, as both stores and all that their administrators can do to them are set up for every test in it.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest;
use domain::{StreamId, UserId};
use event_store::contract::{append, event, macs, macs_before_upgrade, nothing, stream};
use event_store::{
    Append, AppendError, Idempotency, InstanceKey, Journal, JournalLock, Macs, NewEvent, OpenError,
    PostgresJournal, PostgresSettings, PostgresUrl, SqliteJournal, StoreError, Write,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;
use test_services::Postgres;
use uuid::Uuid;

#[path = "proofs/tampered.rs"]
mod tampered;

/// A store, as its administrator sees it.
enum Store {
    File(TempDir),
    Database(String),
}

impl Store {
    fn both() -> [Self; 2] {
        [Self::file(), Self::Database(Postgres::shared().database())]
    }

    fn file() -> Self {
        Self::File(TempDir::new().expect("makes a directory"))
    }

    fn path(directory: &TempDir) -> std::path::PathBuf {
        directory.path().join("journal.db")
    }

    fn url(url: &str) -> PostgresUrl {
        url.parse().expect("a URL")
    }

    async fn try_open(&self, macs: &Macs) -> Result<Arc<dyn Journal>, OpenError> {
        Ok(match self {
            Self::File(directory) => Arc::new(SqliteJournal::open(&Self::path(directory), macs).await?),
            Self::Database(url) => {
                Arc::new(PostgresJournal::open(&Self::url(url), PostgresSettings::default(), macs).await?)
            }
        })
    }

    async fn open(&self) -> Arc<dyn Journal> {
        self.try_open(&macs()).await.expect("opens")
    }

    /// Statements that both databases understand; a table is called `events`, a constant of bytes `x'00'`.
    async fn alter(&self, statements: &str) {
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

    async fn mac(&self, position: u64) -> Vec<u8> {
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

    async fn macs(&self, head: u64) -> Vec<Vec<u8>> {
        let mut macs = Vec::new();
        for position in 1..=head {
            macs.push(self.mac(position).await);
        }
        macs
    }

    fn is_file(&self) -> bool {
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

fn user(number: u128) -> StreamId {
    StreamId::user(UserId(Uuid::from_u128(number)))
}

/// Two persons. 1: Ada registers, 2: gets a role, 3: loses it; 4: Eve registers, 5: is banned.
async fn history(journal: &dyn Journal) {
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
fn checksum(event: &schemas::RecordedEvent, position: i64) -> Vec<u8> {
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

/// Everything before `position` can be read, the event at `position` cannot in any way, and neither can its stream.
async fn refused(what: &str, store: &Store, position: u64) {
    let macs = macs();
    let journal = store.try_open(&macs).await.expect("opens: everything else works");
    let damaged = |error: &StoreError| {
        let StoreError::Damaged(text) = error else { return false };
        text.contains(&format!("event {position}"))
    };
    let error = journal.read_positions(&[position]).await.expect_err(what);
    assert!(damaged(&error), "{what}: {error}");
    let error = journal.read_all(position - 1, 10).await.expect_err(what);
    assert!(damaged(&error), "{what}: {error}");
    if position > 1 {
        let before = journal.read_all(0, 10).await.expect(what);
        assert_eq!(before.len() as u64, position - 1, "{what}: those before it are read, and none after it");
    }
    journal.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_administrator_of_the_store_forges_is_refused() {
    let copy = "INSERT INTO events SELECT 6, {id}, {stream}, {version}, type, schema_version, at, app_id, metadata, data, \
         {person}, personal, {mac} FROM events WHERE position = 2";
    for forged in [
        // A grant copied to another person, with an id of its own, the next position and version.
        copy.replace("{stream}", &format!("'{}'", user(2)))
            .replace("{version}", "3")
            .replace("{person}", "(SELECT person FROM events WHERE position = 4)"),
        // The person's own genuine grant again, from before it was revoked.
        copy.replace("{stream}", "stream").replace("{version}", "4").replace("{person}", "person"),
    ] {
        for store in Store::both() {
            let journal = store.open().await;
            history(&*journal).await;
            let whole = journal.read_all(0, 9).await.expect("reads");
            journal.close().await;
            let other = Store::file();
            let foreign = other.try_open(&Macs::new(&InstanceKey::generate())).await.expect("opens");
            history(&*foreign).await;
            foreign.close().await;
            let id = if store.is_file() {
                format!("x'{}'", hex::encode(Uuid::from_u128(99).as_bytes()))
            } else {
                format!("'{}'", Uuid::from_u128(99))
            };
            let mut as_written = whole[1].clone();
            (as_written.id, as_written.position) = (Uuid::from_u128(99), 6);
            let position = if store.is_file() { 6 } else { 0 };
            for (what, mac) in [
                ("the MAC of the copied one", "mac".to_owned()),
                ("none", "NULL".to_owned()),
                ("an empty one", "x''".to_owned()),
                ("zeros", format!("x'{}'", "00".repeat(16))),
                ("a checksum", format!("x'{}'", hex::encode(checksum(&as_written, position)))),
                ("another instance's", format!("x'{}'", hex::encode(&other.mac(2).await))),
                ("a longer one", "x'000102030405060708090a0b0c0d0e0f1011'".to_owned()),
            ] {
                let forge = forged.replace("{id}", &id).replace("{mac}", &mac);
                store.alter(&forge).await;
                refused(what, &store, 6).await;
                store.alter("DELETE FROM events WHERE position = 6").await;
            }
            // Also with its own id.
            store.alter(&forged.replace("{id}", "id").replace("{mac}", "mac")).await;
            refused("a copy", &store, 6).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn genuine_events_stay_where_they_were_written() {
    for store in Store::both() {
        let journal = store.open().await;
        history(&*journal).await;
        let whole = journal.read_all(0, 9).await.expect("reads");
        journal.close().await;
        let swap = |one: &str, other: &str, column: &str| {
            format!(
                "UPDATE events SET {column} = -1 - {column} WHERE position IN ({one}, {other});
                 UPDATE events SET {column} = CASE {column} WHEN -1 - {one} THEN {other} ELSE {one} END WHERE {column} < 0"
            )
        };
        for (what, change, back, found_at) in [
            ("two positions swapped", swap("3", "5", "position"), swap("3", "5", "position"), 3),
            (
                "moved past the end",
                "UPDATE events SET position = 6 WHERE position = 5".to_owned(),
                "UPDATE events SET position = 5 WHERE position = 6".to_owned(),
                6,
            ),
            (
                "another version",
                "UPDATE events SET version = 9 WHERE position = 5".to_owned(),
                "UPDATE events SET version = 2 WHERE position = 5".to_owned(),
                5,
            ),
            (
                "another stream",
                format!("UPDATE events SET stream = '{}' WHERE position = 5", user(3)),
                format!("UPDATE events SET stream = '{}' WHERE position = 5", user(2)),
                5,
            ),
            (
                "another app",
                "UPDATE events SET app_id = 'other' WHERE position = 4".to_owned(),
                "UPDATE events SET app_id = 'default' WHERE position = 4".to_owned(),
                4,
            ),
        ] {
            store.alter(&change).await;
            let journal = store.open().await;
            let error = journal.read_positions(&[found_at]).await.expect_err(what);
            assert!(error.to_string().contains(&format!("event {found_at}")), "{what}: {error}");
            journal.close().await;
            store.alter(&back).await;
            let journal = store.open().await;
            assert_eq!(journal.read_all(0, 9).await.expect("whole again"), whole, "{what}");
            journal.close().await;
        }
    }
}

/// What a column of an event holds.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Id,
    Bytes,
    Text,
    /// With this many bits that can be changed, without the sign bit.
    Number(usize),
}

/// Every column of a row except its position.
const COLUMNS: [(&str, Kind); 12] = [
    ("id", Kind::Id),
    ("stream", Kind::Text),
    ("version", Kind::Number(63)),
    ("type", Kind::Text),
    ("schema_version", Kind::Number(31)),
    ("at", Kind::Number(63)),
    ("app_id", Kind::Text),
    ("metadata", Kind::Text),
    ("data", Kind::Text),
    ("person", Kind::Id),
    ("personal", Kind::Bytes),
    ("mac", Kind::Bytes),
];

/// Somebody who can write to a store, while a node has it open.
enum Administrator {
    OfFile(SqliteConnection),
    OfDatabase(PgConnection),
}

/// The cells of a row, without its position. Numbers are their digits.
type Cells = Vec<Option<Vec<u8>>>;

/// Rows by their positions.
type Placed = Vec<(u64, Cells)>;

/// The row at a position of the history.
fn row_at(rows: &[Cells], position: u64) -> Option<&Cells> {
    rows.get(usize::try_from(position).expect("few") - 1)
}

fn copy_of(rows: &[Cells], position: u64) -> Cells {
    row_at(rows, position).expect("it is in the history").clone()
}

impl Administrator {
    async fn of(store: &Store) -> Self {
        match store {
            Store::File(directory) => {
                let mut file = SqliteConnectOptions::new()
                    .filename(Store::path(directory))
                    .connect()
                    .await
                    .expect("opens");
                for trigger in ["are_never_changed", "are_never_deleted", "have_no_gaps"] {
                    let drop = format!("DROP TRIGGER IF EXISTS events_{trigger}");
                    file.execute(AssertSqlSafe(drop)).await.expect("drops");
                }
                Self::OfFile(file)
            }
            Store::Database(url) => {
                let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a URL");
                let mut connection = options.connect().await.expect("connects");
                for statement in [
                    "SET search_path = watchword",
                    "ALTER TABLE events DISABLE TRIGGER USER",
                    "ALTER TABLE events ALTER COLUMN mac DROP NOT NULL",
                ] {
                    connection.execute(statement).await.expect("may");
                }
                Self::OfDatabase(connection)
            }
        }
    }

    async fn row(&mut self, position: u64) -> Cells {
        let mut cells = Vec::new();
        for (column, kind) in COLUMNS {
            let is_file = matches!(self, Self::OfFile(_));
            let read = match kind {
                Kind::Number(_) if is_file => format!("CAST(CAST({column} AS TEXT) AS BLOB)"),
                _ if is_file => format!("CAST({column} AS BLOB)"),
                Kind::Number(_) => format!("convert_to({column}::text, 'UTF8')"),
                Kind::Text => format!("convert_to({column}, 'UTF8')"),
                Kind::Id => format!("uuid_send({column})"),
                Kind::Bytes => column.to_owned(),
            };
            let query = AssertSqlSafe(format!("SELECT {read} FROM events WHERE position = {position}"));
            cells.push(match self {
                Self::OfFile(file) => sqlx::query_scalar(query).fetch_one(file).await.expect("reads"),
                Self::OfDatabase(connection) => {
                    sqlx::query_scalar(query).fetch_one(connection).await.expect("reads")
                }
            });
        }
        cells
    }

    /// Replaces the rows at these positions. False if the store itself refuses such rows.
    async fn put(&mut self, away: &[u64], rows: &[(u64, &Cells)]) -> bool {
        let is_file = matches!(self, Self::OfFile(_));
        let mut statements = "BEGIN;".to_owned();
        for position in away {
            writeln!(statements, "DELETE FROM events WHERE position = {position};")
                .expect("takes everything");
        }
        let columns = COLUMNS.map(|(column, _)| column).join(", ");
        for (position, cells) in rows {
            let literal = |((_, kind), cell): (&(&str, Kind), &Option<Vec<u8>>)| {
                let Some(cell) = cell else { return "NULL".to_owned() };
                match kind {
                    Kind::Number(_) => String::from_utf8(cell.clone()).expect("digits"),
                    Kind::Text if is_file => format!("CAST(x'{}' AS TEXT)", hex::encode(cell)),
                    Kind::Text => format!("convert_from('\\x{}', 'UTF8')", hex::encode(cell)),
                    Kind::Id | Kind::Bytes if is_file => format!("x'{}'", hex::encode(cell)),
                    Kind::Id => format!("'{}'", hex::encode(cell)),
                    Kind::Bytes => format!("'\\x{}'", hex::encode(cell)),
                }
            };
            let cells: Vec<String> = COLUMNS.iter().zip(cells.iter()).map(literal).collect();
            let cells = cells.join(", ");
            writeln!(statements, "INSERT INTO events (position, {columns}) VALUES ({position}, {cells});")
                .expect("takes everything");
        }
        statements.push_str("COMMIT");
        let statements = AssertSqlSafe(statements);
        match self {
            Self::OfFile(file) => {
                let done = sqlx::raw_sql(statements).execute(&mut *file).await.is_ok();
                if !done {
                    file.execute("ROLLBACK").await.expect("goes back");
                }
                done
            }
            Self::OfDatabase(connection) => {
                let done = sqlx::raw_sql(statements).execute(&mut *connection).await.is_ok();
                if !done {
                    connection.execute("ROLLBACK").await.expect("goes back");
                }
                done
            }
        }
    }
}

/// Turns a journal into an older one, with checksums and without MACs.
async fn age(store: &Store, events: &[schemas::RecordedEvent]) {
    let mut statements = String::new();
    for event in events {
        let sum = checksum(event, if store.is_file() { event.position.cast_signed() } else { 0 });
        writeln!(
            statements,
            "UPDATE events SET mac = x'{}' WHERE position = {};",
            hex::encode(&sum),
            event.position
        )
        .expect("writing to a String cannot fail");
    }
    statements.push_str("UPDATE idempotency SET mac = NULL;");
    store.alter(&statements).await;
}

/// Sets the format number back.
async fn set_format_back(store: &Store) {
    store
        .alter(if store.is_file() {
            "ALTER TABLE events RENAME COLUMN mac TO checksum; ALTER TABLE idempotency DROP COLUMN mac; PRAGMA user_version = 3"
        } else {
            "ALTER TABLE events RENAME COLUMN mac TO checksum; ALTER TABLE idempotency DROP COLUMN mac;
             DROP FUNCTION append; CREATE FUNCTION append() RETURNS void LANGUAGE sql AS ''; UPDATE format SET version = 4"
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_journal_gets_its_macs_and_cannot_be_set_back() {
    for store in Store::both() {
        let once = Some(Idempotency { key: [1; 32], fingerprint: [2; 32] });
        let journal = store.open().await;
        history(&*journal).await;
        let sent = Append { idempotency: once, ..append(&stream("a"), 0, 2) };
        journal.append(sent).await.expect("appends");
        let whole = journal.read_all(0, 9).await.expect("reads");
        journal.close().await;
        let proven = store.macs(7).await;

        age(&store, &whole).await;
        set_format_back(&store).await;
        // An event that was changed before gets no MAC that would hide the change.
        store.alter("UPDATE events SET data = '{ }' WHERE position = 4").await;
        store.try_open(&macs_before_upgrade()).await.expect("is upgraded").close().await;
        let mut found = store.macs(7).await;
        assert_ne!(found[3], proven[3]);
        refused("changed before", &store, 4).await;
        store.alter("UPDATE events SET data = '{}' WHERE position = 4").await;

        // After an interruption it continues: what has its MAC keeps it.
        store.try_open(&macs_before_upgrade()).await.expect("continues").close().await;
        found = store.macs(7).await;
        assert_eq!(found, proven, "it ends as if it had been written with MACs");
        let journal = store.open().await;
        assert_eq!(journal.read_all(0, 9).await.expect("reads"), whole);
        let again = Append { idempotency: once, ..append(&stream("b"), 0, 1) };
        let answer = journal.append(again).await;
        assert_eq!(answer.map(|appended| (appended.first, appended.replayed)), Ok((6, true)));
        journal.close().await;

        // An attacker replaces the MACs by checksums and sets the format back.
        age(&store, &whole).await;
        refused("checksums", &store, 1).await;
        set_format_back(&store).await;
        let Err(error) = store.try_open(&macs()).await else { panic!("is refused") };
        assert!(matches!(error, OpenError::WithoutMacs { .. }), "{error}");
        assert!(error.to_string().contains("backup"), "{error}");
    }
}

/// A forged row of an idempotency key could answer a request with another user's session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_row_of_an_idempotency_key_cannot_point_at_other_events() {
    let once = |key| Some(Idempotency { key: [key; 32], fingerprint: [9; 32] });
    for store in Store::both() {
        let journal = store.open().await;
        history(&*journal).await;
        let sent = Append { idempotency: once(1), ..append(&stream("a"), 0, 1) };
        journal.append(sent.clone()).await.expect("appends");
        let other = Append { idempotency: once(2), ..append(&stream("b"), 0, 1) };
        journal.append(other).await.expect("appends");
        let row = |values: &str| {
            format!(
                "DELETE FROM idempotency WHERE key = x'{0}'; INSERT INTO idempotency SELECT {values} FROM idempotency
                 WHERE key = x'{1}'",
                hex::encode([1; 32]),
                hex::encode([2; 32])
            )
        };
        let key = format!("x'{}'", hex::encode([1; 32]));
        for (number, values) in [
            format!("{key}, fingerprint, 1, 1, at, mac"),
            format!("{key}, fingerprint, first, last, at, mac"),
            format!("{key}, fingerprint, 1, 1, at, NULL"),
            format!("{key}, fingerprint, 1, 1, at, x''"),
            format!("{key}, fingerprint, 1, 1, at, x'{}'", "00".repeat(16)),
        ]
        .into_iter()
        .enumerate()
        {
            store.alter(&row(&values)).await;
            let read = journal.idempotent(&[1; 32]).await;
            assert!(matches!(read, Err(StoreError::Damaged(_))), "{values}: {read:?}");
            let again = Append { idempotency: once(1), ..append(&stream("c"), 0, 1) };
            let (refused, neighbour) = tokio::join!(
                journal.append(again),
                journal.append(append(&stream(&format!("neighbour{number}")), 0, 1))
            );
            assert!(matches!(refused, Err(AppendError::Damaged(_))), "{values}: {refused:?}");
            assert!(neighbour.is_ok(), "{neighbour:?}");
        }
        journal.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_tail_is_listed_and_cut_off_and_nothing_else() {
    for store in Store::both() {
        let journal = store.open().await;
        history(&*journal).await;
        let whole = journal.read_all(0, 9).await.expect("reads");
        journal.close().await;
        let forge = |position: u64, version: u64| {
            format!(
                "INSERT INTO events SELECT {position}, id, stream, {version}, type, schema_version, at, app_id, metadata, data,
                     person, personal, mac FROM events WHERE position = 2;"
            )
        };
        store.alter(&(forge(6, 4) + &forge(7, 5))).await;
        let (found, cut) = match &store {
            Store::File(directory) => {
                let lock = JournalLock::take(&Store::path(directory)).expect("takes");
                let found = lock.forged_tail(&macs()).await.expect("looks");
                // With another key, nothing in the journal is proven, so no end can be told from the rest.
                let stranger =
                    lock.cut_forged_tail(&Macs::new(&InstanceKey::generate())).await.expect("looks");
                assert_eq!((stranger.proven, stranger.events.len()), (0, 7));
                (found, lock.cut_forged_tail(&macs()).await.expect("cuts"))
            }
            Store::Database(url) => {
                let url = Store::url(url);
                let found = PostgresJournal::forged_tail(&url, &macs()).await.expect("looks");
                (found, PostgresJournal::cut_forged_tail(&url, &macs()).await.expect("cuts"))
            }
        };
        assert_eq!(found, cut);
        assert_eq!(cut.proven, 5);
        let told: Vec<_> = cut.events.iter().map(|it| (it.position, it.name.as_str(), it.version)).collect();
        assert_eq!(told, [(7, "RoleGranted", 5), (6, "RoleGranted", 4)]);
        let journal = store.open().await;
        assert_eq!(journal.read_all(0, 9).await.expect("reads"), whole);
        assert_eq!(journal.append(append(&stream("a"), 0, 1)).await.map(|appended| appended.first), Ok(6));
        journal.close().await;
    }
}
