//! The journal in a PostgreSQL database, which several nodes share.
//!
//! All appends of a node go through one task, which sends the queued ones to one function of the database. The function
//! takes a lock and keeps it until the commit, so that positions have no gaps and follow the order of the commits,
//! however many nodes write.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{StreamId, Timestamp};
use schemas::envelope::RecordedEvent;
use sqlx::Row;
use tasks::Task;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use uuid::Uuid;

use crate::journal::{
    Append, AppendError, Appended, Claim, Cursor, Journal, LONGEST_HOLD, Snapshot, StoreError,
    StoredIdempotency, before_damage, idempotency_key,
};
use crate::mac::Macs;
use crate::measure;
use crate::requests;
use crate::seen::Lost;
use crate::storage::{LastWrite, Why};
use doubt::Doubt;
use history::History;
use pool::Pool;
use writer::Request;

mod asking;
mod batch;
pub mod blocked;
pub mod connecting;
mod doubt;
mod head;
mod history;
mod known;
mod opening;
pub mod owners;
pub mod pool;
pub mod pooler;
mod reach;
pub mod role;
mod rows;
pub(crate) mod schema;
mod server;
pub(crate) mod session;
mod tail;
mod ticket;
mod upgrade;
mod url;
mod warnings;
mod writer;

pub use reach::Reach;
pub use schema::Migrated;
pub use server::{EventRights, PostgresServer};
pub use session::{ANSWER, PostgresSettings, is_away, lock_timeout, server_timeout};
pub use url::{InvalidPostgresUrl, PostgresUrl};

/// How many idempotency keys are examined at a time to forget old ones.
const LOOKED_AT: i32 = 1000;

/// A journal in a PostgreSQL database.
pub struct PostgresJournal {
    requests: mpsc::Sender<Request>,
    readers: Pool,
    reach: Arc<Reach>,
    answer: Duration,
    head: watch::Receiver<u64>,
    last: LastWrite,
    macs: Macs,
    history: Arc<History>,
    doubt: Arc<Doubt>,
    follower: Task,
    confirming: Task,
}

impl Drop for PostgresJournal {
    fn drop(&mut self) {
        self.follower.abort();
        self.confirming.abort();
    }
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.last.noted(self.send(append).await)
    }

    async fn confirm(&self, position: u64) -> Result<(), AppendError> {
        if self.doubt.is_confirmed(position) {
            return Ok(());
        }
        let asked = self.read(|| {
            sqlx::query_scalar("SELECT current_setting('synchronous_standby_names') <> ''")
                .fetch_one(&self.readers)
        });
        if !asked.await? {
            self.doubt.confirmed(position);
        } else if !self.doubt.confirm(position, self.answer).await {
            let text = "the synchronous replica may not have what is in the journal";
            return Err(AppendError::Unknown(text.to_owned()));
        }
        Ok(self.history.seen.check()?)
    }

    async fn can_append(&self) -> Result<(), StoreError> {
        if let Some(known) = self.last.recent() {
            return Ok(known?);
        }
        let size = self.last.size();
        let probed = requests::ask(&self.requests, |answer| Request::Probe { size, answer });
        let mut probed = pin!(timeout(self.answer, probed));
        let probed = tokio::select! {
            biased;
            probed = &mut probed => probed.unwrap_or_else(|_| {
                Err(StoreError::Unavailable("the database does not answer".into()))
            }),
            refusal = self.reach.refusal() => Err(StoreError::Unavailable(refusal.to_string().into())),
        };
        match &probed {
            Ok(()) => self.last.succeeded(),
            Err(StoreError::Unavailable(why)) => self.last.failed(why, 1),
            Err(_) => {}
        }
        probed
    }

    fn last_append(&self) -> Result<(), Why> {
        self.last.outcome()
    }

    async fn newest_streams(&self, aggregate: &str, limit: u32) -> Result<Vec<StreamId>, StoreError> {
        let (from, to) = (format!("{aggregate}-"), format!("{aggregate}-\u{10FFFF}"));
        let streams: Vec<String> = self
            .read(|| {
                sqlx::query_scalar(
                    "SELECT stream FROM watchword.events WHERE stream >= $1 AND stream < $2 AND version = 1
                     ORDER BY stream DESC LIMIT $3",
                )
                .bind(&from)
                .bind(&to)
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
            })
            .await?;
        Ok(streams.into_iter().map(StreamId::from_stored).collect())
    }

    async fn went_back(&self) -> Lost {
        self.history.seen.lost().await
    }

    fn lost(&self) -> Option<Lost> {
        self.history.seen.known_loss()
    }

    fn measure(&self) {
        let pool = &self.readers;
        measure::pool("journal", pool.size(), pool.num_idle(), pool.most());
        measure::queue(self.requests.max_capacity() - self.requests.capacity());
    }

    async fn close(&self) {
        self.follower.abort();
        self.confirming.abort();
        // This fails if the writer has ended already, which is fine.
        let _ = self.requests.send(Request::Close).await;
        self.requests.closed().await;
        self.readers.close().await;
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after_version: u64,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let rows = self
            .read(|| {
                sqlx::query(
                    "SELECT * FROM watchword.events WHERE stream = $1 AND version > $2 ORDER BY version",
                )
                .bind(stream.as_str())
                .bind(bounded(after_version))
                .fetch_all(&self.readers)
            })
            .await?;
        rows.iter().map(|row| self.recorded(row)).collect()
    }

    async fn read_streams(&self, wanted: &[(StreamId, u64)]) -> Result<Vec<Vec<RecordedEvent>>, StoreError> {
        let names: Vec<&str> = wanted.iter().map(|(stream, _)| stream.as_str()).collect();
        let after: Vec<i64> = wanted.iter().map(|(_, after)| bounded(*after)).collect();
        let rows = self
            .read(|| {
                sqlx::query(
                    "SELECT s.place, e.* FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY s (name, after, place),
                         LATERAL (SELECT * FROM watchword.events WHERE stream = s.name AND version > s.after) e
                     ORDER BY s.place, e.version",
                )
                .bind(&names)
                .bind(&after)
                .fetch_all(&self.readers)
            })
            .await?;
        let mut streams = vec![Vec::new(); wanted.len()];
        for row in &rows {
            let place = usize::try_from(row.try_get::<i64, _>("place")?).unwrap_or_default();
            let stream = streams.get_mut(place.wrapping_sub(1));
            stream
                .ok_or_else(|| StoreError::Damaged("an event of no stream".to_owned()))?
                .push(self.recorded(row)?);
        }
        Ok(streams)
    }

    async fn read_all(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        let rows = self
            .read(|| {
                sqlx::query("SELECT * FROM watchword.events WHERE position > $1 ORDER BY position LIMIT $2")
                    .bind(bounded(after))
                    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                    .fetch_all(&self.readers)
            })
            .await?;
        before_damage(rows.iter().map(|row| self.recorded(row)))
    }

    async fn read_positions(&self, positions: &[u64]) -> Result<Vec<RecordedEvent>, StoreError> {
        let positions: Vec<i64> = positions.iter().copied().map(bounded).collect();
        let rows = self
            .read(|| {
                sqlx::query("SELECT * FROM watchword.events WHERE position = ANY ($1) ORDER BY position")
                    .bind(&positions)
                    .fetch_all(&self.readers)
            })
            .await?;
        rows.iter().map(|row| self.recorded(row)).collect()
    }

    async fn positions_of(&self, name: &str, after: u64, until: u64) -> Result<Vec<u64>, StoreError> {
        let found: Vec<i64> = self
            .read(|| {
                sqlx::query_scalar(
                    "SELECT position FROM watchword.events
                     WHERE position > $1 AND position <= $2 AND type = $3 ORDER BY position",
                )
                .bind(bounded(after))
                .bind(bounded(until))
                .bind(name)
                .fetch_all(&self.readers)
            })
            .await?;
        Ok(found.into_iter().map(i64::cast_unsigned).collect())
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.read(|| self.history.look(&self.readers)).await
    }

    fn watch_head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn versions(&self, streams: &[StreamId]) -> Result<Vec<u64>, StoreError> {
        let names: Vec<&str> = streams.iter().map(StreamId::as_str).collect();
        let versions: Vec<i64> = self
            .read(|| {
                sqlx::query_scalar(
                    "SELECT coalesce((SELECT version FROM watchword.events WHERE stream = s.name
                         ORDER BY version DESC LIMIT 1), 0)
                     FROM unnest($1::text[]) WITH ORDINALITY s (name, place) ORDER BY place",
                )
                .bind(&names)
                .fetch_all(&self.readers)
            })
            .await?;
        Ok(versions.into_iter().map(i64::cast_unsigned).collect())
    }

    async fn claim_owner(&self, claim: &Claim) -> Result<Option<StreamId>, StoreError> {
        let owner: Option<String> = self
            .read(|| {
                sqlx::query_scalar("SELECT owner FROM watchword.claims WHERE kind = $1 AND key = $2")
                    .bind(&claim.kind)
                    .bind(&claim.key)
                    .fetch_optional(&self.readers)
            })
            .await?;
        Ok(owner.map(StreamId::from_stored))
    }

    async fn claims(&self, kind: &str, prefix: &str) -> Result<Vec<(Claim, StreamId)>, StoreError> {
        // The highest character, which no key contains.
        let end = format!("{prefix}\u{10FFFF}");
        let rows: Vec<(String, String, String)> = self
            .read(|| {
                sqlx::query_as(
                    "SELECT kind, key, owner FROM watchword.claims
                     WHERE kind = $1 AND key >= $2 AND key < $3 ORDER BY key",
                )
                .bind(kind)
                .bind(prefix)
                .bind(&end)
                .fetch_all(&self.readers)
            })
            .await?;
        let held = |(kind, key, owner)| (Claim { kind, key }, StreamId::from_stored(owner));
        Ok(rows.into_iter().map(held).collect())
    }

    async fn idempotent(&self, key: &[u8; 32]) -> Result<Option<StoredIdempotency>, StoreError> {
        type Stored = (Vec<u8>, i64, i64, Option<Vec<u8>>, Option<Uuid>);
        let row: Option<Stored> = self
            .read(|| {
                sqlx::query_as(
                    "SELECT fingerprint, first, last, mac,
                         (SELECT e.id FROM watchword.events e WHERE e.position = i.last)
                     FROM watchword.idempotency i WHERE key = $1",
                )
                .bind(key.as_slice())
                .fetch_optional(&self.readers)
            })
            .await?;
        let Some((fingerprint, first, last, mac, event)) = row else { return Ok(None) };
        let fingerprint = fingerprint
            .try_into()
            .map_err(|_| StoreError::Damaged("a fingerprint is not 32 bytes long".to_owned()))?;
        let (first, last) = (first.cast_unsigned(), last.cast_unsigned());
        let stored = StoredIdempotency { fingerprint, first, last };
        self.macs.check_idempotency(key, &stored, mac.as_deref()).map_err(StoreError::Damaged)?;
        if let Some(event) = event {
            // If another server does not have it, that is noticed before anybody is told of it.
            self.history.seen.see(last, event);
        }
        Ok(Some(stored))
    }

    async fn forget_idempotency(
        &self,
        after: Option<[u8; 32]>,
        before: Timestamp,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        let after = after.as_ref().map_or(&[][..], |key| key.as_slice());
        let last: Option<Vec<u8>> = self
            .read(|| {
                sqlx::query_scalar("SELECT watchword.forget_idempotency($1, $2, $3)")
                    .bind(after)
                    .bind(before.as_microsecond())
                    .bind(LOOKED_AT)
                    .fetch_one(&self.readers)
            })
            .await?;
        last.map(|key| idempotency_key(&key)).transpose()
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        let row: Option<(i64, Vec<u8>)> = self
            .read(|| {
                sqlx::query_as("SELECT version, state FROM watchword.snapshots WHERE stream = $1")
                    .bind(stream.as_str())
                    .fetch_optional(&self.readers)
            })
            .await?;
        Ok(row.map(|(version, state)| Snapshot { version: version.cast_unsigned(), state }))
    }

    async fn load_snapshots(&self, streams: &[StreamId]) -> Result<Vec<Option<Snapshot>>, StoreError> {
        let names: Vec<&str> = streams.iter().map(StreamId::as_str).collect();
        let rows: Vec<(Option<i64>, Option<Vec<u8>>)> = self
            .read(|| {
                sqlx::query_as(
                    "SELECT k.version, k.state FROM unnest($1::text[]) WITH ORDINALITY s (name, place)
                     LEFT JOIN watchword.snapshots k ON k.stream = s.name ORDER BY s.place",
                )
                .bind(&names)
                .fetch_all(&self.readers)
            })
            .await?;
        let kept = |(version, state): (Option<i64>, Option<Vec<u8>>)| {
            Some(Snapshot { version: version?.cast_unsigned(), state: state? })
        };
        Ok(rows.into_iter().map(kept).collect())
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<(), StoreError> {
        self.read(|| {
            sqlx::query("SELECT watchword.keep_snapshot($1, $2, $3)")
                .bind(stream.as_str())
                .bind(snapshot.version.cast_signed())
                .bind(&snapshot.state)
                .execute(&self.readers)
        })
        .await?;
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<StreamId>, StoreError> {
        let streams: Vec<String> = self
            .read(|| {
                sqlx::query_scalar("SELECT stream FROM watchword.snapshots ORDER BY stream")
                    .fetch_all(&self.readers)
            })
            .await?;
        Ok(streams.into_iter().map(StreamId::from_stored).collect())
    }

    async fn cursor_position(&self, effect: &str) -> Result<Option<u64>, StoreError> {
        let known: Option<i64> = self
            .read(|| {
                sqlx::query_scalar("SELECT position FROM watchword.effects WHERE name = $1")
                    .bind(effect)
                    .fetch_optional(&self.readers)
            })
            .await?;
        Ok(known.map(i64::cast_unsigned))
    }

    async fn hold_cursor(
        &self,
        effect: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<Option<Cursor>, StoreError> {
        let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let held: Option<(i64, i64)> = self
            .read(|| {
                sqlx::query_as(
                    "INSERT INTO watchword.effects AS e
                     VALUES ($1, coalesce((SELECT max(position) FROM watchword.events), 0), 1, $2,
                         clock_timestamp() + $3 * interval '1 millisecond')
                     ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until,
                         epoch = CASE WHEN e.holder = excluded.holder THEN e.epoch
                             WHEN e.epoch < 9223372036854775807 THEN e.epoch + 1 ELSE 1 END
                     WHERE e.holder IS NULL OR e.holder = excluded.holder OR e.until < clock_timestamp()
                         OR e.until > clock_timestamp() + $4 * interval '1 millisecond'
                     RETURNING e.position, e.epoch",
                )
                .bind(effect)
                .bind(holder)
                .bind(milliseconds(lasts.min(LONGEST_HOLD)))
                .bind(milliseconds(LONGEST_HOLD))
                .fetch_optional(&self.readers)
            })
            .await?;
        let cursor = |(position, epoch): (i64, i64)| Cursor {
            position: position.cast_unsigned(),
            epoch: epoch.cast_unsigned(),
        };
        Ok(held.map(cursor))
    }

    async fn move_cursor(&self, effect: &str, cursor: Cursor) -> Result<bool, StoreError> {
        let moved = self
            .read(|| {
                sqlx::query("UPDATE watchword.effects SET position = $3 WHERE name = $1 AND epoch = $2")
                    .bind(effect)
                    .bind(cursor.epoch.cast_signed())
                    .bind(cursor.position.cast_signed())
                    .execute(&self.readers)
            })
            .await?;
        Ok(moved.rows_affected() > 0)
    }

    async fn release_cursor(&self, effect: &str, cursor: Cursor) -> Result<(), StoreError> {
        self.read(|| {
            sqlx::query("UPDATE watchword.effects SET holder = NULL WHERE name = $1 AND epoch = $2")
                .bind(effect)
                .bind(cursor.epoch.cast_signed())
                .execute(&self.readers)
        })
        .await?;
        Ok(())
    }
}

/// A number for a comparison in SQL: nothing exists beyond PostgreSQL's range.
fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
