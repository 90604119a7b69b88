//! The `SQLite` journal: the contract, and what is special about a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use event_store::contract::{self, append, claim, stream};
use event_store::sqlite::file::integrity_faults;
use event_store::{Append, AppendError, Idempotency, Journal, JournalLock, OpenError, SqliteJournal};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

async fn open(directory: &TempDir) -> SqliteJournal {
    SqliteJournal::open(&directory.path().join("journal.db"), &contract::macs()).await.expect("opens")
}

async fn plain_connection(path: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.expect("connects")
}

macro_rules! contract {
    ($($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let directory = TempDir::new().expect("makes a directory");
            contract::$name(Arc::new(open(&directory).await)).await;
        })*
    };
}

contract! {
    reads_back_what_was_written
    checks_expected_versions
    checks_guards
    checks_claims
    is_idempotent
    forgets_old_idempotency_keys
    writes_all_or_nothing
    survives_racing_writers
    gets_one_origin
    shows_no_gap_to_a_reader_that_follows
    a_refusal_spares_its_neighbours
    keeps_snapshots
    keeps_cursors_of_effects
    knows_where_it_stood_at_a_time
}

/// On one thread all appends are queued before the writer runs once: one group.
#[tokio::test]
async fn neighbours_in_one_group_commit() {
    let directory = TempDir::new().expect("makes a directory");
    contract::a_refusal_spares_its_neighbours(Arc::new(open(&directory).await)).await;
}

#[tokio::test]
async fn big_appends_are_written_in_chunks() {
    let directory = TempDir::new().expect("makes a directory");
    let journal = open(&directory).await;
    let appended = journal.append(append(&stream("a"), 0, 701)).await.expect("appends");
    assert_eq!((appended.first, appended.last), (1, 701));
    assert_eq!(journal.read_stream(&stream("a"), 0).await.expect("reads").len(), 701);
}

/// A kill leaves what is on disk at that moment: a copy of the files of a running journal.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let directory = TempDir::new().expect("makes a directory");
    let copy = TempDir::new().expect("makes a directory");
    let journal = open(&directory).await;
    let sent = Append {
        taken: vec![(claim("x"), stream("a"))],
        idempotency: Some(Idempotency { key: [1; 32], fingerprint: [2; 32] }),
        ..append(&stream("a"), 0, 3)
    };
    journal.append(sent.clone()).await.expect("appends");
    for name in ["journal.db", "journal.db-wal"] {
        fs::copy(directory.path().join(name), copy.path().join(name)).expect("copies");
    }
    let reopened = open(&copy).await;
    assert_eq!(reopened.head().await, Ok(3));
    assert_eq!(*reopened.watch_head().borrow(), 3);
    assert_eq!(reopened.read_all(0, 9).await, journal.read_all(0, 9).await);
    assert_eq!(reopened.claim_owner(&claim("x")).await, Ok(Some(stream("a"))));
    let again = reopened.append(sent).await.expect("is answered");
    assert!(again.replayed && again.last == 3);
    assert_eq!(reopened.append(append(&stream("a"), 3, 1)).await.expect("appends").first, 4);
}

#[tokio::test]
async fn opens_again_after_closing() {
    let directory = TempDir::new().expect("makes a directory");
    let journal = open(&directory).await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    journal.close().await;
    assert_eq!(open(&directory).await.head().await, Ok(1));
}

#[tokio::test]
async fn a_second_one_on_the_same_file_is_refused() {
    let directory = TempDir::new().expect("makes a directory");
    let path = directory.path().join("journal.db");
    let _journal = open(&directory).await;
    let refusal = SqliteJournal::open(&path, &contract::macs()).await.err().expect("is refused");
    assert!(matches!(refusal, OpenError::InUse(_)), "{refusal}");
    assert!(refusal.to_string().contains("another process"), "{refusal}");
}

#[tokio::test]
async fn the_file_itself_refuses_changes_and_gaps() {
    let directory = TempDir::new().expect("makes a directory");
    let journal = open(&directory).await;
    journal.append(append(&stream("a"), 0, 2)).await.expect("appends");
    let mut connection = plain_connection(&directory.path().join("journal.db")).await;
    for (statement, message) in [
        ("UPDATE events SET data = '{}' WHERE position = 1", "never changed"),
        ("DELETE FROM events WHERE position = 2", "never deleted"),
        ("INSERT OR REPLACE INTO events SELECT * FROM events WHERE position = 2", "no gaps"),
        (
            "INSERT INTO events SELECT 9, id, 'app-x', 1, type, 1, at, app_id, metadata, data, NULL, NULL, NULL FROM events",
            "no gaps",
        ),
    ] {
        let refusal = sqlx::query(statement).execute(&mut connection).await.expect_err(statement).to_string();
        assert!(refusal.contains(message), "{statement}: {refusal}");
    }
}

/// Every file of the directory with its bytes.
fn contents(directory: &TempDir) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("lists");
        (entry.file_name().into_string().expect("is text"), fs::read(entry.path()).expect("reads"))
    };
    fs::read_dir(directory.path()).expect("lists").map(file).collect()
}

/// What is refused stays unchanged, and nothing appears beside it.
async fn refused(directory: &TempDir) -> OpenError {
    let before = contents(directory);
    let refusal = SqliteJournal::open(&directory.path().join("journal.db"), &contract::macs())
        .await
        .err()
        .expect("is refused");
    assert!(contents(directory) == before, "{refusal}, but something was touched");
    refusal
}

/// What a killed process leaves of a journal with 20 events: the newest are only in the log beside the file.
async fn killed() -> TempDir {
    let (directory, left) =
        (TempDir::new().expect("makes a directory"), TempDir::new().expect("makes a directory"));
    let journal = open(&directory).await;
    journal.append(append(&stream("a"), 0, 20)).await.expect("appends");
    for (name, bytes) in contents(&directory) {
        fs::write(left.path().join(name), bytes).expect("writes");
    }
    assert!(fs::metadata(left.path().join("journal.db-wal")).expect("is there").len() > 0);
    left
}

#[tokio::test]
async fn is_read_after_a_kill_without_a_trace() {
    for with_index in [true, false] {
        let directory = killed().await;
        if !with_index {
            fs::remove_file(directory.path().join("journal.db-shm")).expect("removes");
        }
        let before = contents(&directory);
        let lock = JournalLock::take(&directory.path().join("journal.db")).expect("takes");
        let journal = SqliteJournal::look(&lock, &contract::macs()).await.expect("looks");
        assert_eq!(journal.head().await, Ok(20));
        assert_eq!(journal.read_all(0, 100).await.expect("reads").len(), 20);
        let refusal = journal.append(append(&stream("b"), 0, 1)).await;
        assert!(matches!(refusal, Err(AppendError::Unavailable(_))), "{refusal:?}");
        let faults = integrity_faults(&directory.path().join("journal.db")).await.expect("checks");
        assert_eq!(faults, Vec::<String>::new());
        journal.close().await;
        assert!(contents(&directory) == before, "looking left a trace");
        drop(lock);
        let journal = open(&directory).await;
        assert_eq!(journal.head().await, Ok(20));
        journal.close().await;
        assert_eq!(contents(&directory).keys().collect::<Vec<_>>(), ["journal.db", "journal.db.lock"]);
    }
}

#[tokio::test]
async fn a_damaged_one_that_a_kill_left_is_not_touched() {
    let directory = killed().await;
    // No commit of its log is valid, and without them the file has no tables.
    let log = directory.path().join("journal.db-wal");
    let mut bytes = fs::read(&log).expect("reads");
    fs::write(directory.path().join("journal.db"), {
        let mut file = fs::read(directory.path().join("journal.db")).expect("reads");
        file[100..4096].fill(0);
        file
    })
    .expect("writes");
    bytes[32..].fill(0);
    fs::write(&log, bytes).expect("writes");
    let refusal = refused(&directory).await;
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
}

#[tokio::test]
async fn a_changed_event_is_found() {
    for change in [
        "data = replace(data, '1', '2')",
        "at = at + 1",
        "version = 9",
        "id = zeroblob(16)",
        "personal = x'00'",
        "metadata = metadata || ' '",
        "type = 'UserBanned'",
    ] {
        let directory = TempDir::new().expect("makes a directory");
        let journal = open(&directory).await;
        journal.append(append(&stream("a"), 0, 3)).await.expect("appends");
        journal.close().await;
        let mut connection = plain_connection(&directory.path().join("journal.db")).await;
        // The trigger prevents mistakes, but not disk failures.
        let change_it =
            format!("DROP TRIGGER events_are_never_changed; UPDATE events SET {change} WHERE position = 2;");
        sqlx::raw_sql(AssertSqlSafe(change_it)).execute(&mut connection).await.expect("changes");
        connection.close().await.expect("closes");
        let journal = open(&directory).await;
        let error = journal.read_positions(&[2]).await.expect_err(change).to_string();
        assert!(error.contains("event 2") && error.contains("its MAC is wrong"), "{error}");
        assert_eq!(journal.read_positions(&[1, 3]).await.expect("the others").len(), 2);
        // It does not block what comes before it, and no reader passes it unawares.
        assert_eq!(journal.read_all(0, 9).await.expect("those before").len(), 1);
        assert!(journal.read_all(1, 9).await.is_err());
    }
}

#[tokio::test]
async fn format_1_is_upgraded() {
    let directory = TempDir::new().expect("makes a directory");
    let path = directory.path().join("journal.db");
    let journal = open(&directory).await;
    journal.append(append(&stream("a"), 0, 3)).await.expect("appends");
    journal.close().await;
    let mut connection = plain_connection(&path).await;
    sqlx::raw_sql(
        "ALTER TABLE events DROP COLUMN mac; ALTER TABLE idempotency DROP COLUMN mac; DROP TABLE effects;
         PRAGMA user_version = 1",
    )
    .execute(&mut connection)
    .await
    .expect("goes back");
    connection.close().await.expect("closes");
    let old = contract::macs_before_upgrade();
    let lock = JournalLock::take(&path).expect("takes");
    assert_eq!(
        SqliteJournal::look(&lock, &old).await.expect("looks").read_all(0, 9).await.map(|all| all.len()),
        Ok(3)
    );
    drop(lock);
    // If the key store says that events carry MACs, the format must have been set back.
    let refusal = refused(&directory).await;
    assert!(matches!(refusal, OpenError::WithoutMacs { found: 1, .. }), "{refusal}");
    SqliteJournal::open(&path, &old).await.expect("opens").close().await;
    let journal = open(&directory).await;
    journal.append(append(&stream("a"), 3, 1)).await.expect("appends");
    assert_eq!(journal.read_all(0, 10).await.expect("reads").len(), 4);
    journal.close().await;
    assert_eq!(fs::read(&path).expect("reads")[60..64], 4_u32.to_be_bytes());
}

/// Two processes start in an empty folder: the second one looked for a lock before the first one had made it.
#[tokio::test]
async fn a_journal_that_another_process_has_made_since_is_left_alone() {
    let directory = TempDir::new().expect("makes a directory");
    let early = JournalLock::take(&directory.path().join("journal.db")).expect("there is nothing to take");
    let journal = open(&directory).await;
    let refusal = early.head().await.expect_err("it is in use");
    assert!(matches!(refusal, OpenError::InUse(_)), "{refusal}");
    let refusal = SqliteJournal::look(&early, &contract::macs()).await.err().expect("it is in use");
    assert!(matches!(refusal, OpenError::InUse(_)), "{refusal}");
    journal.append(append(&stream("a"), 0, 1)).await.expect("its files are all there");
    let refusal = SqliteJournal::open_locked(early, &contract::macs()).await.err().expect("it is in use");
    assert!(matches!(refusal, OpenError::InUse(_)), "{refusal}");
    journal.close().await;
}

/// The file's header has the old format for as long as the new one is only in the log beside it.
#[tokio::test]
async fn an_upgrade_whose_process_was_killed_is_found_in_the_log() {
    let (directory, left) =
        (TempDir::new().expect("makes a directory"), TempDir::new().expect("makes a directory"));
    let path = directory.path().join("journal.db");
    let journal = open(&directory).await;
    journal.append(append(&stream("a"), 0, 3)).await.expect("appends");
    journal.close().await;
    let mut connection = plain_connection(&path).await;
    let back = "ALTER TABLE events RENAME COLUMN mac TO checksum; ALTER TABLE idempotency DROP COLUMN mac;
        PRAGMA user_version = 3";
    sqlx::raw_sql(back).execute(&mut connection).await.expect("goes back");
    connection.close().await.expect("closes");
    let journal = SqliteJournal::open(&path, &contract::macs_before_upgrade()).await.expect("is upgraded");
    for (name, bytes) in contents(&directory) {
        fs::write(left.path().join(name), bytes).expect("writes");
    }
    drop(journal);
    let header = fs::read(left.path().join("journal.db")).expect("reads");
    assert_eq!(header[60..64], 3_u32.to_be_bytes());
    // Whether the mark was set before or not.
    for macs in [contract::macs(), contract::macs_before_upgrade()] {
        let copy = TempDir::new().expect("makes a directory");
        for (name, bytes) in contents(&left) {
            fs::write(copy.path().join(name), bytes).expect("writes");
        }
        let journal = SqliteJournal::open(&copy.path().join("journal.db"), &macs).await.expect("opens");
        assert_eq!(journal.read_all(0, 9).await.expect("reads").len(), 3);
    }
}

#[tokio::test]
async fn refuses_what_is_not_a_journal() {
    let directory = TempDir::new().expect("makes a directory");
    let path = directory.path().join("journal.db");
    fs::write(&path, b"hello").expect("writes");
    assert!(matches!(refused(&directory).await, OpenError::Foreign { .. }));
    fs::write(&path, b"").expect("writes");
    assert!(matches!(refused(&directory).await, OpenError::Damaged { .. }));
    fs::remove_file(&path).expect("removes");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut other = options.connect().await.expect("connects");
    sqlx::raw_sql("CREATE TABLE t (x)").execute(&mut other).await.expect("makes a table");
    other.close().await.expect("closes");
    let refusal = refused(&directory).await;
    assert!(matches!(refusal, OpenError::Foreign { .. }), "{refusal}");
}

#[tokio::test]
async fn refuses_newer_and_cut_off_files() {
    let directory = TempDir::new().expect("makes a directory");
    let path = directory.path().join("journal.db");
    let journal = open(&directory).await;
    for number in 0..20 {
        journal.append(append(&stream(&format!("s{number}")), 0, 20)).await.expect("appends");
    }
    journal.close().await;
    let whole = fs::read(&path).expect("reads");

    fs::write(&path, &whole[..whole.len() - 8192]).expect("writes");
    assert!(matches!(refused(&directory).await, OpenError::Damaged { .. }));

    let mut newer = whole.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&path, &newer).expect("writes");
    let refusal = refused(&directory).await;
    assert!(matches!(refusal, OpenError::Newer { found: 99, known: 4, .. }), "{refusal}");

    fs::write(&path, &whole).expect("writes");
    assert_eq!(open(&directory).await.head().await, Ok(400));
}

/// If the disk is full, or another process holds the file, nothing is written, and later writes work again.
#[tokio::test]
async fn goes_on_after_a_failed_write() {
    let directory = TempDir::new().expect("makes a directory");
    let path = directory.path().join("journal.db");
    let journal = open(&directory).await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    let mut other = plain_connection(&path).await;
    sqlx::raw_sql("ALTER TABLE idempotency RENAME TO away").execute(&mut other).await.expect("renames");
    let once = Some(Idempotency { key: [1; 32], fingerprint: [1; 32] });
    let sent = Append { idempotency: once, ..append(&stream("a"), 1, 1) };
    let refusal = journal.append(sent.clone()).await.expect_err("cannot write");
    assert!(matches!(refusal, AppendError::Unavailable(_)), "{refusal}");
    assert_eq!(journal.head().await, Ok(1));
    sqlx::raw_sql("ALTER TABLE away RENAME TO idempotency").execute(&mut other).await.expect("renames");
    assert_eq!(journal.append(sent).await.expect("appends").first, 2);
}

/// The commit itself fails, here by a constraint that `SQLite` checks only then.
#[tokio::test]
async fn goes_on_after_a_failed_commit() {
    let directory = TempDir::new().expect("makes a directory");
    let path = directory.path().join("journal.db");
    let journal = open(&directory).await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    let mut other = plain_connection(&path).await;
    let trap = "CREATE TABLE one (id INTEGER PRIMARY KEY);
        CREATE TABLE two (id REFERENCES one (id) DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER trap AFTER INSERT ON events BEGIN INSERT INTO two VALUES (1); END;";
    sqlx::raw_sql(trap).execute(&mut other).await.expect("sets the trap");
    let refusal = journal.append(append(&stream("a"), 1, 1)).await.expect_err("cannot commit");
    assert!(matches!(refusal, AppendError::Unavailable(_)), "{refusal}");
    assert_eq!(journal.read_all(0, 9).await.expect("reads").len(), 1);
    sqlx::raw_sql("DROP TRIGGER trap").execute(&mut other).await.expect("takes the trap away");
    assert_eq!(journal.append(append(&stream("a"), 1, 1)).await.expect("appends").first, 2);
    assert_eq!(*journal.watch_head().borrow(), 2);
}
