//! A group of appends that is decided in memory and committed together.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use domain::{StreamId, Timestamp};
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe};
use uuid::Uuid;

use super::rows::stored;
use crate::journal::{
    Append, AppendError, Appended, Claim, Idempotency, NewEvent, Snapshot, StoreError, StoredIdempotency,
    idempotency_key,
};
use crate::mac::{MAC, Macs, Row};

/// The most rows of one INSERT. Each number of rows is a separate statement, prepared once and kept.
const ROWS: usize = 128;

/// How many prepared statements a writer's connection keeps: those for all numbers of rows, with and without claims.
pub(crate) const STATEMENTS: usize = 4 * ROWS;

/// How many idempotency keys are examined at a time.
const LOOKED_AT: i64 = 1000;

/// One row of values, in the order of the table.
const ROW: &str = "(?,?,?,?,?,?,?,?,?,?,?,?,?)";

/// The row of an idempotency key: key, fingerprint, first and last position, MAC.
type KeyRow = (Vec<u8>, Vec<u8>, i64, i64, Option<Vec<u8>>);

/// The outcome of an append.
pub(crate) type Answer = Result<Appended, AppendError>;

/// How a group failed.
pub(crate) enum Failure {
    /// Before the commit: nothing was written.
    Before(sqlx::Error),
    /// At the commit: all of it may have been written.
    AtCommit(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Before(error)
    }
}

impl From<Failure> for sqlx::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Before(error) | Failure::AtCommit(error) => error,
        }
    }
}

/// What a group of appends is decided on: the state in the file, overlaid with the group's own changes.
pub(crate) struct Group {
    macs: Macs,
    /// The position of the newest event, including those of the group.
    pub(crate) head: u64,
    versions: HashMap<StreamId, u64>,
    claims: HashMap<Claim, Option<StreamId>>,
    changed: BTreeSet<Claim>,
    /// Each row, or what is wrong with it.
    idempotency: HashMap<[u8; 32], Result<StoredIdempotency, String>>,
    /// The accepted appends, by their index in the group, with their first position and, for each write, the version
    /// before it.
    accepted: BTreeMap<usize, Accepted>,
    refused: HashMap<usize, Answer>,
}

struct Accepted {
    appended: Appended,
    before: Vec<u64>,
}

impl Group {
    /// An empty group.
    pub(crate) fn new(macs: &Macs) -> Self {
        Self {
            macs: macs.clone(),
            head: 0,
            versions: HashMap::new(),
            claims: HashMap::new(),
            changed: BTreeSet::new(),
            idempotency: HashMap::new(),
            accepted: BTreeMap::new(),
            refused: HashMap::new(),
        }
    }

    /// Begins the transaction, and reads what the decisions need: one query for all versions, one for all claims, one
    /// for all idempotency keys.
    pub(crate) async fn begin<A: Borrow<Append> + Sync>(
        &mut self,
        connection: &mut SqliteConnection,
        appends: &[A],
    ) -> Result<(), Failure> {
        let appends = || appends.iter().map(Borrow::borrow);
        let streams: BTreeSet<&str> = appends()
            .flat_map(|append| {
                let written = append.writes.iter().map(|write| &write.stream);
                written.chain(append.guards.iter().map(|(stream, _)| stream))
            })
            .map(StreamId::as_str)
            .collect();
        // A correlated look-up reads one index entry per stream, where a join with GROUP BY would read them all.
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "BEGIN IMMEDIATE;
             SELECT s.value, coalesce((SELECT e.version FROM events e WHERE e.stream = s.value
                 ORDER BY e.version DESC LIMIT 1), 0) FROM json_each(?1) s",
        )
        .bind(serde_json::json!(streams).to_string())
        .fetch_all(&mut *connection)
        .await?;
        let version =
            |(stream, version): (String, i64)| (StreamId::from_stored(stream), version.cast_unsigned());
        self.versions = rows.into_iter().map(version).collect();

        let claims: BTreeSet<&Claim> = appends()
            .flat_map(|append| append.taken.iter().map(|(claim, _)| claim).chain(&append.released))
            .collect();
        if !claims.is_empty() {
            let keys: Vec<_> = claims.iter().map(|claim| [&claim.kind, &claim.key]).collect();
            let rows: Vec<(String, String, String)> = sqlx::query_as(
                "SELECT c.kind, c.key, c.owner FROM json_each(?1) j
                 CROSS JOIN claims c ON c.kind = j.value ->> 0 AND c.key = j.value ->> 1",
            )
            .bind(serde_json::json!(keys).to_string())
            .fetch_all(&mut *connection)
            .await?;
            let held = |(kind, key, owner)| (Claim { kind, key }, Some(StreamId::from_stored(owner)));
            self.claims = rows.into_iter().map(held).collect();
        }

        let keys: Vec<String> = appends()
            .filter_map(|append| append.idempotency.as_ref())
            .map(|once| hex::encode(once.key))
            .collect();
        if !keys.is_empty() {
            let rows: Vec<KeyRow> = sqlx::query_as(
                "SELECT i.key, i.fingerprint, i.first, i.last, i.mac FROM json_each(?1) j
                 CROSS JOIN idempotency i ON i.key = unhex(j.value)",
            )
            .bind(serde_json::json!(keys).to_string())
            .fetch_all(&mut *connection)
            .await?;
            for (key, fingerprint, first, last, mac) in rows {
                let damaged = |error: &str| sqlx::Error::Protocol(error.to_owned());
                let key = key.try_into().map_err(|_| damaged("an idempotency key is not 32 bytes long"))?;
                // A false row must not fail the neighbours of its request.
                let stored = stored(&fingerprint, first, last).map_err(|error| error.to_string());
                let stored = stored.and_then(|stored| {
                    self.macs.check_idempotency(&key, &stored, mac.as_deref()).map(|()| stored)
                });
                self.idempotency.insert(key, stored);
            }
        }
        Ok(())
    }

    /// Decides one append on top of those before it. A refusal changes nothing.
    pub(crate) fn resolve(&mut self, place: usize, append: &Append) -> Answer {
        let answer = self.replayed(append).unwrap_or_else(|| self.try_resolve(place, append));
        if !self.accepted.contains_key(&place) {
            self.refused.insert(place, answer.clone());
        }
        answer
    }

    /// As [`Group::resolve`], for an append that was decided where its idempotency key was unknown or already
    /// forgotten.
    #[cfg(feature = "kurrentdb")]
    pub(crate) fn resolve_again(&mut self, place: usize, append: &Append) -> Answer {
        self.try_resolve(place, append)
    }

    /// The answer if the append was already written under the same idempotency key.
    fn replayed(&self, append: &Append) -> Option<Answer> {
        let Idempotency { key, fingerprint } = append.idempotency.as_ref()?;
        let stored = match self.idempotency.get(key)? {
            Ok(stored) => stored,
            Err(wrong) => return Some(Err(AppendError::Damaged(wrong.clone()))),
        };
        Some(if stored.fingerprint == *fingerprint {
            Ok(Appended { first: stored.first, last: stored.last, replayed: true })
        } else {
            Err(AppendError::IdempotencyKeyReused)
        })
    }

    fn try_resolve(&mut self, place: usize, append: &Append) -> Answer {
        let mut written: HashMap<&StreamId, u64> = HashMap::new();
        let mut before = Vec::with_capacity(append.writes.len());
        for write in &append.writes {
            let actual = written.get(&write.stream).copied().unwrap_or_else(|| self.version(&write.stream));
            if actual != write.expected {
                return Err(AppendError::Conflict { stream: write.stream.clone(), actual });
            }
            before.push(actual);
            written.insert(&write.stream, actual + write.events.len() as u64);
        }
        for (stream, expected) in &append.guards {
            let actual = self.version(stream);
            if actual != *expected {
                return Err(AppendError::Conflict { stream: stream.clone(), actual });
            }
        }
        let claims = self.claimed(append)?;

        self.versions.extend(written.into_iter().map(|(stream, version)| (stream.clone(), version)));
        self.changed.extend(claims.keys().cloned());
        self.claims.extend(claims);
        let (first, last) = (self.head + 1, self.head + append.len() as u64);
        if let Some(Idempotency { key, fingerprint }) = append.idempotency {
            self.idempotency.insert(key, Ok(StoredIdempotency { fingerprint, first, last }));
        }
        self.head = last;
        let appended = Appended { first, last, replayed: false };
        self.accepted.insert(place, Accepted { appended, before });
        Ok(appended)
    }

    fn version(&self, stream: &StreamId) -> u64 {
        self.versions.get(stream).copied().unwrap_or(0)
    }

    /// The holders of the append's claims after it.
    fn claimed(&self, append: &Append) -> Result<HashMap<Claim, Option<StreamId>>, AppendError> {
        let mut claims: HashMap<Claim, Option<StreamId>> =
            append.released.iter().map(|claim| (claim.clone(), None)).collect();
        for (claim, new_owner) in &append.taken {
            let owner = claims.get(claim).or_else(|| self.claims.get(claim)).cloned().flatten();
            if let Some(owner) = owner.filter(|owner| owner != new_owner) {
                return Err(AppendError::ClaimTaken { claim: claim.clone(), owner });
            }
            claims.insert(claim.clone(), Some(new_owner.clone()));
        }
        Ok(claims)
    }

    /// Writes what was accepted, and commits.
    pub(crate) async fn commit<A: Borrow<Append> + Sync>(
        &self,
        connection: &mut SqliteConnection,
        appends: &[A],
    ) -> Result<(), Failure> {
        let rows = self.rows(appends);
        let (chunks, rest) = rows.as_chunks::<ROWS>();
        for chunk in chunks {
            let mut batch = Batch::default();
            batch.insert(chunk, &self.macs)?;
            batch.execute(connection).await?;
        }
        let mut batch = Batch::default();
        batch.insert(rest, &self.macs)?;
        self.change_claims(&mut batch)?;
        self.keep_idempotency(&mut batch, appends)?;
        fail::fail_point!("before-commit", |_| std::process::abort());
        batch.sql.push_str("COMMIT");
        batch.execute(connection).await.map_err(Failure::AtCommit)
    }

    fn change_claims(&self, batch: &mut Batch) -> Result<(), sqlx::Error> {
        let mut taken = Vec::new();
        let mut released = Vec::new();
        for claim in &self.changed {
            match self.claims.get(claim) {
                Some(Some(owner)) => taken.push([&claim.kind, &claim.key, owner.as_str()]),
                _ => released.push([&claim.kind, &claim.key]),
            }
        }
        if !released.is_empty() {
            batch.add(
                "DELETE FROM claims WHERE (kind, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
                &serde_json::json!(released),
            )?;
        }
        if !taken.is_empty() {
            batch.add(
                "INSERT OR REPLACE INTO claims SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
                &serde_json::json!(taken),
            )?;
        }
        Ok(())
    }

    fn keep_idempotency<A: Borrow<Append>>(
        &self,
        batch: &mut Batch,
        appends: &[A],
    ) -> Result<(), sqlx::Error> {
        let row = |(place, accepted): (&usize, &Accepted)| {
            let append: &Append = appends[*place].borrow();
            append.idempotency.map(|Idempotency { key, fingerprint }| {
                let Appended { first, last, .. } = accepted.appended;
                let mac = self.macs.idempotency(&key, &StoredIdempotency { fingerprint, first, last });
                (
                    hex::encode(key),
                    hex::encode(fingerprint),
                    first,
                    last,
                    append.at.as_microsecond(),
                    hex::encode(mac),
                )
            })
        };
        let rows: Vec<_> = self.accepted.iter().filter_map(row).collect();
        if rows.is_empty() {
            return Ok(());
        }
        batch.add(
            "INSERT OR REPLACE INTO idempotency SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3,
             value ->> 4, unhex(value ->> 5) FROM json_each(?)",
            &serde_json::json!(rows),
        )
    }

    /// Whether the group writes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.accepted.is_empty()
    }

    /// The rows that the group writes, in order.
    pub(crate) fn rows<'a, A: Borrow<Append>>(&self, appends: &'a [A]) -> Vec<EventRow<'a>> {
        self.rows_from(0, appends)
    }

    /// The rows of the appends from this place on.
    pub(crate) fn rows_from<'a, A: Borrow<Append>>(
        &self,
        first: usize,
        appends: &'a [A],
    ) -> Vec<EventRow<'a>> {
        let mut rows = Vec::new();
        for (place, accepted) in self.accepted.range(first..) {
            let append: &Append = appends[*place].borrow();
            let metadata: Arc<str> =
                serde_json::to_string(&append.metadata).expect("metadata is a plain struct").into();
            let mut position = accepted.appended.first;
            for (write, before) in append.writes.iter().zip(&accepted.before) {
                for (version, event) in (before + 1..).zip(&write.events) {
                    let (stream, metadata) = (&write.stream, Arc::clone(&metadata));
                    rows.push(EventRow { position, version, stream, append, metadata, event });
                    position += 1;
                }
            }
        }
        rows
    }

    /// The id of the last event that the group writes.
    pub(crate) fn last<A: Borrow<Append>>(&self, appends: &[A]) -> Option<Uuid> {
        let (place, _) = self.accepted.last_key_value()?;
        let append: &Append = appends[*place].borrow();
        append.writes.last()?.events.last().map(|event| event.id)
    }

    /// The answers of a group that turned out to be committed.
    pub(crate) fn answers(&self, count: usize, why: &crate::storage::Why) -> Vec<Answer> {
        let lost = || Err(AppendError::Unavailable(why.clone()));
        let answer = |place| match self.accepted.get(&place) {
            Some(accepted) => Ok(accepted.appended),
            None => self.refused.get(&place).cloned().unwrap_or_else(lost),
        };
        (0..count).map(answer).collect()
    }
}

/// Statements that are executed together, and their arguments in order.
#[derive(Default)]
struct Batch {
    sql: String,
    arguments: SqliteArguments,
}

impl Batch {
    fn insert(&mut self, rows: &[EventRow<'_>], macs: &Macs) -> Result<(), sqlx::Error> {
        for (i, row) in rows.iter().enumerate() {
            self.sql.push_str(if i == 0 { "INSERT INTO events VALUES " } else { "," });
            self.sql.push_str(ROW);
            row.bind(&mut self.arguments, macs)?;
        }
        if !rows.is_empty() {
            self.sql.push(';');
        }
        Ok(())
    }

    fn add(&mut self, statement: &str, rows: &serde_json::Value) -> Result<(), sqlx::Error> {
        self.sql.push_str(statement);
        self.sql.push(';');
        self.arguments.add(rows.to_string()).map_err(sqlx::Error::Encode)
    }

    async fn execute(self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        // The statements consist of constants.
        sqlx::query_with(AssertSqlSafe(self.sql), self.arguments).execute(connection).await?;
        Ok(())
    }
}

/// One row of the events table.
pub(crate) struct EventRow<'a> {
    pub(crate) position: u64,
    pub(crate) version: u64,
    pub(crate) stream: &'a StreamId,
    pub(crate) append: &'a Append,
    metadata: Arc<str>,
    pub(crate) event: &'a NewEvent,
}

impl EventRow<'_> {
    fn bind(&self, arguments: &mut SqliteArguments, macs: &Macs) -> Result<(), sqlx::Error> {
        let bytes = |id: Uuid| id.as_bytes().to_vec();
        let event = self.event;
        let mut bind = || {
            arguments.add(self.position.cast_signed())?;
            arguments.add(bytes(event.id))?;
            arguments.add(self.stream.as_str().to_owned())?;
            arguments.add(self.version.cast_signed())?;
            arguments.add(event.name.to_string())?;
            arguments.add(i64::from(event.schema_version))?;
            arguments.add(self.append.at.as_microsecond())?;
            arguments.add(self.append.metadata.app_id.as_str().to_owned())?;
            arguments.add(self.metadata.to_string())?;
            arguments.add(event.data.clone())?;
            arguments.add(event.person.map(|person| bytes(person.0)))?;
            arguments.add(event.personal.clone())?;
            arguments.add(self.mac(macs).to_vec())
        };
        bind().map_err(sqlx::Error::Encode)
    }

    /// The MAC, which proves that this instance wrote it.
    pub(crate) fn mac(&self, macs: &Macs) -> [u8; MAC] {
        let event = self.event;
        let row = Row {
            id: event.id.as_bytes(),
            stream: self.stream.as_str(),
            version: self.version.cast_signed(),
            name: &event.name,
            schema_version: event.schema_version.into(),
            at: self.append.at.as_microsecond(),
            app_id: self.append.metadata.app_id.as_str(),
            metadata: &self.metadata,
            data: &event.data,
            person: event.person.as_ref().map(|person| person.0.as_bytes().as_slice()),
            personal: event.personal.as_deref(),
        };
        macs.event(self.position.cast_signed(), &row)
    }
}

/// Stores a snapshot, unless there is a newer one.
pub(crate) async fn keep_snapshot(
    connection: &mut SqliteConnection,
    stream: &StreamId,
    snapshot: &Snapshot,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO snapshots VALUES (?1, ?2, ?3) ON CONFLICT (stream) DO UPDATE
         SET version = excluded.version, state = excluded.state WHERE excluded.version > version",
    )
    .bind(stream.as_str())
    .bind(snapshot.version.cast_signed())
    .bind(snapshot.state.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Examines the next idempotency keys after this one, and forgets those used before a time. It goes in the order of the
/// keys, not of time, so that no append has to maintain an index of times. Returns the last key examined.
pub(crate) async fn forget_idempotency(
    connection: &mut SqliteConnection,
    after: Option<[u8; 32]>,
    before: Timestamp,
) -> Result<Option<[u8; 32]>, StoreError> {
    let after = after.as_ref().map_or(&[][..], |key| key.as_slice());
    let last: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT max(key) FROM (SELECT key FROM idempotency WHERE key > ?1 ORDER BY key LIMIT ?2)",
    )
    .bind(after)
    .bind(LOOKED_AT)
    .fetch_one(&mut *connection)
    .await?;
    if let Some(last) = &last {
        sqlx::query("DELETE FROM idempotency WHERE key > ?1 AND key <= ?2 AND at < ?3")
            .bind(after)
            .bind(last.as_slice())
            .bind(before.as_microsecond())
            .execute(connection)
            .await?;
    }
    last.map(|key| idempotency_key(&key)).transpose()
}
