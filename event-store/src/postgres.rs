//! The journal in a PostgreSQL database, which several nodes share.
//!
//! All appends of a node go through one task, which sends the queued ones to one function of the database. The function
//! takes a lock and keeps it until the commit, so that positions have no gaps and follow the order of the commits,
//! however many nodes write.
//! Longer than most, as the whole trait of the journal is one `impl`.

use std::fmt;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{StreamId, Timestamp, UserId};
use schemas::envelope::RecordedEvent;
use sqlx::postgres::{PgConnectOptions, PgExecutor, PgPool, PgRow};
use sqlx::{ConnectOptions, Row};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::journal::{
    Append, AppendError, Appended, Claim, Cursor, Journal, OpenError, Snapshot, StoreError,
    StoredIdempotency, before_damage, idempotency_key,
};
use crate::mac::{Macs, Row as EventRow};
use crate::measure;
use crate::requests;
use role::RoleName;
use schema::Schema;
use ticket::Ticket;
use writer::{Connected, Request, Writer};

mod batch;
mod head;
mod known;
mod reach;
pub mod role;
pub(crate) mod schema;
mod server;
pub(crate) mod session;
mod tail;
mod ticket;
mod upgrade;
mod writer;

pub use reach::Reach;
pub use schema::Migrated;
pub use server::{EventRights, PostgresServer};
pub use session::{PostgresSettings, is_away};

const SCHEMA: Schema = Schema {
    what: "Watchword journal",
    name: "watchword",
    migrations: &[
        include_str!("postgres/journal_1.sql"),
        include_str!("postgres/journal_2.sql"),
        include_str!("postgres/journal_3.sql"),
        include_str!("postgres/journal_4.sql"),
        include_str!("postgres/journal_5.sql"),
    ],
};

/// The format since which events carry MACs.
const FORMAT_WITH_MACS: u32 = 5;

/// How many idempotency keys are examined at a time to forget old ones.
const LOOKED_AT: i32 = 1000;

/// How many appends can queue for the writer; further ones wait for a place.
const QUEUE: usize = 1024;

/// Where a PostgreSQL database is, and how to log in: `postgres://user:password@host:5432/database?sslmode=verify-full`.
///
/// `Display` and `Debug` omit user, password and parameters.
#[derive(Clone)]
pub struct PostgresUrl(PgConnectOptions, RoleName);

/// The text is not a URL of a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PostgreSQL URL such as postgres://user:password@host:5432/database: {0}")]
pub struct InvalidPostgresUrl(String);

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(InvalidPostgresUrl("it does not start with postgres://".to_owned()));
        }
        let options: PgConnectOptions =
            text.parse().map_err(|error: sqlx::Error| InvalidPostgresUrl(error.to_string()))?;
        if options.get_database().is_none() {
            return Err(InvalidPostgresUrl("it names no database".to_owned()));
        }
        Ok(Self(options.application_name("watchword").disable_statement_logging(), RoleName::default()))
    }
}

impl PostgresUrl {
    /// The role that connections work as, whichever user logs in.
    pub fn role(&self) -> &RoleName {
        &self.1
    }

    /// The same database, with another role.
    #[must_use]
    pub fn with_role(self, role: RoleName) -> Self {
        Self(self.0, role)
    }

    /// The options that sqlx connects with.
    pub fn options(&self) -> &PgConnectOptions {
        &self.0
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.0.get_database().unwrap_or_default();
        match self.0.get_socket() {
            Some(socket) => write!(f, "postgres://{}/{database}", socket.display()),
            None => write!(f, "postgres://{}:{}/{database}", self.0.get_host(), self.0.get_port()),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A journal in a PostgreSQL database.
pub struct PostgresJournal {
    requests: mpsc::Sender<Request>,
    readers: PgPool,
    reach: Arc<Reach>,
    answer: Duration,
    head: watch::Receiver<u64>,
    macs: Macs,
    follower: AbortHandle,
}

impl PostgresJournal {
    /// Creates or upgrades the journal's tables. Requires a user who may change the database.
    pub async fn migrate(url: &PostgresUrl, settings: &PostgresSettings) -> Result<Migrated, OpenError> {
        SCHEMA.prepare(url, settings, &url.to_string()).await.map(|prepared| prepared.migrated)
    }

    /// What [`PostgresJournal::migrate`] would do. Changes nothing.
    pub async fn look(url: &PostgresUrl, settings: &PostgresSettings) -> Result<Migrated, OpenError> {
        SCHEMA.look(&url.0, settings, &url.to_string()).await
    }

    /// Refuses a journal whose format is from before MACs if the instance's key store says that its events carry them.
    pub fn check_has_macs(
        url: &PostgresUrl,
        Migrated { from: found, .. }: Migrated,
    ) -> Result<(), OpenError> {
        if (1..FORMAT_WITH_MACS).contains(&found) {
            return Err(OpenError::WithoutMacs { path: url.to_string(), found });
        }
        Ok(())
    }

    /// Opens the journal in this database, after [`PostgresJournal::migrate`].
    ///
    /// Tables of something else, a newer journal, and an older one that this user may not upgrade are refused and left
    /// unchanged. From here on, all connections work as the role of the URL, `watchword_service` by default, or as the
    /// user itself if it owns the tables and cannot use that role.
    ///
    /// The events of an older journal get their MACs, only from the owner of its tables and only if `macs` are those of
    /// a key store that does not yet say that this was done: see [`KeyStore::mark`](crate::KeyStore::mark). This may be
    /// interrupted at any moment, and continues at the next opening.
    pub async fn open(url: &PostgresUrl, settings: PostgresSettings, macs: &Macs) -> Result<Self, OpenError> {
        let place = url.to_string();
        let failed = |error: sqlx::Error| session::not_opened(&place, &error);
        let found = Self::look(url, &settings).await?;
        if !macs.believes_checksums() {
            Self::check_has_macs(url, found)?;
        }
        let prepared = SCHEMA.prepare(url, &settings, &place).await?;
        let settings = PostgresSettings { role: prepared.role, ..settings };
        if macs.believes_checksums() {
            upgrade::prove(&url.0, macs).await.map_err(|failure| match failure {
                upgrade::Failure::Failed(error) => failed(error),
                upgrade::Failure::Forbidden => OpenError::Failed {
                    path: place.clone(),
                    reason: "its events carry no MACs yet, and its user may not add them. Run `watchword \
                             migrate` as the owner of the database"
                        .to_owned(),
                },
            })?;
        }
        let connection = settings.connect(&url.0).await.map_err(failed)?;
        let readers = settings.pool(&url.0);
        warn_of_unsafe_settings(&readers).await.map_err(failed)?;
        let (head_sender, head) = watch::channel(read_head(&readers).await.map_err(failed)?);
        let head_sender = Arc::new(head_sender);
        let (requests, queue) = mpsc::channel(QUEUE);
        let writer = Writer {
            options: url.0.clone(),
            settings: settings.clone(),
            connection: Some(Connected::new(connection)),
            head: Arc::clone(&head_sender),
            macs: macs.believing_nothing_else(),
        };
        tokio::spawn(writer.run(queue));
        let reach = Arc::new(Reach::new(&url.0, &settings));
        let answer = settings.answer;
        let follower = head::follow(readers.clone(), settings, Arc::clone(&reach), head_sender);
        let follower = tokio::spawn(follower);
        let macs = macs.believing_nothing_else();
        Ok(Self { requests, readers, reach, answer, head, macs, follower: follower.abort_handle() })
    }

    async fn read<T, F>(&self, run: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>> + Send,
    {
        Ok(self.reach.retried(run).await?)
    }
}

impl Drop for PostgresJournal {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

async fn read_head(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let head: Option<i64> =
        sqlx::query_scalar("SELECT max(position) FROM watchword.events").fetch_one(pool).await?;
    Ok(head.unwrap_or(0).cast_unsigned())
}

/// A server configured without protection against power loss may lose what it acknowledged.
async fn warn_of_unsafe_settings(pool: &PgPool) -> Result<(), sqlx::Error> {
    let off = unsafe_settings(pool).await?;
    if !off.is_empty() {
        tracing::warn!(?off, "the database may lose acknowledged writes: turn these settings on");
    }
    Ok(())
}

async fn unsafe_settings<'e>(executor: impl PgExecutor<'e>) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'",
    )
    .fetch_all(executor)
    .await
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let ticket = Arc::new(Ticket::default());
        let append = requests::append(&self.requests, append, |append, answer| Request::Append {
            append,
            answer,
            ticket: Arc::clone(&ticket),
        });
        let mut append = pin!(timeout(self.answer, append));
        let appended = tokio::select! {
            biased;
            appended = &mut append => appended,
            // The writer may be busy with what it sent earlier: what waits behind that need not wait longer.
            refusal = self.reach.refusal() => {
                if ticket.withdraw() {
                    return Err(AppendError::Unavailable(refusal.to_string()));
                }
                append.await
            }
        };
        appended.unwrap_or_else(|_| {
            let silent = "the database does not answer".to_owned();
            // What the writer took may still be written: it sends it until it knows the outcome.
            Err(if ticket.withdraw() {
                AppendError::Unavailable(silent)
            } else {
                AppendError::Unknown(silent)
            })
        })
    }

    fn measure(&self) {
        let pool = &self.readers;
        measure::pool("journal", pool.size(), pool.num_idle(), pool.options().get_max_connections());
        measure::queue(self.requests.max_capacity() - self.requests.capacity());
    }

    async fn close(&self) {
        self.follower.abort();
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

    async fn head(&self) -> Result<u64, StoreError> {
        self.read(|| read_head(&self.readers)).await
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
        let row: Option<(Vec<u8>, i64, i64, Option<Vec<u8>>)> = self
            .read(|| {
                sqlx::query_as(
                    "SELECT fingerprint, first, last, mac FROM watchword.idempotency WHERE key = $1",
                )
                .bind(key.as_slice())
                .fetch_optional(&self.readers)
            })
            .await?;
        let Some((fingerprint, first, last, mac)) = row else { return Ok(None) };
        let fingerprint = fingerprint
            .try_into()
            .map_err(|_| StoreError::Damaged("a fingerprint is not 32 bytes long".to_owned()))?;
        let (first, last) = (first.cast_unsigned(), last.cast_unsigned());
        let stored = StoredIdempotency { fingerprint, first, last };
        self.macs.check_idempotency(key, &stored, mac.as_deref()).map_err(StoreError::Damaged)?;
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
        let lasts = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX);
        let held: Option<(i64, i64)> = self
            .read(|| {
                sqlx::query_as(
                    "INSERT INTO watchword.effects AS e
                     VALUES ($1, coalesce((SELECT max(position) FROM watchword.events), 0), 1, $2,
                         clock_timestamp() + $3 * interval '1 millisecond')
                     ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until,
                         epoch = e.epoch + CASE WHEN e.holder = excluded.holder THEN 0 ELSE 1 END
                     WHERE e.holder IS NULL OR e.holder = excluded.holder OR e.until < clock_timestamp()
                     RETURNING e.position, e.epoch",
                )
                .bind(effect)
                .bind(holder)
                .bind(lasts)
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

/// A row of events, as it is stored.
struct Columns<'r> {
    position: i64,
    id: Uuid,
    stream: &'r str,
    version: i64,
    name: &'r str,
    schema_version: i32,
    at: i64,
    app_id: &'r str,
    metadata: &'r str,
    data: &'r str,
    person: Option<Uuid>,
    personal: Option<&'r [u8]>,
    mac: Option<&'r [u8]>,
}

impl Columns<'_> {
    /// Everything except its position.
    fn event(&self) -> EventRow<'_> {
        EventRow {
            id: self.id.as_bytes(),
            stream: self.stream,
            version: self.version,
            name: self.name,
            schema_version: self.schema_version.into(),
            at: self.at,
            app_id: self.app_id,
            metadata: self.metadata,
            data: self.data,
            person: self.person.as_ref().map(|person| person.as_bytes().as_slice()),
            personal: self.personal,
        }
    }
}

fn columns(row: &PgRow) -> Result<Columns<'_>, sqlx::Error> {
    Ok(Columns {
        position: row.try_get("position")?,
        id: row.try_get("id")?,
        stream: row.try_get("stream")?,
        version: row.try_get("version")?,
        name: row.try_get("type")?,
        schema_version: row.try_get("schema_version")?,
        at: row.try_get("at")?,
        app_id: row.try_get("app_id")?,
        metadata: row.try_get("metadata")?,
        data: row.try_get("data")?,
        person: row.try_get("person")?,
        personal: row.try_get("personal")?,
        mac: row.try_get("mac")?,
    })
}

impl PostgresJournal {
    fn recorded(&self, row: &PgRow) -> Result<RecordedEvent, StoreError> {
        let position: i64 = row.try_get("position")?;
        let damaged =
            |what: &str| StoreError::Damaged(format!("the {what} of event {position} cannot be read"));
        let columns = columns(row).map_err(|error| self.macs.unreadable(position, &error))?;
        self.macs.check_event(position, 0, &columns.event(), columns.mac)?;
        Ok(RecordedEvent {
            position: position.cast_unsigned(),
            id: columns.id,
            stream: StreamId::from_stored(columns.stream.to_owned()),
            version: columns.version.cast_unsigned(),
            name: columns.name.to_owned(),
            schema_version: u16::try_from(columns.schema_version).map_err(|_| damaged("schema version"))?,
            at: Timestamp::from_microsecond(columns.at).map_err(|_| damaged("time"))?,
            metadata: serde_json::from_str(columns.metadata).map_err(|_| damaged("metadata"))?,
            data: columns.data.to_owned(),
            person: columns.person.map(UserId),
            personal: columns.personal.map(<[u8]>::to_vec),
        })
    }
}
