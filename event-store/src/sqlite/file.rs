//! Opening a `SQLite` file only if it is ours, whole, and of a known format; and looking at one without a trace.

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};

use super::private;
use crate::journal::OpenError;

/// What a file of ours is. The two numbers are in its header (`SQLite` file format, section 1.3).
pub(crate) struct Kind {
    /// What people call it.
    pub(crate) what: &'static str,
    /// `PRAGMA application_id`.
    pub(crate) application_id: u32,
    /// `PRAGMA user_version`.
    pub(crate) format: u32,
    /// The tables of a new one.
    pub(crate) schema: &'static str,
    /// What brings a file to the next format: the first statement is for format 1.
    pub(crate) upgrades: &'static [&'static str],
}

/// Without locks, which a file that is only looked at needs none of.
const VFS_WITHOUT_LOCKS: &str = if cfg!(windows) { "win32-none" } else { "unix-none" };

/// What each connection adds to the pages that are kept in memory. `SQLite` is built so that the connections of a process
/// share theirs: the sum is the bound, and whichever file needs them has them. What is not among them is read from the
/// system's cache, which costs a call.
const PAGES: &str = "-1024";

/// How every connection opens a file: what is committed is on the disk.
pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        // What a statement needs for a while is nobody's business outside this folder.
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", PAGES)
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

/// How to look at a file and change nothing, neither in it nor beside it, in whatever state its last writer left it.
/// Only while nobody writes it.
///
/// Without a log beside it, the file is all there is. With one (its writer was killed), the log is read as well; its
/// index, for which `SQLite` would write a third file, is kept in memory, as locks in memory go with an exclusive
/// lock. A file opened for reading cannot be locked that way, so this takes none.
pub fn looking(path: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        // There may be no place for temporary files.
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
    let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
    pool.connect_with(looking(path)).await.map_err(|error| damaged_or_failed(path, &error))
}

/// What `SQLite` finds wrong with a file when it reads all of it; nothing if all is well. Changes nothing, as
/// [`looking`] does, and takes as long as reading the file does.
pub async fn integrity_faults(path: &Path) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = looking(path).connect().await?;
    let lines: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check(10)").fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// Locks `<path>.lock` for as long as the answer lives. The system gives a lock back when a process ends,
/// however it ends.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let beside = with_suffix(path, ".lock");
    let mut options = File::options();
    let file = private::owners_only(options.create(true).truncate(false).write(true)).open(&beside);
    let file = file.map_err(|error| failed(&beside, &error))?;
    private::adopt(&file, &beside);
    hold(path, file)
}

/// As [`lock`], but makes no file: where there is none, nobody has it locked.
pub(crate) fn lock_existing(path: &Path) -> Result<Option<File>, OpenError> {
    let beside = with_suffix(path, ".lock");
    match File::options().write(true).open(&beside) {
        Ok(file) => hold(path, file).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&beside, &error)),
    }
}

fn hold(path: &Path, file: File) -> Result<File, OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.display().to_string())),
        Err(TryLockError::Error(error)) => Err(failed(&with_suffix(path, ".lock"), &error)),
    }
}

/// The format of the file, if it is ours and whole; nothing where there is none.
pub(crate) fn check(path: &Path, kind: &Kind) -> Result<Option<u32>, OpenError> {
    match File::open(path) {
        Ok(file) => check_header(path, file, kind).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

/// The format of a file that was looked at and found whole, as it is in the log beside it, if there is one: an upgrade whose
/// process was killed is there only, and not in the header that [`check`] reads.
pub(crate) async fn format(path: &Path, kind: &Kind, looking: &SqlitePool) -> Result<u32, OpenError> {
    let format: Result<u32, _> = sqlx::query_scalar("PRAGMA user_version").fetch_one(looking).await;
    let found = format.map_err(|error| damaged_or_failed(path, &error))?;
    if found > kind.format {
        return Err(OpenError::Newer { path: path.display().to_string(), found, known: kind.format });
    }
    Ok(found)
}

/// Opens a file that was checked for writing, for its owner only from now on, and brings it to the present format.
pub(crate) async fn open(
    path: &Path,
    options: &SqliteConnectOptions,
    kind: &Kind,
) -> Result<SqliteConnection, OpenError> {
    private::narrow(path);
    let opened = async {
        let mut connection = options.connect().await?;
        // Not what its header says: after a kill the present format may be in the log only.
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

/// What an error of `SQLite`'s means at opening.
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
        return Err(foreign("it is no SQLite file".to_owned()));
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
    // With a log beside it, the missing pages may be in there.
    if size_is_valid && !has_log(path) && length < page_size * u64::from(word(28)) {
        return Err(damaged("it is shorter than it was: its end is missing"));
    }
    Ok(word(60))
}

fn has_log(path: &Path) -> bool {
    fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Makes it, with these statements after its schema. It gets another name first: a half-made file never stands in
/// its place.
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
    // The new name must be on the disk before anything in the file counts.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| failed(directory, &error))
}

/// Removes a file and what is beside it, of a store that can be made anew.
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

/// Bytes for a statement, as `x'…'` or for `unhex`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn failed(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Failed { path: path.display().to_string(), reason: error.to_string() }
}
