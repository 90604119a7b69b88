//! Opens a `SQLite` file only if it is ours, intact and of a known format; and reads one without leaving a trace.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePool, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};

use super::private;
use crate::durable;
use crate::journal::OpenError;
use crate::pools;

/// A kind of file of ours. The two numbers are in its header (`SQLite` file format, section 1.3).
pub(crate) struct Kind {
    /// Its name for people.
    pub(crate) what: &'static str,
    /// `PRAGMA application_id`.
    pub(crate) application_id: u32,
    /// `PRAGMA user_version`.
    pub(crate) format: u32,
    /// The tables of a new file.
    pub(crate) schema: &'static str,
    /// The upgrades to the next format: the first statement is for format 1.
    pub(crate) upgrades: &'static [&'static str],
}

/// Without locks: a file that is only read needs none.
const VFS_WITHOUT_LOCKS: &str = if cfg!(windows) { "win32-none" } else { "unix-none" };

/// What each connection adds to the page cache. `SQLite` is built so that the connections of a process share theirs:
/// the sum is the limit, and any file can use it. Other pages are read from the system's cache, at the cost of a call.
const PAGES: &str = "-1024";

/// How long a statement waits for another process that has a lock on the file. A request may come right after others
/// have begun to wait, and may write to two files, and should know within five seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How every connection opens a file: commits are synced to disk.
pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(LONGEST_WAIT)
        // Temporary data must not leave this folder.
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", PAGES)
        .pragma("trusted_schema", "OFF")
        // What is deleted from a page is overwritten in it, which costs nothing as the page is written anyway.
        .pragma("secure_delete", "FAST")
        .disable_statement_logging()
}

/// How to read a file and change nothing, neither in it nor beside it, in whatever state its last writer left it. No
/// process may write it meanwhile.
///
/// Without a log beside it, the file is complete. With one (its writer was killed), the log is read too. `SQLite` would
/// write the log's index to a third file, but keeps it in memory if the lock is exclusive. A file opened for reading
/// cannot be locked that way, so this takes no lock.
pub fn looking(path: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        // There may be no room for temporary files.
        .pragma("temp_store", "MEMORY")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging();
    if has_log(path) {
        options.vfs(VFS_WITHOUT_LOCKS).locking_mode(SqliteLockingMode::Exclusive)
    } else {
        options.immutable(true)
    }
}

/// Connections for [`looking`].
pub(crate) async fn look(path: &Path) -> Result<SqlitePool, OpenError> {
    let pool = pools::sqlite().max_connections(1);
    pool.connect_with(looking(path)).await.map_err(|error| damaged_or_failed(path, &error))
}

/// What `SQLite` finds wrong with a file when it reads all of it; empty if nothing. Changes nothing, like [`looking`],
/// and takes as long as reading the file.
pub async fn integrity_faults(path: &Path) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = looking(path).connect().await?;
    let lines: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check(10)").fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// Locks `<path>.lock` until the returned file is dropped. The operating system releases the lock when the process
/// ends, however it ends.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let beside = with_suffix(path, ".lock");
    let mut options = File::options();
    let file = private::owners_only(options.create(true).truncate(false).write(true)).open(&beside);
    let file = file.map_err(|error| failed(&beside, &error))?;
    private::adopt(&file, &beside);
    hold(path, file)
}

/// As [`lock`], but creates no file: if there is none, no process has the lock.
pub(crate) fn lock_existing(path: &Path) -> Result<Option<File>, OpenError> {
    let beside = with_suffix(path, ".lock");
    match File::options().write(true).open(&beside) {
        Ok(file) => hold(path, file).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&beside, &error)),
    }
}

pub(super) fn hold(path: &Path, file: File) -> Result<File, OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.display().to_string())),
        Err(TryLockError::Error(error)) => Err(failed(&with_suffix(path, ".lock"), &error)),
    }
}

/// The format of the file, if it is ours and intact; `None` if there is none.
pub(crate) fn check(path: &Path, kind: &Kind) -> Result<Option<u32>, OpenError> {
    match File::open(path) {
        Ok(file) => check_header(path, file, kind).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

/// The format of a checked file according to the log beside it, if there is one: an upgrade whose process was killed is
/// only in the log, and not in the header that [`check`] reads.
pub(crate) async fn format(path: &Path, kind: &Kind, looking: &SqlitePool) -> Result<u32, OpenError> {
    let format: Result<u32, _> = sqlx::query_scalar("PRAGMA user_version").fetch_one(looking).await;
    let found = format.map_err(|error| damaged_or_failed(path, &error))?;
    if found > kind.format {
        return Err(OpenError::Newer { path: path.display().to_string(), found, known: kind.format });
    }
    Ok(found)
}

/// Opens a checked file for writing, restricts it to its owner, and upgrades it to the current format.
pub(crate) async fn open(
    path: &Path,
    options: &SqliteConnectOptions,
    kind: &Kind,
) -> Result<SqliteConnection, OpenError> {
    private::narrow(path);
    let opened = async {
        let mut connection = options.connect().await?;
        // Not from the header: after a kill the current format may be only in the log.
        let format: u32 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await?;
        for (format, upgrade) in (1..).zip(kind.upgrades).skip_while(|(from, _)| *from < format) {
            let statements =
                format!("BEGIN IMMEDIATE; {upgrade}; PRAGMA user_version = {}; COMMIT;", format + 1);
            // All of it is written in this program.
            sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await?;
        }
        Ok(connection)
    };
    opened.await.map_err(|error| damaged_or_failed(path, &error))
}

/// What a `SQLite` error means when opening a file.
pub(crate) fn damaged_or_failed(path: &Path, error: &sqlx::Error) -> OpenError {
    let text = error.to_string();
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    let path_text = path.display().to_string();
    // SQLITE_ERROR (a table is missing), SQLITE_CORRUPT and SQLITE_NOTADB, the latter two with extended codes.
    let is_damage = code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 1 | 11 | 26));
    if is_damage {
        OpenError::Damaged { path: path_text, what: text }
    } else {
        OpenError::Failed { path: path_text, reason: text }
    }
}

/// Reads the header only, without `SQLite`, which would leave files beside one that is not ours.
fn check_header(path: &Path, mut file: File, kind: &Kind) -> Result<u32, OpenError> {
    let text = || path.display().to_string();
    let damaged = |what: &str| OpenError::Damaged { path: text(), what: what.to_owned() };
    let foreign = |found: String| OpenError::Foreign { path: text(), expected: kind.what, found };
    let length = file.metadata().map_err(|error| failed(path, &error))?.len();
    if length == 0 {
        return Err(damaged("it is empty"));
    }
    let mut header = [0; 100];
    if length < 100 || file.read_exact(&mut header).is_err() || &header[..16] != b"SQLite format 3\0" {
        return Err(foreign("it is not a SQLite file".to_owned()));
    }
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if word(68) != kind.application_id {
        return Err(foreign(format!("it is a SQLite file of another kind (application id {:#x})", word(68))));
    }
    if word(60) > kind.format {
        return Err(OpenError::Newer { path: text(), found: word(60), known: kind.format });
    }
    if word(60) == 0 {
        return Err(damaged("it has no format number"));
    }
    let page_size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let size_is_valid = word(24) == word(92);
    // If there is a log beside it, the missing pages may be in the log.
    if size_is_valid && !has_log(path) && length < page_size * u64::from(word(28)) {
        return Err(damaged("it is too short: its end is missing"));
    }
    Ok(word(60))
}

fn has_log(path: &Path) -> bool {
    fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Creates the file, with these statements after its schema. It has another name at first, so that a half-made file is
/// never in its place.
pub(crate) async fn create(path: &Path, kind: &Kind, first: &str) -> Result<(), OpenError> {
    let unfinished = with_suffix(path, ".new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(&unfinished, &error));
        }
        _ => {}
    }
    private::make(&unfinished).map_err(|error| failed(&unfinished, &error))?;
    let options =
        options(&unfinished).create_if_missing(true).journal_mode(SqliteJournalMode::Delete).page_size(4096);
    let statements = format!(
        "PRAGMA application_id = {}; PRAGMA user_version = {}; BEGIN; {} {first} COMMIT;",
        kind.application_id, kind.format, kind.schema
    );
    let made = async {
        let mut connection = options.connect().await?;
        // All of it is written in this program.
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await?;
        connection.close().await
    };
    made.await.map_err(|error| damaged_or_failed(path, &error))?;
    fs::rename(&unfinished, path).map_err(|error| failed(path, &error))?;
    // The new name must be on disk before anything in the file counts.
    durable::sync_folder_of(path).map_err(|error| failed(path, &error))
}

/// Removes a file of a store that can be rebuilt, and the files beside it.
#[cfg(feature = "kurrentdb")]
pub(crate) fn remove(path: &Path) -> Result<(), OpenError> {
    for suffix in ["-wal", "-shm", ""] {
        let path = with_suffix(path, suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&path, &error)),
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn failed(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Failed { path: path.display().to_string(), reason: error.to_string() }
}
