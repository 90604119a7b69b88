//! A node's copy of the journal, in a `SQLite` file with the tables of a journal: filled from the server's stream
//! alone, and to be deleted whenever one likes.

use std::fs::File;
use std::path::{Path, PathBuf};

use domain::{StreamId, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::watch;
use uuid::Uuid;

use crate::journal::{Append, Appended, OpenError, Snapshot, StoreError};
use crate::mac::Macs;
use crate::sqlite::file::{self, Kind};
use crate::sqlite::group::{Answer, Group, STATEMENTS, forget_idempotency, keep_snapshot};
use crate::sqlite::{SCHEMA, SqliteJournal, check_contents, read_head, readers};

const KIND: Kind = Kind {
    what: "replica of a Watchword journal",
    application_id: 0x5741_5231,
    format: 2,
    schema: SCHEMA,
    upgrades: &[],
};

pub(super) struct Replica {
    // Dropped before `head`, at whose end somebody may wait to open the file again.
    _lock: File,
    path: PathBuf,
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    /// The position of the newest event, and its id.
    end: (u64, Option<Uuid>),
    head: watch::Sender<u64>,
    macs: Macs,
}

/// Appends that are decided, and not written yet.
pub(super) struct Decided {
    connection: SqliteConnection,
    pub(super) group: Group,
    pub(super) answers: Vec<Answer>,
}

impl Replica {
    /// Opens the file, and makes it where there is none; and what reads it. One of before, or one that has only a part of the
    /// first `whole` events, is made anew.
    pub(super) async fn open(
        path: &Path,
        macs: &Macs,
        whole: u64,
    ) -> Result<(Self, SqliteJournal), OpenError> {
        let lock = file::lock(path)?;
        if let Some(format) = file::check(path, &KIND)?
            && (format < KIND.format || has_part(path, whole).await?)
        {
            file::remove(path)?;
        }
        let macs = macs.believing_nothing_else();
        let failed = |error: sqlx::Error| file::damaged_or_failed(path, &error);
        if file::check(path, &KIND)?.is_none() {
            file::create(path, &KIND, "").await?;
        }
        // What a power loss takes from the end is read from the stream again.
        let options =
            file::options(path).synchronous(SqliteSynchronous::Normal).statement_cache_capacity(STATEMENTS);
        let mut connection = file::open(path, &options, &KIND).await?;
        let end = read_end(&mut connection).await.map_err(failed)?;
        let readers = readers(&options).await.map_err(failed)?;
        check_contents(path, &readers).await?;
        let (head, watch) = watch::channel(end.0);
        let reading = SqliteJournal::reading(path.to_owned(), readers, watch, macs.clone());
        let path = path.to_owned();
        Ok((Self { _lock: lock, path, options, connection: Some(connection), end, head, macs }, reading))
    }

    /// The position of the newest event.
    pub(super) fn head(&self) -> u64 {
        self.end.0
    }

    /// The id of the newest event.
    pub(super) fn last(&self) -> Option<Uuid> {
        self.end.1
    }

    /// Where it is, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Decides appends on what is here. The group is to be committed or forgotten before anything else is done.
    pub(super) async fn decide(&mut self, appends: &[Append]) -> Result<Decided, sqlx::Error> {
        self.decide_by(Group::resolve, appends).await
    }

    async fn decide_by(
        &mut self,
        resolve: impl Fn(&mut Group, usize, &Append) -> Answer,
        appends: &[Append],
    ) -> Result<Decided, sqlx::Error> {
        let mut connection = self.connection().await?;
        let mut group = Group::new(&self.macs);
        group.begin(&mut connection, appends).await?;
        group.head = self.end.0;
        let answers =
            appends.iter().enumerate().map(|(place, append)| resolve(&mut group, place, append)).collect();
        Ok(Decided { connection, group, answers })
    }

    /// Writes a group that is in the stream.
    pub(super) async fn commit(
        &mut self,
        mut decided: Decided,
        appends: &[Append],
    ) -> Result<(), sqlx::Error> {
        let Decided { connection, group, .. } = &mut decided;
        group.commit(connection, appends).await?;
        self.end = (group.head, group.rows(appends).last().map(|row| row.event.id));
        self.connection = Some(decided.connection);
        self.head.send_replace(self.end.0);
        Ok(())
    }

    /// Leaves everything as it was.
    pub(super) async fn forget(&mut self, mut decided: Decided) -> Result<(), sqlx::Error> {
        sqlx::query("ROLLBACK").execute(&mut decided.connection).await?;
        self.connection = Some(decided.connection);
        Ok(())
    }

    /// Writes appends that come from the stream, whoever sent them: they must be just what this node would have
    /// accepted.
    pub(super) async fn apply(&mut self, appends: &[Append]) -> Result<(), StoreError> {
        let mut first = self.end.0 + 1;
        // Each node forgets idempotency keys at its own time, so one that is known here may have been used anew elsewhere.
        let decided = self.decide_by(Group::resolve_again, appends).await?;
        for (append, answer) in appends.iter().zip(&decided.answers) {
            let last = first + append.len() as u64 - 1;
            match answer {
                Ok(answer) if *answer == (Appended { first, last, replayed: false }) => {}
                Ok(_) => return Err(StoreError::Damaged(format!("event {first} has another position here"))),
                Err(error) => {
                    return Err(StoreError::Damaged(format!(
                        "event {first} should not be in the stream: {error}"
                    )));
                }
            }
            first = last + 1;
        }
        self.commit(decided, appends).await?;
        Ok(())
    }

    /// The ids of up to so many events after a position, in order.
    pub(super) async fn ids(&mut self, after: u64, count: usize) -> Result<Vec<Uuid>, sqlx::Error> {
        let mut connection = self.connection().await?;
        let ids = sqlx::query_scalar("SELECT id FROM events WHERE position > ?1 ORDER BY position LIMIT ?2")
            .bind(after.cast_signed())
            .bind(i64::try_from(count).unwrap_or(i64::MAX))
            .fetch_all(&mut connection)
            .await?;
        self.connection = Some(connection);
        Ok(ids)
    }

    /// Forgets old idempotency keys.
    pub(super) async fn forget_idempotency(
        &mut self,
        after: Option<[u8; 32]>,
        before: Timestamp,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        let mut connection = self.connection().await?;
        let last = forget_idempotency(&mut connection, after, before).await?;
        self.connection = Some(connection);
        Ok(last)
    }

    /// Keeps a snapshot, unless there is a newer one.
    pub(super) async fn keep(&mut self, stream: &StreamId, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        keep_snapshot(&mut connection, stream, snapshot).await?;
        self.connection = Some(connection);
        Ok(())
    }

    pub(super) async fn close(mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the replica could not be closed");
        }
    }

    /// The connection is put back only when all went well, so that a broken one is never used again.
    async fn connection(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.options.connect().await?;
        // A commit whose outcome was unknown may have moved the end.
        self.end = read_end(&mut connection).await?;
        self.head.send_if_modified(|known| std::mem::replace(known, self.end.0) != self.end.0);
        Ok(connection)
    }
}

/// Whether a replica has some of the first `whole` events, and not all of them: those are believed together or not at all.
async fn has_part(path: &Path, whole: u64) -> Result<bool, OpenError> {
    let readers = file::look(path).await?;
    let head = check_contents(path, &readers).await;
    readers.close().await;
    let head = head?;
    Ok(head > 0 && head < whole)
}

async fn read_end(connection: &mut SqliteConnection) -> Result<(u64, Option<Uuid>), sqlx::Error> {
    let head = read_head(connection).await?;
    let last = sqlx::query_scalar("SELECT id FROM events WHERE position = ?1")
        .bind(head.cast_signed())
        .fetch_optional(connection)
        .await?;
    Ok((head, last))
}
