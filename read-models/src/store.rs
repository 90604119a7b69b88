//! All read models and the checkpoints of their projectors.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use domain::{LogOrigin, UserId};
use event_store::postgres::blocked::while_at_work;
use event_store::{BuildKey, Journal, Location, LookupKey, Sealer, StoreError, TreeKey};

use crate::checkpoint::{Checkpoint, JournalError};
use crate::database::{self, Database, OpenError};
use crate::leases::{Lease, Leases, Node, Standing, milliseconds};
use crate::places::{self, Places};
use crate::projector::{ApplyError, ProjectedEvent, Projector, key};
use crate::rows;
use crate::sql::{Kind, Query, Row, Transaction, Value};

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The cursor did not come from this list.
    #[error("the cursor is not from this list")]
    Cursor,
    /// The search has no word.
    #[error("a search needs a letter or a digit")]
    QueryWithoutWord,
    /// The tables, or the keys that open their rows, cannot be read.
    #[error("the read model cannot be read")]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// All read models.
pub struct ReadModels {
    pub(crate) places: Places,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) lookup: Arc<LookupKey>,
    pub(crate) tree_key: TreeKey,
    pub(crate) build_key: BuildKey,
    pub(crate) origin: Arc<OnceLock<LogOrigin>>,
}

impl ReadModels {
    /// Opens the read models in a file, or in the schema `watchword_read` of a PostgreSQL database, and creates missing
    /// tables. The URL's `sslmode` says whether the connection to a server is encrypted and the server verified.
    pub async fn open(
        location: &Location,
        sealer: Arc<Sealer>,
        lookup: Arc<LookupKey>,
    ) -> Result<Self, OpenError> {
        let opening = async {
            let places = Box::pin(Places::open(location)).await?;
            let tree_key = TreeKey::new(sealer.keys().instance_key());
            let build_key = BuildKey::new(sealer.keys().instance_key());
            let models = Self { places, sealer, lookup, tree_key, build_key, origin: Arc::default() };
            for projector in models.projectors() {
                let made = async {
                    models.drop_former(&*projector).await?;
                    models.create(&*projector).await
                };
                made.await.map_err(|source| OpenError::failed(location, source))?;
            }
            Ok(models)
        };
        match location {
            Location::File(_) => opening.await,
            // Somebody may have locked the tables.
            Location::Postgres(url) => {
                while_at_work(url, |source| OpenError::failed(location, source), opening).await
            }
        }
    }

    /// Tells projectors the origin of the journal's events, which is part of their bytes. A new journal gets it only after its
    /// stores were opened.
    pub fn know_origin(&self, origin: &LogOrigin) {
        // It never changes.
        let _ = self.origin.set(origin.clone());
    }

    /// Reports metrics of the connections.
    pub fn measure(&self) {
        self.places.shared().measure();
    }

    /// Looks whether their file, if they are in one, is still the one that was opened. Logs a change.
    pub fn check_files(&self) -> Result<(), StoreError> {
        self.places.all().iter().try_for_each(|database| database.check_files())
    }

    /// Closes all connections; later calls fail.
    pub async fn close(&self) {
        self.places.close().await;
    }

    /// Which node runs which projector; `None` for a file, which belongs to one process.
    pub fn leases(&self) -> Option<Leases> {
        let shared = self.places.shared();
        matches!(**shared, Database::Postgres { .. }).then(|| Leases::new(Arc::clone(shared)))
    }

    /// Reads the checkpoints. Changes nothing, in a file or beside it, even if its last writer was killed. Refuses what
    /// [`ReadModels::open`] refuses. No process may write a file meanwhile.
    pub async fn look(location: &Location) -> Result<Vec<Checkpoint>, OpenError> {
        places::look_at_all(location).await
    }

    /// The files that the read models are in; none in PostgreSQL. Changes nothing.
    pub async fn files(location: &Location) -> Result<Vec<PathBuf>, OpenError> {
        let Location::File(anchor) = location else { return Ok(vec![]) };
        let files = places::files(anchor).await.map_err(|source| OpenError::failed(location, source))?;
        Ok(files.into_values().collect())
    }

    /// The standings of all projectors and the nodes that share them; `None` for a file, which belongs to one process.
    /// Changes nothing; the tables must exist, which [`ReadModels::look`] checks.
    pub async fn look_at_nodes(location: &Location) -> Result<Option<(Vec<Standing>, Vec<Node>)>, OpenError> {
        database::look_at_nodes(location).await
    }

    /// Checks that the read models can be read.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.checkpoints().await.map(drop)
    }

    /// The checkpoints of all projectors.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        Ok(self.places.checkpoints().await?)
    }

    /// Checks that what a projector has applied is the beginning of this journal. A checkpoint that names no event proves nothing:
    /// it is of a file from before they did, or somebody else wrote it.
    pub async fn check_journal(
        &self,
        projector: &dyn Projector,
        journal: &dyn Journal,
    ) -> Result<(), JournalError> {
        let key = key(projector);
        match self.checkpoints().await?.iter().find(|checkpoint| checkpoint.projector == key) {
            Some(Checkpoint { position: position @ 1.., event: None, .. }) => {
                Err(JournalError::Other { position: *position })
            }
            Some(checkpoint) => checkpoint.check_journal(journal).await,
            None => Ok(()),
        }
    }

    /// Where a read model is now.
    pub(crate) fn database_of(&self, model: &str) -> Arc<Database> {
        self.places.of(model)
    }

    /// Drops the tables that a rebuilt read model had in the file that all read models are in at first.
    async fn drop_former(&self, projector: &dyn Projector) -> Result<(), sqlx::Error> {
        if self.places.is_apart(projector.name()) {
            for table in projector.tables() {
                self.places.shared().write(Query::new(format!("DROP TABLE IF EXISTS {table}"))).await?;
            }
        }
        Ok(())
    }

    /// Creates a projector's tables and checkpoint, if they do not exist.
    pub async fn create(&self, projector: &dyn Projector) -> Result<(), sqlx::Error> {
        let _turn = self.places.turn(projector.name()).await;
        let mut tx = self.database_of(projector.name()).begin_ddl().await?;
        tx.make_tables(projector.ddl()).await?;
        tx.run(
            Query::new("INSERT INTO checkpoints (projector, position) VALUES ($1, 0) ON CONFLICT DO NOTHING")
                .bind(key(projector)),
        )
        .await?;
        tx.commit().await
    }

    /// The position of the last event that a projector applied.
    pub async fn checkpoint(&self, projector: &dyn Projector) -> Result<u64, StoreError> {
        let key = key(projector);
        let found = self.checkpoints().await?.into_iter().find(|checkpoint| checkpoint.projector == key);
        Ok(found.map_or(0, |checkpoint| checkpoint.position))
    }

    /// Applies a batch and advances the checkpoint, both or neither, if the lease is still valid.
    pub async fn apply(
        &self,
        projector: &dyn Projector,
        batch: &[ProjectedEvent],
        lease: Lease,
    ) -> Result<u64, ApplyError> {
        let _turn = self.places.turn(projector.name()).await;
        let mut tx = self.database_of(projector.name()).begin().await?;
        let key = key(projector);
        let checkpoint = next_to(&mut tx, &key, batch, lease).await?;
        let Some(last) = batch.last() else { return Ok(checkpoint) };
        projector.project(&mut tx, batch).await?;
        fail::fail_point!("mid-projection", |_| std::process::abort());
        fall_asleep().await;
        move_checkpoint(&mut tx, &key, last, lease).await?;
        tx.commit().await?;
        Ok(last.position())
    }

    /// Deletes everything that a projector has written: it starts again at the first event.
    pub async fn reset(&self, projector: &dyn Projector) -> Result<(), StoreError> {
        let _turn = self.places.turn(projector.name()).await;
        let tx = self.database_of(projector.name()).begin_ddl().await?;
        Ok(empty(tx, projector).await?)
    }

    /// Like [`ReadModels::reset`], by the node that runs the projector, if its lease is still valid.
    pub async fn start_over(&self, projector: &dyn Projector, lease: Lease) -> Result<(), ApplyError> {
        let _turn = self.places.turn(projector.name()).await;
        let mut tx = self.database_of(projector.name()).begin_ddl().await?;
        lock_checkpoint(&mut tx, &key(projector), lease).await?;
        Ok(empty(tx, projector).await?)
    }

    /// All rows of a read model as text, in a fixed order, with sealed members opened: equal for two builds of the same
    /// prefix of the log, although sealing is random. For comparing builds. It contains personal data.
    pub async fn dump(&self, projector: &dyn Projector) -> Result<String, StoreError> {
        let mut text = String::new();
        for table in projector.tables() {
            let database = self.database_of(projector.name());
            let rows = database.read(Query::new(format!("SELECT * FROM {table}"))).await?;
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

    async fn dump_row(&self, table: &str, row: &Row) -> Result<String, StoreError> {
        let mut cells = Vec::new();
        for (column, value) in row.cells()? {
            let cell = match value {
                Value::Bytes(Some(sealed)) if column == "sealed" => {
                    let row_id = rows::id(row.get(0)?)?;
                    let person = UserId(rows::id(row.get("user_id")?)?);
                    let personal = rows::open(&self.sealer, table, row_id, person, Some(&sealed)).await?;
                    serde_json::to_string(&personal).expect("personal data is plain JSON")
                }
                Value::Bytes(Some(bytes)) => hex::encode(bytes),
                Value::Text(Some(text)) => text,
                Value::Int(Some(number)) => number.to_string(),
                Value::Bytes(None) | Value::Text(None) | Value::Int(None) => "null".to_owned(),
            };
            cells.push(format!("{column}={cell}"));
        }
        Ok(cells.join(" "))
    }
}

/// Deletes what a projector has written.
async fn empty(mut tx: Transaction, projector: &dyn Projector) -> Result<(), sqlx::Error> {
    // First, because applying a batch locks the checkpoint before the tables.
    tx.run(
        Query::new("UPDATE checkpoints SET position = 0, event = NULL WHERE projector = $1")
            .bind(key(projector)),
    )
    .await?;
    for table in projector.tables() {
        tx.run(Query::new(format!("DROP TABLE IF EXISTS {table}"))).await?;
    }
    tx.make_tables(projector.ddl()).await?;
    tx.commit().await
}

/// Reads the checkpoint and keeps it unchanged until the transaction ends: in PostgreSQL by a lock on the row, in a
/// file because there is no other writer.
pub(crate) async fn lock_checkpoint(
    tx: &mut Transaction,
    key: &str,
    lease: Lease,
) -> Result<u64, ApplyError> {
    let sql = match tx.kind {
        Kind::Sqlite(_) => "SELECT position, 0 AS epoch FROM checkpoints WHERE projector = $1",
        Kind::Postgres(_) => "SELECT position, epoch FROM checkpoints WHERE projector = $1 FOR UPDATE",
    };
    let found = tx.run(Query::new(sql).bind(key)).await?;
    let row = found.first().ok_or(sqlx::Error::RowNotFound)?;
    if row.get::<i64>("epoch")?.cast_unsigned() != lease.epoch {
        return Err(ApplyError::LeaseLost);
    }
    Ok(row.position("position")?)
}

/// Locks the checkpoint, and checks that the batch starts right after it and has no gap.
pub(crate) async fn next_to(
    tx: &mut Transaction,
    key: &str,
    batch: &[ProjectedEvent],
    lease: Lease,
) -> Result<u64, ApplyError> {
    let checkpoint = lock_checkpoint(tx, key, lease).await?;
    for (expected, event) in (checkpoint + 1..).zip(batch) {
        let found = event.position();
        if found != expected {
            return Err(ApplyError::Gap { expected, found });
        }
    }
    Ok(checkpoint)
}

/// Sleeps for as many milliseconds as a fail point says. The fail point's own `sleep` would block the thread, and with
/// it the requests that the runtime has assigned to that thread.
async fn fall_asleep() {
    let asked = || -> Option<u64> {
        fail::fail_point!("asleep-in-projection", |time| time.and_then(|time| time.parse().ok()));
        None
    };
    if let Some(time) = asked() {
        tokio::time::sleep(Duration::from_millis(time)).await;
    }
}

/// A write also renews its lease.
pub(crate) async fn move_checkpoint(
    tx: &mut Transaction,
    key: &str,
    last: &ProjectedEvent,
    lease: Lease,
) -> Result<(), sqlx::Error> {
    let sql = match tx.kind {
        Kind::Sqlite(_) => "UPDATE checkpoints SET position = $1, event = $2 WHERE projector = $3",
        Kind::Postgres(_) => {
            "UPDATE checkpoints SET position = $1, event = $2, until = clock_timestamp() + $4 * interval '1 millisecond'
             WHERE projector = $3"
        }
    };
    let mut query = Query::new(sql).bind(last.position()).bind(last.recorded.id).bind(key);
    if let Kind::Postgres(_) = tx.kind {
        query = query.bind(milliseconds(lease.lasts));
    }
    tx.run(query).await.map(drop)
}
