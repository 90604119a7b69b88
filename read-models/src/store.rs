//! The file that holds the read models.

use std::path::Path;
use std::sync::Arc;

use domain::UserId;
use event_store::sqlite::file::looking;
use event_store::{Journal, LookupKey, Sealer, StoreError};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row, SqliteConnection, TypeInfo, ValueRef};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use uuid::Uuid;

use crate::audit_log::{AuditLog, AuditLogProjector};
use crate::login_checks::{LoginChecks, LoginChecksProjector};
use crate::projector::{ApplyError, ProjectedEvent, Projector, key};
use crate::rows::{self, stored};
use crate::sessions::{Sessions, SessionsProjector};
use crate::stats::{Stats, StatsProjector};
use crate::users::{Users, UsersProjector};

/// "WWRM": Watchword read models.
const APPLICATION_ID: i64 = 0x5757_524d;
const READERS: u32 = 4;

/// Why the read models were not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something else is in the file.
    #[error("{0} is no read-models file of Watchword: choose another path, or move that file away")]
    Foreign(String),
    /// It cannot be read or made.
    #[error(
        "{path} cannot be opened. It holds derived data only: if it is damaged, delete it and its -wal and -shm files, \
         and it is rebuilt from the journal at the next start"
    )]
    Failed {
        /// Which file.
        path: String,
        /// What the database said.
        source: sqlx::Error,
    },
}

/// How far a projector has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The read model and the version of its tables.
    pub projector: String,
    /// The position of the last event that is applied; 0 before the first.
    pub position: u64,
    /// That event's id, unless an older version of Watchword applied it.
    pub event: Option<Uuid>,
}

/// Why a read model cannot follow a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It was built from another one, or from a newer copy of it.
    #[error(
        "the read model was built from another journal: event {position}, the last it has applied, is not the one that \
         this journal has there. Stop the server; then put back the journal it belongs to, or delete read-models.db: \
         it is built anew from the journal at the next start"
    )]
    Other {
        /// The position of the last event that is applied.
        position: u64,
    },
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[from] StoreError),
}

impl Checkpoint {
    /// Whether what was applied is how this journal begins: the log never changes, so one event tells.
    pub async fn check_journal(&self, journal: &dyn Journal) -> Result<(), JournalError> {
        let position = self.position;
        if position > journal.head().await? {
            return Err(JournalError::Other { position });
        }
        let Some(applied) = self.event else { return Ok(()) };
        let found = journal.read_positions(&[position]).await?;
        if found.first().is_some_and(|event| event.id == applied) {
            Ok(())
        } else {
            Err(JournalError::Other { position })
        }
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The cursor is none that this list gave.
    #[error("the cursor is not one of this list")]
    Cursor,
    /// No word of the search is long enough.
    #[error("a search needs an email address, or a word of at least 3 letters or digits")]
    QueryTooShort,
    /// The tables, or the keys that open their rows, cannot be read.
    #[error("the read model cannot be read")]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// All read models. One connection writes, in turns; a few others read.
///
/// The file is written with `synchronous=NORMAL`, unlike the journal: after a power loss it may have forgotten its
/// newest transactions, rows and checkpoints alike, and the projectors apply those events again.
pub struct ReadModels {
    // Absent once it is closed.
    writer: Mutex<Option<SqliteConnection>>,
    readers: SqlitePool,
    sealer: Arc<Sealer>,
    lookup: Arc<LookupKey>,
}

impl ReadModels {
    /// The checkpoints in the file. Changes nothing, neither in it nor beside it, even where its last writer was
    /// killed. Refuses what [`ReadModels::open`] refuses. Only while nobody writes it.
    pub async fn look(path: &Path) -> Result<Vec<Checkpoint>, OpenError> {
        let failed = |source| OpenError::Failed { path: path.display().to_string(), source };
        let mut connection = looking(path).connect().await.map_err(failed)?;
        if !is_ours_or_empty(&mut connection).await.map_err(failed)? {
            return Err(OpenError::Foreign(path.display().to_string()));
        }
        let checkpoints = read_checkpoints(&mut connection).await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        Ok(checkpoints)
    }

    /// Opens the file, making it and its tables if they are not there. What is refused is not touched.
    pub async fn open(path: &Path, sealer: Arc<Sealer>, lookup: Arc<LookupKey>) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Failed { path: path.display().to_string(), source };
        if path.exists() {
            Self::look(path).await?;
        }
        let options =
            SqliteConnectOptions::new().filename(path).busy_timeout(std::time::Duration::from_secs(5));
        let mut writer = options.clone().create_if_missing(true).connect().await.map_err(failed)?;
        prepare(&mut writer).await.map_err(failed)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;
        let models = Self { writer: Mutex::new(Some(writer)), readers, sealer, lookup };
        for projector in models.projectors() {
            models.create(&*projector).await.map_err(failed)?;
        }
        Ok(models)
    }

    /// Ends all connections, so that nothing is left beside the file; what follows fails.
    pub async fn close(&self) {
        self.readers.close().await;
        // The last connection moves the log into the file. It is no harm if that cannot be done.
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.close().await
        {
            tracing::warn!(%error, "the read models could not close their file");
        }
    }

    /// Whether they can be read.
    pub async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT projector, position FROM checkpoints").fetch_all(&self.readers).await?;
        Ok(())
    }

    /// Whether what a projector has applied is how this journal begins.
    pub async fn check_journal(
        &self,
        projector: &dyn Projector,
        journal: &dyn Journal,
    ) -> Result<(), JournalError> {
        let key = key(projector);
        let checkpoints =
            read_checkpoints(&mut *self.readers.acquire().await.map_err(StoreError::from)?).await;
        match checkpoints.map_err(StoreError::from)?.iter().find(|checkpoint| checkpoint.projector == key) {
            Some(checkpoint) => checkpoint.check_journal(journal).await,
            None => Ok(()),
        }
    }

    /// The one connection that writes.
    async fn writer(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, sqlx::Error> {
        MutexGuard::try_map(self.writer.lock().await, Option::as_mut).map_err(|_| sqlx::Error::PoolClosed)
    }

    /// Every read model's projector.
    pub fn projectors(&self) -> Vec<Arc<dyn Projector>> {
        vec![
            Arc::new(LoginChecksProjector::new(self.lookup.clone())),
            Arc::new(UsersProjector::new(self.sealer.clone(), self.lookup.clone())),
            Arc::new(SessionsProjector::new(self.sealer.clone())),
            Arc::new(StatsProjector),
            Arc::new(AuditLogProjector),
        ]
    }

    /// Where a login finds its user.
    pub fn login_checks(&self) -> LoginChecks<'_> {
        LoginChecks::new(&self.readers, &self.lookup)
    }

    /// The users of an app.
    pub fn users(&self) -> Users<'_> {
        Users::new(&self.readers, &self.sealer, &self.lookup)
    }

    /// The sessions of a user.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions::new(&self.readers, &self.sealer)
    }

    /// Counts by time.
    pub fn stats(&self) -> Stats<'_> {
        Stats::new(&self.readers)
    }

    /// Who did what, and when.
    pub fn audit_log(&self) -> AuditLog<'_> {
        AuditLog::new(&self.readers)
    }

    /// Makes a projector's tables and checkpoint, if they are not there.
    pub async fn create(&self, projector: &dyn Projector) -> Result<(), sqlx::Error> {
        let mut writer = self.writer().await?;
        let mut tx = writer.begin().await?;
        make_tables(&mut tx, projector).await?;
        tx.commit().await
    }

    /// The position of the last event that a projector has applied.
    pub async fn checkpoint(&self, projector: &dyn Projector) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        Ok(read_checkpoint(&mut writer, &key(projector)).await?)
    }

    /// Applies a batch and moves the checkpoint on, both or neither.
    pub async fn apply(
        &self,
        projector: &dyn Projector,
        batch: &[ProjectedEvent],
    ) -> Result<u64, ApplyError> {
        let key = key(projector);
        let mut writer = self.writer().await?;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let mut checkpoint = read_checkpoint(&mut tx, &key).await?;
        for event in batch {
            let (expected, found) = (checkpoint + 1, event.position());
            if found != expected {
                return Err(ApplyError::Gap { expected, found });
            }
            checkpoint = found;
        }
        if batch.is_empty() {
            return Ok(checkpoint);
        }
        projector.project(&mut tx, batch).await?;
        sqlx::query("UPDATE checkpoints SET position = ?2, event = ?3 WHERE projector = ?1")
            .bind(&key)
            .bind(stored(checkpoint))
            .bind(batch.last().map(|event| event.recorded.id.as_bytes().to_vec()))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(checkpoint)
    }

    /// Forgets all that a projector has written: it starts again at the first event.
    pub async fn reset(&self, projector: &dyn Projector) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        for table in projector.tables() {
            sqlx::query(AssertSqlSafe(format!("DROP TABLE IF EXISTS {table}"))).execute(&mut *tx).await?;
        }
        sqlx::query("DELETE FROM checkpoints WHERE projector = ?1")
            .bind(key(projector))
            .execute(&mut *tx)
            .await?;
        make_tables(&mut tx, projector).await?;
        tx.commit().await?;
        Ok(())
    }

    /// All rows of a read model as text, in an order of their own, sealed members opened: equal for two builds of
    /// the same prefix of the log, though sealing is random. For comparing builds; it holds personal data.
    pub async fn dump(&self, projector: &dyn Projector) -> Result<String, StoreError> {
        let mut text = String::new();
        for table in projector.tables() {
            let rows = sqlx::query(AssertSqlSafe(format!("SELECT * FROM {table}")))
                .fetch_all(&mut *self.writer().await?)
                .await?;
            let mut lines = Vec::with_capacity(rows.len());
            for row in &rows {
                lines.push(self.dump_row(table, row).await?);
            }
            lines.sort_unstable();
            text.push_str(table);
            text.push('\n');
            for line in lines {
                text.push_str("  ");
                text.push_str(&line);
                text.push('\n');
            }
        }
        Ok(text)
    }

    async fn dump_row(&self, table: &str, row: &SqliteRow) -> Result<String, StoreError> {
        let mut cells = Vec::new();
        for column in row.columns() {
            let index = column.ordinal();
            let value = row.try_get_raw(index)?;
            let kind = value.type_info().name().to_owned();
            let cell = if value.is_null() {
                "null".to_owned()
            } else if column.name() == "sealed" {
                let row_id = rows::id(row.try_get::<&[u8], _>(0)?)?;
                let person = UserId(rows::id(row.try_get::<&[u8], _>("user_id")?)?);
                let personal =
                    rows::open(&self.sealer, table, row_id, person, Some(row.try_get(index)?)).await?;
                serde_json::to_string(&personal).expect("personal data is plain JSON")
            } else {
                match kind.as_str() {
                    "BLOB" => rows::hex(row.try_get(index)?),
                    "TEXT" => row.try_get::<String, _>(index)?,
                    _ => row.try_get::<i64, _>(index)?.to_string(),
                }
            };
            cells.push(format!("{}={cell}", column.name()));
        }
        Ok(cells.join(" "))
    }
}

async fn is_ours_or_empty(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(connection).await?;
    Ok(id == APPLICATION_ID || (id == 0 && tables == 0))
}

async fn prepare(writer: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let statements = [
        format!("PRAGMA application_id = {APPLICATION_ID}"),
        "PRAGMA journal_mode = WAL".to_owned(),
        "PRAGMA synchronous = NORMAL".to_owned(),
        // What a statement needs for a while is nobody's business outside this folder.
        "PRAGMA temp_store = MEMORY".to_owned(),
        "PRAGMA cache_size = -16384".to_owned(),
        "CREATE TABLE IF NOT EXISTS checkpoints (projector TEXT PRIMARY KEY, position INTEGER NOT NULL, event BLOB) STRICT"
            .to_owned(),
    ];
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *writer).await?;
    }
    // Files made before checkpoints named their event.
    if !names_events(writer).await? {
        sqlx::query("ALTER TABLE checkpoints ADD COLUMN event BLOB").execute(writer).await?;
    }
    Ok(())
}

async fn names_events(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) > 0 FROM pragma_table_info('checkpoints') WHERE name = 'event'")
        .fetch_one(connection)
        .await
}

async fn read_checkpoints(connection: &mut SqliteConnection) -> Result<Vec<Checkpoint>, sqlx::Error> {
    let is_there: bool =
        sqlx::query_scalar("SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'checkpoints'")
            .fetch_one(&mut *connection)
            .await?;
    if !is_there {
        return Ok(vec![]);
    }
    let statement = if names_events(connection).await? {
        "SELECT projector, position, event FROM checkpoints ORDER BY projector"
    } else {
        "SELECT projector, position, NULL FROM checkpoints ORDER BY projector"
    };
    let rows: Vec<(String, i64, Option<Vec<u8>>)> = sqlx::query_as(statement).fetch_all(connection).await?;
    let checkpoint = |(projector, position, event): (String, i64, Option<Vec<u8>>)| Checkpoint {
        projector,
        position: position.cast_unsigned(),
        // What is no id is that of no event.
        event: event.map(|bytes| Uuid::from_slice(&bytes).unwrap_or_default()),
    };
    Ok(rows.into_iter().map(checkpoint).collect())
}

async fn make_tables(tx: &mut SqliteConnection, projector: &dyn Projector) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(projector.ddl()).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO checkpoints (projector, position) VALUES (?1, 0) ON CONFLICT DO NOTHING")
        .bind(key(projector))
        .execute(tx)
        .await?;
    Ok(())
}

async fn read_checkpoint(connection: &mut SqliteConnection, key: &str) -> Result<u64, sqlx::Error> {
    let position: Option<i64> = sqlx::query_scalar("SELECT position FROM checkpoints WHERE projector = ?1")
        .bind(key)
        .fetch_optional(connection)
        .await?;
    Ok(position.unwrap_or(0).cast_unsigned())
}
