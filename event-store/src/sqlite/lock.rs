//! The lock on a journal file, and what may be done with it before the journal is opened.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::tables::KIND;
use super::{check_contents, file};
use crate::journal::OpenError;

/// The right to have a journal open, which one process has at a time. The operating system releases it when the process
/// ends, however it ends.
pub struct JournalLock {
    pub(super) path: PathBuf,
    // `None` if the journal was never opened for writing at this path: then no process has it open.
    pub(super) file: Option<File>,
    /// On the journal itself, if there is one: the file beside it can be deleted, and made anew by another process.
    pub(super) database: Option<File>,
}

/// The locks of an open journal.
///
/// Both are those of `flock(2)`, which belong to the open file and not to the process. The locks of `SQLite` on the same
/// file are of `fcntl(2)`. The two kinds do not see each other, but closing any handle of a file drops all locks of the
/// second kind that the process has on it. So the handle of the journal stays open until its connections are closed,
/// and nothing else opens the file meanwhile. On network file systems `flock` is made of the other kind and would lock
/// `SQLite` out of its own file: there only the file beside it is locked.
pub(crate) struct Locks {
    _beside: File,
    _database: Option<File>,
}

impl Locks {
    /// Those of a file that can be made again: one on the file beside it.
    #[cfg(feature = "kurrentdb")]
    pub(crate) fn beside(beside: File) -> Self {
        Self { _beside: beside, _database: None }
    }
}

impl JournalLock {
    /// Takes the lock on the file `<path>.lock`, and changes nothing. Refused while another process has it.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let file = file::lock_existing(path)?;
        Ok(Self { path: path.to_owned(), file, database: lock_database(path)? })
    }

    /// The locks that could not be taken earlier, as there was no file yet: another process may have made the journal
    /// since, and looking at it would remove an empty log beside it.
    pub(super) fn missing(&self) -> Result<(Option<File>, Option<File>), OpenError> {
        let file = if self.file.is_none() { file::lock_existing(&self.path)? } else { None };
        let database = if self.database.is_none() { lock_database(&self.path)? } else { None };
        Ok((file, database))
    }

    /// All locks of a journal that exists.
    pub(super) fn complete(self) -> Result<Locks, OpenError> {
        let beside = self.file.map_or_else(|| file::lock(&self.path), Ok)?;
        let database = self.database.map_or_else(|| lock_database(&self.path), |file| Ok(Some(file)))?;
        Ok(Locks { _beside: beside, _database: database })
    }

    /// The position of the newest event of the journal, without checking whether this instance wrote it; `None` if
    /// there is no journal. Refuses what [`SqliteJournal::open`](super::SqliteJournal::open) refuses, and changes nothing.
    pub async fn head(&self) -> Result<Option<u64>, OpenError> {
        let _missing = self.missing()?;
        if file::check(&self.path, &KIND)?.is_none() {
            return Ok(None);
        }
        let readers = file::look(&self.path).await?;
        let head = check_contents(&self.path, &readers).await;
        readers.close().await;
        head.map(Some)
    }

    /// Creates an empty journal if there is none.
    pub async fn make(mut self) -> Result<Self, OpenError> {
        if self.file.is_none() {
            self.file = Some(file::lock(&self.path)?);
        }
        if file::check(&self.path, &KIND)?.is_none() {
            file::create(&self.path, &KIND, "").await?;
        }
        if self.database.is_none() {
            self.database = lock_database(&self.path)?;
        }
        Ok(self)
    }
}

/// Locks the journal itself; `None` if there is none, or where that would lock `SQLite` out.
fn lock_database(path: &Path) -> Result<Option<File>, OpenError> {
    match File::open(path) {
        Ok(database) if is_on_a_network(&database) => Ok(None),
        Ok(database) => file::hold(path, database).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file::failed(path, &error)),
    }
}

/// Whether a file is on another machine: NFS, SMB, or a file system that a program provides, which may be anything.
fn is_on_a_network(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        // From statfs(2).
        const NETWORKS: [u32; 6] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997];
        rustix::fs::fstatfs(file).is_ok_and(|found| {
            u32::try_from(found.f_type & 0xffff_ffff).is_ok_and(|kind| NETWORKS.contains(&kind))
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        cfg!(windows)
    }
}
