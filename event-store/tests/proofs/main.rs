//! Without the instance key, even an administrator who can write to the store cannot make an event: every read refuses
//! what they change, and accepts the rest.

use std::fmt::Write as _;

use event_store::contract::{append, macs, macs_before_upgrade, stream};
use event_store::{
    Append, AppendError, Idempotency, InstanceKey, JournalLock, Macs, OpenError, PostgresJournal, StoreError,
};
use uuid::Uuid;

mod administrator;
mod store;
mod tampered;

use store::{Store, checksum, history, user};

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
