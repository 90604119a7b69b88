//! Finds the end of a journal that has no valid MACs, and cuts it off.

use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::rows::columns;
use super::{JournalLock, SqliteJournal, file};
use crate::journal::{Journal, OpenError};
use crate::mac::{ForgedTail, Macs, Standing, Unproven};

/// How many rows are read at a time.
const PAGE: i64 = 1000;

impl JournalLock {
    /// The events after the last proven event of the journal. Changes nothing.
    pub async fn forged_tail(&self, macs: &Macs) -> Result<ForgedTail, OpenError> {
        let failed = |error: sqlx::Error| file::damaged_or_failed(&self.path, &error);
        SqliteJournal::look(self, macs).await?.close().await;
        let mut connection = file::looking(&self.path).connect().await.map_err(failed)?;
        let tail = forged_tail(&mut connection, macs).await.map_err(failed);
        let _ = connection.close().await;
        tail
    }

    /// Durably cuts off the events after the last proven one, and returns them. Cuts nothing if no event is proven:
    /// then the key is the wrong one.
    pub async fn cut_forged_tail(&self, macs: &Macs) -> Result<ForgedTail, OpenError> {
        let failed = |error: sqlx::Error| file::damaged_or_failed(&self.path, &error);
        let tail = self.forged_tail(macs).await?;
        if tail.proven == 0 || tail.events.is_empty() {
            return Ok(tail);
        }
        let mut connection = file::options(&self.path).connect().await.map_err(failed)?;
        cut(&mut connection, tail.proven).await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        Ok(tail)
    }
}

async fn forged_tail(connection: &mut SqliteConnection, macs: &Macs) -> Result<ForgedTail, sqlx::Error> {
    let mut events = Vec::new();
    let mut before = i64::MAX;
    loop {
        let rows = sqlx::query("SELECT * FROM events WHERE position < ?1 ORDER BY position DESC LIMIT ?2")
            .bind(before)
            .bind(PAGE)
            .fetch_all(&mut *connection)
            .await?;
        if rows.is_empty() {
            return Ok(ForgedTail { proven: 0, events });
        }
        for row in &rows {
            let row = columns(row)?;
            if macs.standing(row.position, row.position, &row.event, row.mac) == Standing::Proven {
                return Ok(ForgedTail { proven: row.position.cast_unsigned(), events });
            }
            events.push(Unproven::new(row.position, &row.event));
            before = row.position;
        }
    }
}

async fn cut(connection: &mut SqliteConnection, proven: u64) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql("DROP TRIGGER IF EXISTS events_are_never_deleted").execute(&mut *transaction).await?;
    for statement in [
        "DELETE FROM events WHERE position > ?1",
        "DELETE FROM idempotency WHERE last > ?1",
        "UPDATE effects SET position = ?1 WHERE position > ?1",
    ] {
        sqlx::query(statement).bind(proven.cast_signed()).execute(&mut *transaction).await?;
    }
    sqlx::raw_sql(
        "CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
             BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END",
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}
