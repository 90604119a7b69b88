//! The journal in one `SQLite` file: WAL, a full sync at each commit, one writer.
//!
//! All appends go through one task, which commits the queued ones in one transaction. So all appends that wait for a
//! commit share its cost (one sync), without a timer that would delay a lone append.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::{StreamId, Timestamp};
use futures::FutureExt;
use schemas::envelope::RecordedEvent;
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tasks::Weight;
use tokio::sync::{mpsc, watch};

use crate::journal::{
    Append, AppendError, Appended, Claim, Cursor, Journal, OpenError, Snapshot, StoreError,
    StoredIdempotency, before_damage,
};
use crate::mac::Macs;
use crate::measure;
use crate::pools;
use crate::requests;
use crate::storage::{Files, Storage, Why};
use rows::{columns, stored};
use tables::{FORMAT_WITH_MACS, KIND};
use writer::{Request, Writer};

pub mod file;
pub(crate) mod group;
mod lock;
pub mod private;
pub(crate) mod probe;
mod rows;
pub(crate) mod tables;
mod tail;
mod upgrade;
mod writer;

pub use lock::JournalLock;
pub(crate) use lock::Locks;

/// How many appends can queue for the writer; further ones wait for a place.
const QUEUE: usize = 1024;

/// How many connections read at the same time.
const READERS: u32 = 4;

/// A journal in one `SQLite` file, open for this process alone.
pub struct SqliteJournal {
    requests: mpsc::Sender<Request>,
    readers: SqlitePool,
    head: watch::Receiver<u64>,
    macs: Macs,
    storage: Arc<Storage>,
    /// The right to have the file open. The writer has it, too, so that it lasts until both are gone: neither a writer that
    /// failed nor a journal that was dropped while its writer still commits lets anybody else in.
    lock: Mutex<Option<Arc<Locks>>>,
}

impl SqliteJournal {
    /// Opens the journal at this path, or creates it.
    ///
    /// A file that is not a journal, is damaged, was written by a newer version or is open in another process is
    /// refused, and nothing is changed, neither in it nor beside it.
    ///
    /// An older journal is upgraded, which may be interrupted at any moment and continues at the next opening. Its
    /// events get their MACs only if `macs` are those of a key store that does not yet say that this was done: see
    /// [`KeyStore::mark`](crate::KeyStore::mark).
    pub async fn open(path: &Path, macs: &Macs) -> Result<Self, OpenError> {
        Self::open_locked(JournalLock::take(path)?, macs).await
    }

    /// As [`SqliteJournal::open`], with a lock taken earlier, for example to check other things first.
    pub async fn open_locked(mut lock: JournalLock, macs: &Macs) -> Result<Self, OpenError> {
        let (file, database) = lock.missing()?;
        (lock.file, lock.database) = (lock.file.or(file), lock.database.or(database));
        let path = lock.path.clone();
        if file::check(&path, &KIND)?.is_some() {
            let readers = file::look(&path).await?;
            check_contents(&path, &readers).await?;
            require_macs(&path, file::format(&path, &KIND, &readers).await?, macs)?;
        }
        // Nothing has been changed so far.
        // Check again: before the lock another process may have created it, and a new file would replace it.
        let locks = lock.make().await?.complete()?;
        let options = file::options(&path).statement_cache_capacity(group::STATEMENTS);
        let failed = |error: sqlx::Error| file::damaged_or_failed(&path, &error);
        let mut connection = file::open(&path, &options, &KIND).await?;
        if macs.believes_checksums() {
            upgrade::prove(&mut connection, macs).await.map_err(failed)?;
        }
        let macs = macs.believing_nothing_else();
        let head = read_head(&mut connection).await.map_err(failed)?;
        let readers = readers(&options).await.map_err(failed)?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let (head_sender, head) = watch::channel(head);
        let storage = Arc::new(Storage::new(Files::of(&path)));
        let lock = Arc::new(locks);
        let (locked, kept) = (Arc::clone(&lock), Arc::clone(&storage));
        let writer = Writer::new(options, connection, head_sender, macs.clone(), locked, kept);
        tasks::start_with("journal_writer", Weight::Vital, (writer, queue), |(writer, queue)| {
            writer.run(queue).boxed()
        });
        Ok(Self { requests, readers, head, macs, storage, lock: Mutex::new(Some(lock)) })
    }

    /// Opens the journal for reading, and changes nothing, neither in it nor beside it, even where its last writer was
    /// killed. Appends are refused. The lock must outlive the journal.
    pub async fn look(lock: &JournalLock, macs: &Macs) -> Result<Self, OpenError> {
        let _missing = lock.missing()?;
        let path = lock.path.clone();
        if file::check(&path, &KIND)?.is_none() {
            let path = path.display().to_string();
            return Err(OpenError::Failed { path, reason: "the file does not exist".to_owned() });
        }
        let readers = file::look(&path).await?;
        let head = check_contents(&path, &readers).await?;
        require_macs(&path, file::format(&path, &KIND, &readers).await?, macs)?;
        Ok(Self::reading(&path, readers, watch::channel(head).1, macs.clone(), None))
    }

    /// A journal that this does not write: appends are refused.
    pub(crate) fn reading(
        path: &Path,
        readers: SqlitePool,
        head: watch::Receiver<u64>,
        macs: Macs,
        lock: Option<Arc<Locks>>,
    ) -> Self {
        let storage = Arc::new(Storage::new(Files::unwatched(path)));
        Self { requests: mpsc::channel(1).0, readers, head, macs, storage, lock: Mutex::new(lock) }
    }

    /// Closes the readers of [`SqliteJournal::reading`], before the writer closes its connection: the last connection
    /// to a file cleans up beside it, which a reader may not.
    #[cfg(feature = "kurrentdb")]
    pub(crate) async fn close_readers(&self) {
        self.readers.close().await;
    }

    /// Lets others open the file, once its writer has ended.
    pub(crate) fn unlock(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.storage.files.path()
    }

    /// The connections that read. Nothing is decided on a file that is gone.
    fn readers(&self) -> Result<&SqlitePool, StoreError> {
        self.storage.files.known()?;
        Ok(&self.readers)
    }
}

/// Connections that read while another one writes.
pub(crate) async fn readers(options: &SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    pools::sqlite().max_connections(READERS).connect_with(options.clone().read_only(true)).await
}

/// The cheap checks that a journal is intact: reading every page of a big file would take minutes.
pub(crate) async fn check_contents(path: &Path, readers: &SqlitePool) -> Result<u64, OpenError> {
    let failed = |error: sqlx::Error| file::damaged_or_failed(path, &error);
    let (first, head): (Option<i64>, i64) = sqlx::query_as(
        "SELECT (SELECT min(position) FROM events), (SELECT coalesce(max(position), 0) FROM events)",
    )
    .fetch_one(readers)
    .await
    .map_err(failed)?;
    let damaged = |what: &str| OpenError::Damaged { path: path.display().to_string(), what: what.to_owned() };
    if first.is_some_and(|first| first != 1) {
        return Err(damaged("its first events are missing"));
    }
    let head = u64::try_from(head).map_err(|_| damaged("its last position is negative"))?;
    if head > 0 {
        // Its MAC is checked when it is read: one false event must not block access to all others.
        let row = sqlx::query("SELECT * FROM events WHERE position = ?1")
            .bind(head.cast_signed())
            .fetch_one(readers)
            .await
            .map_err(failed)?;
        columns(&row).map_err(|error| damaged(&format!("its last event cannot be read: {error}")))?;
    }
    // One row each: this only checks that the tables exist.
    sqlx::query("SELECT 1 FROM claims, idempotency, snapshots, meta LIMIT 1")
        .fetch_all(readers)
        .await
        .map_err(failed)?;
    Ok(head)
}

/// Refuses a file with a format from before MACs if the key store says that its events carry them: then its format
/// number was set back.
fn require_macs(path: &Path, format: u32, macs: &Macs) -> Result<(), OpenError> {
    if format >= FORMAT_WITH_MACS || macs.believes_checksums() {
        return Ok(());
    }
    Err(OpenError::WithoutMacs { path: path.display().to_string(), found: format })
}

/// The last position; 0 if there is none.
pub(crate) async fn read_head(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let head: i64 =
        sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM events").fetch_one(connection).await?;
    Ok(head.cast_unsigned())
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        requests::append(&self.requests, append, |append, answer| Request::Append { append, answer }).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after_version: u64,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let rows = sqlx::query("SELECT * FROM events WHERE stream = ?1 AND version > ?2 ORDER BY version")
            .bind(stream.as_str())
            .bind(bounded(after_version))
            .fetch_all(self.readers()?)
            .await?;
        rows.iter().map(|row| self.recorded(row)).collect()
    }

    async fn read_all(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        let rows = sqlx::query("SELECT * FROM events WHERE position > ?1 ORDER BY position LIMIT ?2")
            .bind(bounded(after))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(self.readers()?)
            .await?;
        before_damage(rows.iter().map(|row| self.recorded(row)))
    }

    async fn read_positions(&self, positions: &[u64]) -> Result<Vec<RecordedEvent>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM events WHERE position IN (SELECT value FROM json_each(?1)) ORDER BY position",
        )
        .bind(serde_json::json!(positions).to_string())
        .fetch_all(self.readers()?)
        .await?;
        rows.iter().map(|row| self.recorded(row)).collect()
    }

    async fn positions_of(&self, name: &str, after: u64, until: u64) -> Result<Vec<u64>, StoreError> {
        let query = "SELECT position FROM events WHERE position > ?1 AND position <= ?2 AND type = ?3 ORDER BY position";
        let query = sqlx::query_scalar(query).bind(bounded(after)).bind(bounded(until)).bind(name);
        let found: Vec<i64> = query.fetch_all(self.readers()?).await?;
        Ok(found.into_iter().map(i64::cast_unsigned).collect())
    }

    async fn head(&self) -> Result<u64, StoreError> {
        Ok(*self.head.borrow())
    }

    fn watch_head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn versions(&self, streams: &[StreamId]) -> Result<Vec<u64>, StoreError> {
        let names: Vec<&str> = streams.iter().map(StreamId::as_str).collect();
        let versions: Vec<i64> = sqlx::query_scalar(
            "SELECT coalesce((SELECT e.version FROM events e WHERE e.stream = s.value
                 ORDER BY e.version DESC LIMIT 1), 0) FROM json_each(?1) s ORDER BY s.key",
        )
        .bind(serde_json::json!(names).to_string())
        .fetch_all(self.readers()?)
        .await?;
        Ok(versions.into_iter().map(i64::cast_unsigned).collect())
    }

    async fn claim_owner(&self, claim: &Claim) -> Result<Option<StreamId>, StoreError> {
        let owner: Option<String> =
            sqlx::query_scalar("SELECT owner FROM claims WHERE kind = ?1 AND key = ?2")
                .bind(&claim.kind)
                .bind(&claim.key)
                .fetch_optional(self.readers()?)
                .await?;
        Ok(owner.map(StreamId::from_stored))
    }

    async fn claims(&self, kind: &str, prefix: &str) -> Result<Vec<(Claim, StreamId)>, StoreError> {
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT kind, key, owner FROM claims WHERE kind = ?1 AND key >= ?2 AND key < ?3 ORDER BY key",
        )
        .bind(kind)
        .bind(prefix)
        // The highest character, which no key contains.
        .bind(format!("{prefix}\u{10FFFF}"))
        .fetch_all(self.readers()?)
        .await?;
        let held = |(kind, key, owner)| (Claim { kind, key }, StreamId::from_stored(owner));
        Ok(rows.into_iter().map(held).collect())
    }

    async fn idempotent(&self, key: &[u8; 32]) -> Result<Option<StoredIdempotency>, StoreError> {
        let row: Option<(Vec<u8>, i64, i64, Option<Vec<u8>>)> =
            sqlx::query_as("SELECT fingerprint, first, last, mac FROM idempotency WHERE key = ?1")
                .bind(key.as_slice())
                .fetch_optional(self.readers()?)
                .await?;
        let Some((fingerprint, first, last, mac)) = row else { return Ok(None) };
        let stored = stored(&fingerprint, first, last)?;
        self.macs.check_idempotency(key, &stored, mac.as_deref()).map_err(StoreError::Damaged)?;
        Ok(Some(stored))
    }

    async fn forget_idempotency(
        &self,
        after: Option<[u8; 32]>,
        before: Timestamp,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        requests::ask(&self.requests, |answer| Request::Forget { after, before, answer }).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        let row: Option<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT version, state FROM snapshots WHERE stream = ?1")
                .bind(stream.as_str())
                .fetch_optional(self.readers()?)
                .await?;
        Ok(row.map(|(version, state)| Snapshot { version: version.cast_unsigned(), state }))
    }

    fn measure(&self) {
        let pool = &self.readers;
        measure::pool("journal", pool.size(), pool.num_idle(), pool.options().get_max_connections());
        measure::queue(self.requests.max_capacity() - self.requests.capacity());
    }

    async fn cursor_position(&self, effect: &str) -> Result<Option<u64>, StoreError> {
        let known: Option<i64> = sqlx::query_scalar("SELECT position FROM effects WHERE name = ?1")
            .bind(effect)
            .fetch_optional(self.readers()?)
            .await?;
        Ok(known.map(i64::cast_unsigned))
    }

    async fn hold_cursor(&self, effect: &str, _: &str, _: Duration) -> Result<Option<Cursor>, StoreError> {
        let position = match self.cursor_position(effect).await? {
            Some(position) => position,
            None => self.keep_cursor(effect, None).await?,
        };
        Ok(Some(Cursor { position, epoch: 0 }))
    }

    async fn move_cursor(&self, effect: &str, cursor: Cursor) -> Result<bool, StoreError> {
        self.keep_cursor(effect, Some(cursor.position)).await?;
        Ok(true)
    }

    async fn release_cursor(&self, _: &str, _: Cursor) -> Result<(), StoreError> {
        Ok(())
    }

    async fn can_append(&self) -> Result<(), StoreError> {
        match self.storage.known() {
            Some(known) => Ok(known?),
            None => requests::ask(&self.requests, |answer| Request::Probe { answer }).await,
        }
    }

    fn check_files(&self) -> Result<(), StoreError> {
        Ok(self.storage.files.check()?)
    }

    fn last_append(&self) -> Result<(), Why> {
        self.storage.files.known().and_then(|()| self.storage.last.outcome())
    }

    async fn newest_streams(&self, aggregate: &str, limit: u32) -> Result<Vec<StreamId>, StoreError> {
        let streams: Vec<String> = sqlx::query_scalar(
            "SELECT stream FROM events WHERE stream >= ?1 AND stream < ?2 AND version = 1
             ORDER BY stream DESC LIMIT ?3",
        )
        .bind(format!("{aggregate}-"))
        .bind(format!("{aggregate}-\u{10FFFF}"))
        .bind(limit)
        .fetch_all(self.readers()?)
        .await?;
        Ok(streams.into_iter().map(StreamId::from_stored).collect())
    }

    async fn close(&self) {
        self.readers.close().await;
        // This fails if the writer has ended already, which is fine.
        let _ = self.requests.send(Request::Close).await;
        let mut head = self.head.clone();
        // The writer holds the sending end, so this ends when the writer is gone.
        while head.changed().await.is_ok() {}
        self.unlock();
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<(), StoreError> {
        let stream = stream.clone();
        requests::ask(&self.requests, |answer| Request::Snapshot { stream, snapshot, answer }).await
    }

    async fn snapshots(&self) -> Result<Vec<StreamId>, StoreError> {
        let streams: Vec<String> = sqlx::query_scalar("SELECT stream FROM snapshots ORDER BY stream")
            .fetch_all(self.readers()?)
            .await?;
        Ok(streams.into_iter().map(StreamId::from_stored).collect())
    }
}

impl SqliteJournal {
    /// The cursor of an effect, after moving it if a position is given.
    async fn keep_cursor(&self, effect: &str, position: Option<u64>) -> Result<u64, StoreError> {
        let effect = effect.to_owned();
        requests::ask(&self.requests, |answer| Request::Cursor { effect, position, answer }).await
    }
}

/// A number for a comparison in SQL: nothing exists beyond `SQLite`'s range.
fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
