//! A node's copy of the journal, in a `SQLite` file with the tables of a journal. It is filled from the server's stream
//! alone and can be deleted at any time.

use std::borrow::Borrow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::{StreamId, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tokio::sync::watch;
use uuid::Uuid;

use super::entry::{Decoded, Unproven};
use crate::journal::{
    Append, Appended, Claim, Idempotency, OpenError, Snapshot, StoreError, StoredIdempotency,
};
use crate::mac::{Macs, Row, Standing};
use crate::sqlite::file::{self, Kind};
use crate::sqlite::group::{Answer, EventRow, Group, STATEMENTS, forget_idempotency, keep_snapshot};
use crate::sqlite::tables::SCHEMA;
use crate::sqlite::{Locks, SqliteJournal, check_contents, read_head, readers};

const KIND: Kind = Kind {
    what: "replica of a Watchword journal",
    application_id: 0x5741_5231,
    format: 2,
    schema: SCHEMA,
    upgrades: &[],
};

pub(super) struct Replica {
    // Dropped before `head`: a task that waits for the end of `head` may open the file again.
    _lock: Arc<Locks>,
    path: PathBuf,
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    /// The position of the newest event, and its id.
    end: (u64, Option<Uuid>),
    /// Whether it holds altered events.
    is_damaged: bool,
    head: watch::Sender<u64>,
    macs: Macs,
}

/// Appends that are decided but not yet written.
pub(super) struct Decided {
    connection: SqliteConnection,
    group: Group,
    answers: Vec<Answer>,
}

/// Appends that are decided, after others of the stream that the replica does not have yet.
pub(super) struct Continued<'a> {
    decided: Decided,
    /// First those of the stream.
    appends: Vec<&'a Append>,
    /// How many of them are of the stream.
    theirs: usize,
    /// The position that the others are decided at: that of the last event before theirs.
    pub(super) head: u64,
}

impl Continued<'_> {
    /// The answers to the appends that are not of the stream.
    pub(super) fn answers(&self) -> &[Answer] {
        &self.decided.answers[self.theirs..]
    }

    /// The events that are not in the stream yet.
    pub(super) fn rows(&self) -> Vec<EventRow<'_>> {
        self.decided.group.rows_from(self.theirs, &self.appends)
    }
}

impl Replica {
    /// Opens the file, or creates it, and the journal that reads it. A file of an older format, or one that has only
    /// part of the first `whole` events, is rebuilt.
    pub(super) async fn open(
        path: &Path,
        macs: &Macs,
        whole: u64,
    ) -> Result<(Self, SqliteJournal), OpenError> {
        let lock = Arc::new(Locks::beside(file::lock(path)?));
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
        // If a power loss takes the newest events, they are read from the stream again.
        let options =
            file::options(path).synchronous(SqliteSynchronous::Normal).statement_cache_capacity(STATEMENTS);
        let mut connection = file::open(path, &options, &KIND).await?;
        let end = read_end(&mut connection).await.map_err(failed)?;
        let is_damaged = is_damaged(&mut connection).await.map_err(failed)?;
        let readers = readers(&options).await.map_err(failed)?;
        check_contents(path, &readers).await?;
        let (head, watch) = watch::channel(end.0);
        let reading = SqliteJournal::reading(path, readers, watch, macs.clone(), Some(Arc::clone(&lock)));
        let path = path.to_owned();
        let connection = Some(connection);
        Ok((Self { _lock: lock, path, options, connection, end, is_damaged, head, macs }, reading))
    }

    /// The position of the newest event.
    pub(super) fn head(&self) -> u64 {
        self.end.0
    }

    /// The id of the newest event.
    pub(super) fn last(&self) -> Option<Uuid> {
        self.end.1
    }

    /// Whether the replica holds altered events.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Its path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Decides appends on the replica's state and what follows it in the stream: that goes into the replica with them, in
    /// one transaction, or alone if they write nothing. The group must be committed or forgotten before anything else is
    /// done.
    ///
    /// This decides the same as writing the stream's appends first: a group sees its own changes.
    pub(super) async fn decide<'a>(
        &mut self,
        stream: &'a [Append],
        appends: &'a [Append],
    ) -> Result<Continued<'a>, StoreError> {
        let theirs = stream.len();
        let appends: Vec<&Append> = stream.iter().chain(appends).collect();
        let resolve = |group: &mut Group, place, append: &_| {
            if place < theirs { group.resolve_again(place, append) } else { group.resolve(place, append) }
        };
        let decided = self.decide_by(resolve, &appends).await?;
        match follows(self.end.0, stream, &decided.answers) {
            Ok(head) => Ok(Continued { decided, appends, theirs, head }),
            Err(damage) => {
                self.roll_back(decided).await?;
                Err(StoreError::Damaged(damage))
            }
        }
    }

    async fn decide_by<A: Borrow<Append> + Sync>(
        &mut self,
        resolve: impl Fn(&mut Group, usize, &Append) -> Answer,
        appends: &[A],
    ) -> Result<Decided, sqlx::Error> {
        let mut connection = self.connection().await?;
        let mut group = Group::new(&self.macs);
        group.begin(&mut connection, appends).await?;
        group.head = self.end.0;
        let answers = appends
            .iter()
            .enumerate()
            .map(|(place, append)| resolve(&mut group, place, append.borrow()))
            .collect();
        Ok(Decided { connection, group, answers })
    }

    /// Commits a group that is in the stream, or writes nothing to it.
    pub(super) async fn commit(&mut self, continued: Continued<'_>) -> Result<(), sqlx::Error> {
        let Continued { decided, appends, .. } = continued;
        if decided.group.is_empty() {
            self.roll_back(decided).await
        } else {
            self.keep_group(decided, &appends).await
        }
    }

    /// Rolls a group back, and what follows in the stream with it.
    pub(super) async fn forget(&mut self, continued: Continued<'_>) -> Result<(), sqlx::Error> {
        self.roll_back(continued.decided).await
    }

    async fn keep_group<A: Borrow<Append> + Sync>(
        &mut self,
        decided: Decided,
        appends: &[A],
    ) -> Result<(), sqlx::Error> {
        let Decided { mut connection, group, .. } = decided;
        group.commit(&mut connection, appends).await?;
        self.end = (group.head, group.last(appends));
        self.connection = Some(connection);
        self.head.send_replace(self.end.0);
        Ok(())
    }

    async fn roll_back(&mut self, mut decided: Decided) -> Result<(), sqlx::Error> {
        sqlx::query("ROLLBACK").execute(&mut decided.connection).await?;
        self.connection = Some(decided.connection);
        Ok(())
    }

    /// Writes what comes from the stream, whichever node sent it.
    pub(super) async fn apply(&mut self, decoded: Vec<Decoded>) -> Result<(), StoreError> {
        let mut whole = Vec::new();
        for decoded in decoded {
            if let Decoded::Whole(append) = decoded {
                whole.push(append);
                continue;
            }
            self.apply_whole(std::mem::take(&mut whole)).await?;
            match decoded {
                Decoded::Part(append, events) => self.place(&append, events).await?,
                Decoded::Unproven(event) => self.set_apart(&event).await?,
                Decoded::Whole(_) => {}
            }
        }
        self.apply_whole(whole).await
    }

    /// Appends of the stream must be exactly what this node would have accepted, unless something that they were
    /// decided on is missing: altered events and what came with them.
    async fn apply_whole(&mut self, appends: Vec<Append>) -> Result<(), StoreError> {
        if appends.is_empty() {
            return Ok(());
        }
        if !self.is_damaged {
            return self.repeat(&appends).await;
        }
        for append in &appends {
            match self.repeat(std::slice::from_ref(append)).await {
                Err(StoreError::Damaged(_)) => self.place(append, append.len()).await?,
                done => done?,
            }
        }
        Ok(())
    }

    async fn repeat(&mut self, appends: &[Append]) -> Result<(), StoreError> {
        // Each node forgets idempotency keys at its own time, so a key that is known here may have been reused
        // elsewhere.
        let decided = self.decide_by(Group::resolve_again, appends).await?;
        if let Err(damage) = follows(self.end.0, appends, &decided.answers) {
            self.roll_back(decided).await?;
            return Err(StoreError::Damaged(damage));
        }
        self.keep_group(decided, appends).await?;
        Ok(())
    }

    /// Writes the proven events of an append of `events` events unchanged, and what came with them.
    async fn place(&mut self, append: &Append, events: usize) -> Result<(), StoreError> {
        let (connection, first) = (self.connection().await?, self.end.0 + 1);
        let mut placed = Vec::with_capacity(append.len());
        let metadata = serde_json::to_string(&append.metadata).expect("metadata is a plain struct");
        for write in &append.writes {
            for (version, event) in (write.expected + 1..).zip(&write.events) {
                let row = Row {
                    id: event.id.as_bytes(),
                    stream: write.stream.as_str(),
                    version: version.cast_signed(),
                    name: &event.name,
                    schema_version: event.schema_version.into(),
                    at: append.at.as_microsecond(),
                    app_id: append.metadata.app_id.as_str(),
                    metadata: &metadata,
                    data: &event.data,
                    person: event.person.as_ref().map(|person| person.0.as_bytes().as_slice()),
                    personal: event.personal.as_deref(),
                };
                let position = first + placed.len() as u64;
                placed.push((position, row, Some(self.macs.event(position.cast_signed(), &row).to_vec())));
            }
        }
        let claims = append.released.iter().map(|claim| (claim, None));
        let taken = append.taken.iter().map(|(claim, owner)| (claim, Some(owner)));
        let claims: Vec<_> = claims.chain(taken).collect();
        let once = append.idempotency.map(|Idempotency { key, fingerprint }| {
            let stored = StoredIdempotency { fingerprint, first, last: first + events as u64 - 1 };
            (key, stored, append.at.as_microsecond())
        });
        self.write(connection, placed, &claims, once, Standing::Proven).await
    }

    /// Writes an event that no holder of the instance key wrote, so that readers of it, or of its stream, see that it
    /// is false. It gets a version of its own, as it may claim another event's version.
    async fn set_apart(&mut self, event: &Unproven) -> Result<(), StoreError> {
        let (connection, position) = (self.connection().await?, self.end.0 + 1);
        let row = Row {
            id: event.id.as_bytes(),
            stream: event.stream.as_str(),
            version: i64::MAX - position.cast_signed(),
            name: &event.name,
            schema_version: event.schema_version.into(),
            at: event.at,
            app_id: &event.app_id,
            metadata: &event.metadata,
            data: &event.data,
            person: event.person.as_ref().map(|person| person.as_bytes().as_slice()),
            personal: event.personal.as_deref(),
        };
        tracing::error!(position, stream = %event.stream, "an event of the stream was altered");
        let claims: Vec<_> = event.taken.iter().map(|claim| (claim, Some(&event.stream))).collect();
        let once = event.idempotency.map(|Idempotency { key, fingerprint }| {
            (key, StoredIdempotency { fingerprint, first: position, last: position }, event.at)
        });
        let placed = vec![(position, row, event.mac.clone())];
        self.write(connection, placed, &claims, once, Standing::False).await
    }

    /// Writes events, and what comes with them. What comes with a false event replaces nothing and gives nothing: a
    /// free claim then belongs to a stream that accepts no appends, and an idempotency key answers no request.
    async fn write(
        &mut self,
        mut connection: SqliteConnection,
        placed: Vec<(u64, Row<'_>, Option<Vec<u8>>)>,
        claims: &[(&Claim, Option<&StreamId>)],
        once: Option<([u8; 32], StoredIdempotency, i64)>,
        standing: Standing,
    ) -> Result<(), StoreError> {
        let head = self.end.0 + placed.len() as u64;
        let last = placed.last().and_then(|(_, row, _)| Uuid::from_slice(row.id).ok());
        let instead = if standing == Standing::Proven { "REPLACE" } else { "IGNORE" };
        let mut transaction = connection.begin().await?;
        for (position, row, mac) in placed {
            insert(&mut transaction, position, &row, mac.as_deref()).await?;
        }
        for (claim, owner) in claims {
            let statement = match owner {
                Some(_) => format!("INSERT OR {instead} INTO claims VALUES (?1, ?2, ?3)"),
                None => "DELETE FROM claims WHERE kind = ?1 AND key = ?2".to_owned(),
            };
            let statement = sqlx::query(AssertSqlSafe(statement)).bind(&claim.kind).bind(&claim.key);
            let statement = match owner {
                Some(owner) => statement.bind(owner.as_str()),
                None => statement,
            };
            statement.execute(&mut *transaction).await?;
        }
        if let Some((key, stored, at)) = once {
            let mac = match standing {
                Standing::Proven => self.macs.idempotency(&key, &stored).to_vec(),
                Standing::Old | Standing::False => vec![],
            };
            let statement = format!("INSERT OR {instead} INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
            sqlx::query(AssertSqlSafe(statement))
                .bind(key.as_slice())
                .bind(stored.fingerprint.as_slice())
                .bind(stored.first.cast_signed())
                .bind(stored.last.cast_signed())
                .bind(at)
                .bind(mac)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("INSERT OR REPLACE INTO meta VALUES ('damaged', 1)").execute(&mut *transaction).await?;
        transaction.commit().await?;
        (self.end, self.is_damaged) = ((head, last), true);
        self.connection = Some(connection);
        self.head.send_replace(head);
        Ok(())
    }

    /// The ids of up to `count` events after a position, in order.
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

    /// Stores a snapshot, unless there is a newer one.
    pub(super) async fn keep(&mut self, stream: &StreamId, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        keep_snapshot(&mut connection, stream, snapshot).await?;
        self.connection = Some(connection);
        Ok(())
    }

    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the replica could not be closed");
        }
    }

    /// The connection is put back only after success, so that a broken one is never reused.
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

/// The position of the last event of these appends of the stream, which follow this position, if this node accepts them
/// as they are.
fn follows(position: u64, stream: &[Append], answers: &[Answer]) -> Result<u64, String> {
    let mut first = position + 1;
    for (append, answer) in stream.iter().zip(answers) {
        let last = first + append.len() as u64 - 1;
        match answer {
            Ok(answer) if *answer == (Appended { first, last, replayed: false }) => {}
            Ok(_) => return Err(format!("event {first} has another position here")),
            Err(error) => return Err(format!("event {first} should not be in the stream: {error}")),
        }
        first = last + 1;
    }
    Ok(first - 1)
}

/// Whether a replica has some but not all of the first `whole` events, which are accepted together or not at all.
async fn has_part(path: &Path, whole: u64) -> Result<bool, OpenError> {
    let readers = file::look(path).await?;
    let head = check_contents(path, &readers).await;
    readers.close().await;
    let head = head?;
    Ok(head > 0 && head < whole)
}

async fn insert(
    connection: &mut SqliteConnection,
    position: u64,
    row: &Row<'_>,
    mac: Option<&[u8]>,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)")
        .bind(position.cast_signed())
        .bind(row.id)
        .bind(row.stream)
        .bind(row.version)
        .bind(row.name)
        .bind(row.schema_version)
        .bind(row.at)
        .bind(row.app_id)
        .bind(row.metadata)
        .bind(row.data)
        .bind(row.person)
        .bind(row.personal)
        .bind(mac)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether any event was ever set apart.
async fn is_damaged(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT value FROM meta WHERE key = 'damaged'").fetch_optional(connection).await?;
    Ok(found.is_some())
}

async fn read_end(connection: &mut SqliteConnection) -> Result<(u64, Option<Uuid>), sqlx::Error> {
    let head = read_head(connection).await?;
    let last = sqlx::query_scalar("SELECT id FROM events WHERE position = ?1")
        .bind(head.cast_signed())
        .fetch_optional(connection)
        .await?;
    Ok((head, last))
}
