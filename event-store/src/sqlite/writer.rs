//! The only task that writes: takes the queued requests, resolves them in memory and commits them together.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use domain::{StreamId, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tasks::End;
use tokio::sync::{mpsc, oneshot, watch};

use super::group::{Answer, Failure, Group, forget_idempotency, keep_snapshot};
use super::read_head;
use crate::journal::{Append, AppendError, Snapshot, StoreError};
use crate::mac::Macs;
use crate::measure;

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
    /// Ends the writer after all earlier requests.
    Close,
}

pub(super) struct Writer {
    // Dropped before `head`: a task that waits for the end of `head` may open the file again.
    _lock: Arc<File>,
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    head: watch::Sender<u64>,
    macs: Macs,
}

impl Writer {
    pub(super) fn new(
        options: SqliteConnectOptions,
        connection: SqliteConnection,
        head: watch::Sender<u64>,
        macs: Macs,
        lock: Arc<File>,
    ) -> Self {
        Self { _lock: lock, options, connection: Some(connection), head, macs }
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
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Append { append, answer } => appends.push((*append, answer)),
                    Request::Snapshot { stream, snapshot, answer } => {
                        snapshots.push((stream, snapshot, answer));
                    }
                    Request::Forget { after, before, answer } => forgets.push((after, before, answer)),
                    Request::Cursor { effect, position, answer } => cursors.push((effect, position, answer)),
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
                let _ = answer.send(self.keep(&stream, &snapshot).await);
            }
            for (after, before, answer) in forgets {
                let _ = answer.send(self.forget(after, before).await);
            }
            for (effect, position, answer) in cursors {
                let _ = answer.send(self.keep_cursor(&effect, position).await);
            }
        }
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
        let outcome = self.commit(&appends, &mut group).await;
        let results = match outcome {
            Ok(results) => results,
            Err(failure) => self.recover(failure, &appends, &group).await,
        };
        if results.iter().any(|result| result.as_ref().is_ok_and(|appended| !appended.replayed)) {
            self.head.send_replace(group.head);
        }
        for (answer, result) in answers.into_iter().zip(results) {
            // A caller that went away can ask again with the same idempotency key.
            let _ = answer.send(result);
        }
    }

    async fn connection(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
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
        let all = |error: AppendError| vec![Err(error); appends.len()];
        let error = match failure {
            Failure::Before(error) => {
                tracing::error!(%error, "the journal could not write");
                return all(AppendError::Unavailable(error.to_string()));
            }
            Failure::AtCommit(error) => error,
        };
        tracing::error!(%error, "a commit of the journal failed");
        match self.has_landed(appends, group).await {
            Ok(true) => group.answers(appends.len(), &error.to_string()),
            Ok(false) => all(AppendError::Unavailable(error.to_string())),
            Err(second) => all(AppendError::Unknown(format!("{error}; then {second}"))),
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
