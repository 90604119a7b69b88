//! The only task that writes: takes the queued requests, resolves them in memory and commits them together.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use domain::{StreamId, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tasks::End;
use tokio::sync::{mpsc, oneshot, watch};

use super::group::{Answer, Failure, Group, forget_idempotency, keep_snapshot};
use super::lock::Locks;
use super::{probe, read_head};
use crate::journal::{Append, AppendError, Snapshot, StoreError};
use crate::mac::Macs;
use crate::measure;
use crate::storage::{Cause, Storage, Why};

/// The most requests committed together: with more, the first would wait too long.
const GROUP: usize = 512;

/// A request to the writer.
pub(super) enum Request {
    /// Appends.
    Append { append: Box<Append>, answer: oneshot::Sender<Answer> },
    /// Stores a snapshot.
    Snapshot { stream: StreamId, snapshot: Snapshot, answer: oneshot::Sender<Result<(), StoreError>> },
    /// Forgets old idempotency keys after this one.
    Forget {
        after: Option<[u8; 32]>,
        before: Timestamp,
        answer: oneshot::Sender<Result<Option<[u8; 32]>, StoreError>>,
    },
    /// Moves or creates the cursor of an effect, and returns its position.
    Cursor { effect: String, position: Option<u64>, answer: oneshot::Sender<Result<u64, StoreError>> },
    /// Finds out whether an append would be taken.
    Probe { answer: oneshot::Sender<Result<(), StoreError>> },
    /// Ends the writer after all earlier requests.
    Close,
}

pub(super) struct Writer {
    // Dropped before `head`: a task that waits for the end of `head` may open the file again.
    _locks: Arc<Locks>,
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    head: watch::Sender<u64>,
    macs: Macs,
    storage: Arc<Storage>,
}

impl Writer {
    pub(super) fn new(
        options: SqliteConnectOptions,
        connection: SqliteConnection,
        head: watch::Sender<u64>,
        macs: Macs,
        locks: Arc<Locks>,
        storage: Arc<Storage>,
    ) -> Self {
        Self { _locks: locks, options, connection: Some(connection), head, macs, storage }
    }

    /// Runs until it is asked to end, or all request senders are gone. After a panic it can run again: whoever waited for
    /// the requests in hand knows that their outcome is unknown, and the connection was dropped with them.
    pub(super) async fn run(&mut self, queue: &mut mpsc::Receiver<Request>) -> End {
        let mut closing = false;
        while !closing && let Some(first) = queue.recv().await {
            let mut appends = Vec::new();
            let mut snapshots = Vec::new();
            let mut forgets = Vec::new();
            let mut cursors = Vec::new();
            let mut probes = Vec::new();
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Append { append, answer } => appends.push((*append, answer)),
                    Request::Snapshot { stream, snapshot, answer } => {
                        snapshots.push((stream, snapshot, answer));
                    }
                    Request::Forget { after, before, answer } => forgets.push((after, before, answer)),
                    Request::Cursor { effect, position, answer } => cursors.push((effect, position, answer)),
                    Request::Probe { answer } => probes.push(answer),
                    Request::Close => closing = true,
                }
                next = if !closing && appends.len() + snapshots.len() + cursors.len() < GROUP {
                    queue.try_recv().ok()
                } else {
                    None
                };
            }
            if !appends.is_empty() {
                let (count, begun) = (appends.len(), Instant::now());
                self.append_all(appends).await;
                measure::group(count, begun.elapsed());
            }
            for (stream, snapshot, answer) in snapshots {
                // If the caller went away, the snapshot is stored all the same.
                let kept = self.keep(&stream, &snapshot).await;
                let _ = answer.send(self.storage.noted(kept));
            }
            for (after, before, answer) in forgets {
                let forgotten = self.forget(after, before).await;
                let _ = answer.send(self.storage.noted(forgotten));
            }
            for (effect, position, answer) in cursors {
                let kept = self.keep_cursor(&effect, position).await;
                let _ = answer.send(self.storage.noted(kept));
            }
            if !probes.is_empty() {
                let found = self.probe().await;
                for answer in probes {
                    let _ = answer.send(found.clone().map_err(StoreError::from));
                }
            }
        }
        self.storage.files.release();
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the journal's writer could not close its connection");
        }
        End::Asked
    }

    async fn append_all(&mut self, requests: Vec<(Append, oneshot::Sender<Answer>)>) {
        let (appends, answers): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let mut group = Group::new(&self.macs);
        let results = self.append_group(&appends, &mut group).await;
        if results.iter().any(|result| result.as_ref().is_ok_and(|appended| !appended.replayed)) {
            self.head.send_replace(group.head);
        }
        for (answer, result) in answers.into_iter().zip(results) {
            // A caller that went away can ask again with the same idempotency key.
            let _ = answer.send(result);
        }
    }

    async fn append_group(&mut self, appends: &[Append], group: &mut Group) -> Vec<Answer> {
        // What is written to a file that no start would find again is lost.
        if let Err(why) = self.files_are_there().await {
            return self.none(appends, &why);
        }
        let results = match self.commit(appends, group).await {
            Ok(results) => {
                if !group.is_empty() {
                    self.storage.last.succeeded();
                }
                results
            }
            Err(failure) => self.recover(failure, appends, group).await,
        };
        // It may have been deleted right before the commit. Only what the next start finds is acknowledged.
        match self.files_are_there().await {
            Err(why) if !group.is_empty() => {
                self.storage.last.failed(&why, appends.len());
                vec![Err(AppendError::Unknown(why.text)); appends.len()]
            }
            _ => results,
        }
    }

    /// None of a group was written.
    fn none(&self, appends: &[Append], why: &Why) -> Vec<Answer> {
        self.storage.last.failed(why, appends.len());
        vec![Err(AppendError::Unavailable(why.clone())); appends.len()]
    }

    /// Looks whether the files are still those that were opened.
    ///
    /// If only the log beside the database is gone, its commits, the newest, are moved into the database, through the
    /// connection that still has it open. A new connection would make another log.
    async fn files_are_there(&mut self) -> Result<(), Why> {
        let there = self.storage.files.check();
        if there.is_err()
            && self.storage.files.only_lacks_log()
            && let Some(connection) = &mut self.connection
        {
            match sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await {
                Ok(_) => tracing::warn!("the commits in the deleted log were moved into the database"),
                Err(error) => {
                    tracing::error!(%error, "the commits in the deleted log cannot be moved into the database");
                }
            }
        }
        there
    }

    async fn probe(&mut self) -> Result<(), Why> {
        self.files_are_there().await?;
        let probed = async {
            let mut connection = self.connection().await?;
            probe::write(&mut connection, self.storage.last.size()).await?;
            self.connection = Some(connection);
            Ok(())
        };
        let probed = probed.await;
        self.storage.probed(probed)
    }

    async fn connection(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        self.storage.files.check().map_err(|why| io::Error::new(io::ErrorKind::NotFound, why.text))?;
        let mut connection = self.options.connect().await?;
        // A commit whose outcome was unknown may have moved the head.
        let head = read_head(&mut connection).await?;
        self.head.send_if_modified(|known| std::mem::replace(known, head) != head);
        Ok(connection)
    }

    /// A group takes only two round trips to the connection's thread, as each costs more than most statements: one
    /// begins and reads, one writes and commits.
    ///
    /// The connection is put back only after success, so that a broken one is never reused.
    async fn commit(&mut self, appends: &[Append], group: &mut Group) -> Result<Vec<Answer>, Failure> {
        let mut connection = self.connection().await?;
        group.head = *self.head.borrow();
        group.begin(&mut connection, appends).await?;
        let results: Vec<_> =
            appends.iter().enumerate().map(|(i, append)| group.resolve(i, append)).collect();
        if group.is_empty() {
            sqlx::query("ROLLBACK").execute(&mut connection).await?;
        } else {
            group.commit(&mut connection, appends).await?;
        }
        self.connection = Some(connection);
        Ok(results)
    }

    /// Determines the outcome of a group whose commit failed, and makes the writer usable again.
    async fn recover(&mut self, failure: Failure, appends: &[Append], group: &Group) -> Vec<Answer> {
        let error = match failure {
            Failure::Before(error) => {
                tracing::error!(%error, "the journal could not write");
                return self.none(appends, &self.storage.files.why(&error));
            }
            Failure::AtCommit(error) => error,
        };
        tracing::error!(%error, "a commit of the journal failed");
        let why = self.storage.files.why(&error);
        if is_refused(&error, &why) {
            return self.none(appends, &why);
        }
        match self.has_landed(appends, group).await {
            Ok(true) => {
                self.storage.last.succeeded();
                group.answers(appends.len(), &why)
            }
            Ok(false) => self.none(appends, &why),
            Err(second) => {
                self.storage.last.failed(&why, appends.len());
                vec![Err(AppendError::Unknown(format!("{error}; then {second}"))); appends.len()]
            }
        }
    }

    async fn has_landed(&mut self, appends: &[Append], group: &Group) -> Result<bool, sqlx::Error> {
        let mut connection = self.connection().await?;
        let ours = group.last(appends);
        let found: Option<Vec<u8>> = sqlx::query_scalar("SELECT id FROM events WHERE position = ?1")
            .bind(group.head.cast_signed())
            .fetch_optional(&mut connection)
            .await?;
        let landed = found.as_deref() == ours.as_ref().map(|id| id.as_bytes().as_slice());
        // A group that is not visible could still be in the log, past its valid end, and return after a crash. A commit
        // overwrites it, and shows that commits work again.
        sqlx::query("UPDATE meta SET value = value + 1 WHERE key = 'recoveries'")
            .execute(&mut connection)
            .await?;
        self.connection = Some(connection);
        Ok(landed)
    }

    async fn forget(
        &mut self,
        after: Option<[u8; 32]>,
        before: Timestamp,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        let mut connection = self.connection().await?;
        let last = forget_idempotency(&mut connection, after, before).await?;
        self.connection = Some(connection);
        Ok(last)
    }

    async fn keep(&mut self, stream: &StreamId, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        keep_snapshot(&mut connection, stream, snapshot).await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// The cursor of an effect, after moving it if a position is given.
    async fn keep_cursor(&mut self, effect: &str, position: Option<u64>) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let position: i64 = sqlx::query_scalar(
            "INSERT INTO effects VALUES (?1, coalesce(?2, (SELECT max(position) FROM events), 0))
             ON CONFLICT (name) DO UPDATE SET position = coalesce(?2, position) RETURNING position",
        )
        .bind(effect)
        .bind(position.map(u64::cast_signed))
        .fetch_one(&mut connection)
        .await?;
        self.connection = Some(connection);
        Ok(position.cast_unsigned())
    }
}

/// Whether the system refused one of a commit's pages, so that the last one, which makes it count, is not in the log.
/// Any other error may be that of the sync after it, or of a page that was written all the same.
fn is_refused(error: &sqlx::Error, why: &Why) -> bool {
    const IOERR_WRITE: &str = "778";
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    let is_said_by_sqlite = why.cause == Why::of(error).cause;
    matches!(why.cause, Cause::Full | Cause::ReadOnly) && (is_said_by_sqlite || code == IOERR_WRITE)
}
