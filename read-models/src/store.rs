//! The file that holds the read models.

use std::path::Path;
use std::sync::Arc;

use domain::UserId;
use event_store::{LookupKey, Sealer, StoreError};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row, SqliteConnection, TypeInfo, ValueRef};
use tokio::sync::Mutex;

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
    writer: Mutex<SqliteConnection>,
    readers: SqlitePool,
    sealer: Arc<Sealer>,
    lookup: Arc<LookupKey>,
}

impl ReadModels {
    /// Opens the file, making it and its tables if they are not there.
    pub async fn open(path: &Path, sealer: Arc<Sealer>, lookup: Arc<LookupKey>) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Failed { path: path.display().to_string(), source };
        let options =
            SqliteConnectOptions::new().filename(path).busy_timeout(std::time::Duration::from_secs(5));
        let mut writer = options.clone().create_if_missing(true).connect().await.map_err(failed)?;
        let foreign = !is_ours_or_empty(&mut writer).await.map_err(failed)?;
        if foreign {
            return Err(OpenError::Foreign(path.display().to_string()));
        }
        prepare(&mut writer).await.map_err(failed)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;
        let models = Self { writer: Mutex::new(writer), readers, sealer, lookup };
        for projector in models.projectors() {
            models.create(&*projector).await.map_err(failed)?;
        }
        Ok(models)
    }

    /// Ends all connections; what follows fails.
    pub async fn close(&self) {
        self.readers.close().await;
        // Checkpointing now leaves a next start nothing to recover. It is no harm if it cannot be done.
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *self.writer.lock().await).await;
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
        let mut writer = self.writer.lock().await;
        let mut tx = writer.begin().await?;
        make_tables(&mut tx, projector).await?;
        tx.commit().await
    }

    /// The position of the last event that a projector has applied.
    pub async fn checkpoint(&self, projector: &dyn Projector) -> Result<u64, StoreError> {
        let mut writer = self.writer.lock().await;
        Ok(read_checkpoint(&mut writer, &key(projector)).await?)
    }

    /// Applies a batch and moves the checkpoint on, both or neither.
    pub async fn apply(
        &self,
        projector: &dyn Projector,
        batch: &[ProjectedEvent],
    ) -> Result<u64, ApplyError> {
        let key = key(projector);
        let mut writer = self.writer.lock().await;
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
        sqlx::query("UPDATE checkpoints SET position = ?2 WHERE projector = ?1")
            .bind(&key)
            .bind(stored(checkpoint))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(checkpoint)
    }

    /// Forgets all that a projector has written: it starts again at the first event.
    pub async fn reset(&self, projector: &dyn Projector) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
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
                .fetch_all(&mut *self.writer.lock().await)
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
        "PRAGMA cache_size = -16384".to_owned(),
        "CREATE TABLE IF NOT EXISTS checkpoints (projector TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT"
            .to_owned(),
    ];
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *writer).await?;
    }
    Ok(())
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
