//! A new build of one read model, until it takes the place of the live tables.

use std::sync::Arc;

use event_store::{BuildKey, Journal, Repository};

use crate::aside::{self, Aside};
use crate::checkpoint::{Checkpoint, JournalError};
use crate::database::Database;
use crate::filling::{CHUNK, FillError, read};
use crate::leases::Lease;
use crate::projector::{ApplyError, ProjectedEvent, Projector};
use crate::sql::{Kind, Query, Transaction};
use crate::store::{lock_checkpoint, move_checkpoint, next_to};

/// A new build of one read model.
pub(crate) struct Build {
    pub projector: Arc<dyn Projector>,
    pub database: Arc<Database>,
    /// The key of its checkpoint.
    pub key: String,
    /// Marks its checkpoint.
    pub marks: BuildKey,
    /// The names of its tables, if they stand beside the live ones.
    pub aside: Option<Arc<Aside>>,
    pub lease: Lease,
    pub position: u64,
}

impl Build {
    /// A transaction about its tables.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        Ok(self.database.begin().await?.aside(self.aside.clone()))
    }

    /// Creates its checkpoint, if it does not exist: who has the lease of that may write the tables.
    pub async fn register(&self) -> Result<(), sqlx::Error> {
        let insert = "INSERT INTO checkpoints (projector, position) VALUES ($1, 0) ON CONFLICT DO NOTHING";
        self.database.write(Query::new(insert).bind(self.key.as_str())).await.map(drop)
    }

    /// Creates its tables, if they do not exist, without the indexes that nothing needs yet.
    pub async fn create(&self) -> Result<(), sqlx::Error> {
        let tables = aside::without_indexes(self.projector.ddl(), self.projector.indexes_for_writing());
        let mut tx = self.database.begin_ddl().await?.aside(self.aside.clone());
        tx.make_tables(&tables).await?;
        tx.commit().await
    }

    /// Its checkpoint, if that exists.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>, sqlx::Error> {
        let checkpoints = self.database.checkpoints().await?;
        Ok(checkpoints.into_iter().find(|checkpoint| checkpoint.projector == self.key))
    }

    /// The position that an interrupted build has come to; `None` if this instance did not make it, or not from this
    /// journal. That it has the rows of the events up to there is believed only of what this instance wrote.
    pub async fn known(&self, journal: &dyn Journal) -> Result<Option<u64>, JournalError> {
        let checkpoint = self.checkpoint().await.map_err(event_store::StoreError::from)?;
        let Some(Checkpoint { position, event: Some(event), .. }) = checkpoint else { return Ok(None) };
        let query = Query::new("SELECT mark FROM builds WHERE projector = $1").bind(self.key.as_str());
        let found = self.database.read(query).await.map_err(event_store::StoreError::from)?;
        let mark: Vec<u8> = match found.first() {
            Some(row) => row.get("mark").map_err(event_store::StoreError::from)?,
            None => vec![],
        };
        if !self.marks.is_genuine(&self.key, position, event, &mark) {
            return Ok(None);
        }
        match (Checkpoint { projector: self.key.clone(), position, event: Some(event) })
            .check_journal(journal)
            .await
        {
            Ok(()) => Ok(Some(position)),
            Err(JournalError::Other { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Drops the tables that stand beside the live ones, but not the lease.
    pub async fn discard(&self) -> Result<(), sqlx::Error> {
        let mut tx = self.database.begin_ddl().await?;
        let update = "UPDATE checkpoints SET position = 0, event = NULL WHERE projector = $1";
        tx.run(Query::new(update).bind(self.key.as_str())).await?;
        self.unmark(&mut tx).await?;
        tx.make(Aside::drop(&*self.projector)).await?;
        tx.commit().await
    }

    /// Applies consecutive events. `in_bulk` leaves some of it to [`Build::complete`].
    pub async fn apply(&mut self, batch: &[ProjectedEvent], in_bulk: bool) -> Result<(), ApplyError> {
        let Some(last) = batch.last() else { return Ok(()) };
        let mut tx = self.begin().await?;
        next_to(&mut tx, &self.key, batch, self.lease).await?;
        if in_bulk {
            self.projector.project_in_bulk(&mut tx, batch).await?;
        } else {
            self.projector.project(&mut tx, batch).await?;
        }
        fail::fail_point!("mid-rebuild", |_| std::process::abort());
        move_checkpoint(&mut tx, &self.key, last, self.lease).await?;
        self.mark(&mut tx, last).await?;
        tx.commit().await?;
        self.position = last.position();
        Ok(())
    }

    async fn mark(&self, tx: &mut Transaction, last: &ProjectedEvent) -> Result<(), sqlx::Error> {
        let mark = self.marks.mark(&self.key, last.position(), last.recorded.id);
        let query = Query::new(
            "INSERT INTO builds (projector, mark) VALUES ($1, $2)
             ON CONFLICT (projector) DO UPDATE SET mark = excluded.mark",
        );
        tx.run(query.bind(self.key.as_str()).bind(mark.as_slice())).await.map(drop)
    }

    /// Removes the mark of its checkpoint: it is not a build any more.
    pub async fn unmark(&self, tx: &mut Transaction) -> Result<(), sqlx::Error> {
        tx.run(Query::new("DELETE FROM builds WHERE projector = $1").bind(self.key.as_str())).await.map(drop)
    }

    /// Makes the indexes that were left out, and does what was left to do then.
    pub async fn complete(&self) -> Result<(), ApplyError> {
        let mut tx = self.begin().await?;
        lock_checkpoint(&mut tx, &self.key, self.lease).await?;
        for (_, index) in aside::indexes(self.projector.ddl()) {
            tx.make_tables(index).await?;
        }
        if let Kind::Postgres(_) = tx.kind {
            for table in self.projector.tables() {
                // So that the first queries have good plans.
                tx.run(Query::new(format!("ANALYZE {table}"))).await?;
            }
        }
        self.projector.complete(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    pub fn failed(&self, source: ApplyError) -> FillError {
        FillError::Apply { model: self.projector.name(), after: self.position, source }
    }

    /// Applies what is missing up to a position.
    pub async fn catch_up(&mut self, repository: &Arc<Repository>, until: u64) -> Result<(), FillError> {
        // Somebody may have put another number into the checkpoint.
        let until = until.min(repository.journal().head().await?);
        while self.position < until {
            let chunk = read(repository, self.position, CHUNK.min(until - self.position)).await?;
            self.apply(&chunk, false).await.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }
}
