//! Whether a store can be written: what its last write and its files say.
//!
//! Readiness must not find out from a user's request that the disk is full. So the outcome of each write is kept, and a
//! small write of the store's own stands in for it if there was none for a while ([`LastWrite::recent`]).
//!
//! A process goes on with a file that somebody deleted or replaced, and what it writes there is gone when it ends. So
//! the file is recognized ([`Files`]): after each commit, before anything is acknowledged, and on a timer.

use std::fmt;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::durable;
use crate::journal::{AppendError, Appended, StoreError};
use crate::sqlite::file::with_suffix;

/// For how long a write that succeeded says that the next one will.
const TRUSTED: Duration = Duration::from_secs(2);
/// For how long one that failed says so of the next.
const DISTRUSTED: Duration = Duration::from_secs(1);

/// What a small write adds to a store that was writable, in bytes.
const SMALL: usize = 16;
/// After a failure it adds as much as the appends that failed may need: a full disk often has room for a page.
const LARGE: usize = 64 * 1024;
const LARGEST: usize = 1024 * 1024;

/// Why a store cannot be used for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The disk, or the owner's share of it, is full.
    Full,
    /// The file, its file system or the database accepts no writes.
    ReadOnly,
    /// The file at its path is not the one that was opened: somebody deleted or replaced it.
    Missing,
    /// Another process has a lock on the file.
    Locked,
    /// The database does not take this value, which says nothing about others.
    Refused,
    /// Anything else.
    Other,
}

impl Cause {
    /// Its name in `/readyz` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Missing => "missing",
            Self::Locked => "locked",
            Self::Refused => "refused",
            Self::Other => "failing",
        }
    }
}

/// Why a store cannot be used for now, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// For programs.
    pub cause: Cause,
    /// For the log.
    pub text: String,
}

impl Why {
    /// What an error of a database means.
    pub fn of(error: &sqlx::Error) -> Self {
        Self { cause: cause(error), text: error.to_string() }
    }

    fn missing(path: &Path) -> Self {
        let path = path.display();
        let text = format!(
            "{path} was deleted or replaced while it was open. Nothing is written until it is back in its place; see \
             \u{ab}When a store's file is gone\u{bb} in deploy/README.md before stopping the service"
        );
        Self { cause: Cause::Missing, text }
    }
}

impl<T: Into<String>> From<T> for Why {
    fn from(text: T) -> Self {
        Self { cause: Cause::Other, text: text.into() }
    }
}

impl From<Why> for StoreError {
    fn from(why: Why) -> Self {
        Self::Unavailable(why)
    }
}

impl Deref for Why {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn cause(error: &sqlx::Error) -> Cause {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    // SQLSTATE has five characters, an extended code of SQLite at most four.
    match (&*code, code.parse::<u32>().map(|code| code & 0xff)) {
        ("53100", _) => Cause::Full,
        ("25006", _) => Cause::ReadOnly,
        ("55P03", _) => Cause::Locked,
        (code, _) if code.len() == 5 && (code.starts_with("22") || code.starts_with("23")) => Cause::Refused,
        (code, Ok(primary)) if code.len() < 5 => match primary {
            5 | 6 => Cause::Locked,
            8 => Cause::ReadOnly,
            13 => Cause::Full,
            19 => Cause::Refused,
            _ => Cause::Other,
        },
        _ => Cause::Other,
    }
}

/// The outcome of the last write.
#[derive(Debug, Default)]
pub struct LastWrite(Mutex<Option<Written>>);

#[derive(Clone, Debug)]
struct Written {
    at: Instant,
    outcome: Result<(), Why>,
    /// How many bytes a small write adds to find out.
    size: usize,
}

impl LastWrite {
    /// An append, or another write of at least the size of [`LastWrite::size`], succeeded.
    pub fn succeeded(&self) {
        self.set(Ok(()), SMALL);
    }

    /// A write of less succeeded, which says nothing after a larger one failed.
    pub fn succeeded_with_little(&self) {
        let mut last = self.lock();
        if let Some(written) = last.as_mut().filter(|written| written.outcome.is_ok()) {
            written.at = Instant::now();
        }
    }

    /// This many writes failed together.
    pub fn failed(&self, why: &Why, together: usize) {
        if why.cause == Cause::Refused {
            return;
        }
        let size = LARGE.saturating_mul(together.max(1)).min(LARGEST);
        let before = self.lock().as_ref().map_or(0, |written| written.size);
        self.set(Err(why.clone()), size.max(before));
    }

    /// Keeps the outcome of an append. What was refused, or written before, says nothing.
    pub(crate) fn noted(&self, outcome: Result<Appended, AppendError>) -> Result<Appended, AppendError> {
        match &outcome {
            Ok(Appended { replayed: false, .. }) => self.succeeded(),
            Err(AppendError::Unavailable(why)) => self.failed(why, 1),
            Err(AppendError::Unknown(text)) => self.failed(&text.as_str().into(), 1),
            Ok(_) | Err(_) => {}
        }
        outcome
    }

    /// The outcome, if it is recent enough to say what the next write will meet.
    pub fn recent(&self) -> Option<Result<(), Why>> {
        let last = self.lock().clone()?;
        let trust = if last.outcome.is_ok() { TRUSTED } else { DISTRUSTED };
        (last.at.elapsed() < trust).then_some(last.outcome)
    }

    /// The outcome, however old it is; a store that was only opened counts as writable.
    pub fn outcome(&self) -> Result<(), Why> {
        self.lock().as_ref().map_or(Ok(()), |written| written.outcome.clone())
    }

    /// How many bytes a small write adds.
    pub fn size(&self) -> usize {
        self.lock().as_ref().map_or(SMALL, |written| written.size)
    }

    fn set(&self, outcome: Result<(), Why>, size: usize) {
        *self.lock() = Some(Written { at: Instant::now(), outcome, size });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Written>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What recognizes a file, however it is called.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    // Never by opening it: closing any handle of a file drops the locks that SQLite has on it in this process (POSIX,
    // fcntl). Asking for its metadata does not.
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Elsewhere an open file can be neither deleted nor replaced.
#[cfg(not(unix))]
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|_| (0, 0))
}

/// The files of a SQLite store, as they were opened.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    opened: Vec<(PathBuf, (u64, u64))>,
    gone: AtomicBool,
    released: AtomicBool,
}

impl Files {
    /// Those of an open store: the database, and the log beside it, in which its newest commits are.
    pub fn of(path: &Path) -> Self {
        let both = [path.to_owned(), with_suffix(path, "-wal")];
        let opened = both.into_iter().filter_map(|path| identity(&path).map(|identity| (path, identity)));
        Self::recognized(path, opened.collect())
    }

    /// Those of a store that this process does not write.
    pub fn unwatched(path: &Path) -> Self {
        Self::recognized(path, Vec::new())
    }

    fn recognized(path: &Path, opened: Vec<(PathBuf, (u64, u64))>) -> Self {
        let (gone, released) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { path: path.to_owned(), opened, gone, released }
    }

    /// The store is about to be closed, which removes the log.
    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    /// The database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks whether they are still the files at their paths. Logs a change.
    pub fn check(&self) -> Result<(), Why> {
        if self.released.load(Ordering::SeqCst) {
            return Ok(());
        }
        let gone = self.opened.iter().find(|(path, opened)| identity(path) != Some(*opened));
        let was_gone = self.gone.swap(gone.is_some(), Ordering::SeqCst);
        if let Some((path, _)) = gone {
            let why = Why::missing(path);
            if !was_gone {
                tracing::error!("{why}");
            }
            return Err(why);
        }
        if was_gone {
            tracing::info!("{} is back in its place", self.path.display());
        }
        Ok(())
    }

    /// As the last [`Files::check`] found them. Costs nothing.
    pub fn known(&self) -> Result<(), Why> {
        if self.gone.load(Ordering::SeqCst) { self.check() } else { Ok(()) }
    }

    /// Whether only the log beside the database is gone: the database can still take over what is in it.
    pub fn only_lacks_log(&self) -> bool {
        match self.opened.split_first() {
            Some(((path, opened), log)) => {
                identity(path) == Some(*opened)
                    && log.iter().any(|(path, opened)| identity(path) != Some(*opened))
            }
            None => false,
        }
    }

    /// What an error means, asking the file system where the error does not say it: `SQLite` tells a full disk from
    /// other failures, but neither an exceeded quota nor a file system that has become read-only.
    pub fn why(&self, error: &sqlx::Error) -> Why {
        if let Err(missing) = self.known() {
            return missing;
        }
        let why = Why::of(error);
        if why.cause != Cause::Other || error.as_database_error().is_none() {
            return why;
        }
        let cause = match durable::try_to_write(durable::folder_of(&self.path), LARGE) {
            Ok(()) => return why,
            Err(error) => match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Cause::Full,
                std::io::ErrorKind::ReadOnlyFilesystem => Cause::ReadOnly,
                _ => return why,
            },
        };
        Why { cause, ..why }
    }
}

/// A store in files: what its last write and its files say.
#[derive(Debug)]
pub struct Storage {
    /// The outcome of its last write.
    pub last: LastWrite,
    /// Its files.
    pub files: Files,
}

impl Storage {
    /// An open store.
    pub fn new(files: Files) -> Self {
        Self { last: LastWrite::default(), files }
    }

    /// Whether a write would be taken, as far as it is known without one; `None` if a small write is to find out.
    pub fn known(&self) -> Option<Result<(), Why>> {
        match self.files.check() {
            Ok(()) => self.last.recent(),
            gone => Some(gone),
        }
    }

    /// Keeps the outcome of a small write that was made to find out.
    pub fn probed(&self, outcome: Result<(), sqlx::Error>) -> Result<(), Why> {
        let outcome = outcome.map_err(|error| self.files.why(&error));
        match &outcome {
            Ok(()) => self.last.succeeded(),
            Err(why) => self.last.failed(why, 1),
        }
        outcome
    }

    /// Keeps the outcome of another small write.
    pub(crate) fn noted<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        match &outcome {
            Ok(_) => self.last.succeeded_with_little(),
            Err(StoreError::Unavailable(why)) => self.last.failed(why, 1),
            Err(_) => {}
        }
        outcome
    }
}

/// Bytes that may still be written to the file system of a folder; `None` if it does not say.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        // Of a folder that is yet to be made, its parent's.
        let there = folder.ancestors().find(|path| path.exists())?;
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        let found = rustix::fs::statvfs(there).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_as_large_as_the_one_that_failed_heals() {
        let last = LastWrite::default();
        assert_eq!((last.outcome(), last.recent(), last.size()), (Ok(()), None, SMALL));
        last.succeeded();
        assert_eq!(last.recent(), Some(Ok(())));
        let full = Why { cause: Cause::Full, text: "full".to_owned() };
        last.failed(&full, 3);
        last.succeeded_with_little();
        assert_eq!((last.outcome(), last.size()), (Err(full.clone()), 3 * LARGE));
        // A smaller failure does not make the next try smaller.
        last.failed(&full, 1);
        assert_eq!(last.size(), 3 * LARGE);
        last.failed(&full, 1000);
        assert_eq!(last.size(), LARGEST);
        last.succeeded();
        assert_eq!((last.outcome(), last.size()), (Ok(()), SMALL));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_recognized_until_it_is_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, aside) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let log = with_suffix(&path, "-wal");
        fs::write(&path, "x").expect("written");
        fs::write(&log, "x").expect("written");
        let files = Files::of(&path);
        assert!(files.check().is_ok() && !files.only_lacks_log());
        fs::write(&path, "other content").expect("written");
        assert!(files.check().is_ok());
        fs::rename(&path, &aside).expect("moved");
        assert_eq!(files.check().expect_err("it is gone").cause, Cause::Missing);
        fs::write(&path, "x").expect("another file");
        assert!(files.check().is_err() && files.known().is_err() && !files.only_lacks_log());
        fs::rename(&aside, &path).expect("moved back");
        assert!(files.known().is_ok() && files.check().is_ok());
        fs::remove_file(&log).expect("removed");
        assert!(files.check().is_err() && files.only_lacks_log());
        assert!(Files::unwatched(&path).check().is_ok());
    }
}
