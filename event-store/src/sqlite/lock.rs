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
}

impl JournalLock {
    /// Takes the lock on the file `<path>.lock`, and changes nothing. Refused while another process has it.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { path: path.to_owned(), file: file::lock_existing(path)? })
    }

    /// The position of the newest event of the journal, without checking whether this instance wrote it; `None` if
    /// there is no journal. Refuses what [`SqliteJournal::open`](super::SqliteJournal::open) refuses, and changes nothing.
    pub async fn head(&self) -> Result<Option<u64>, OpenError> {
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
        Ok(self)
    }
}
