//! Finds the end of a journal that has no valid MACs, and cuts it off as the owner of its tables.

use sqlx::{Connection, PgConnection};

use super::blocked::while_at_work;
use super::connecting::{connect, connect_to_look};
use super::rows::columns;
use super::session::not_opened;
use super::{PostgresJournal, PostgresUrl};
use crate::journal::OpenError;
use crate::mac::{ForgedTail, Macs, Standing, Unproven};

/// How many rows are read at a time.
const PAGE: i64 = 1000;

impl PostgresJournal {
    /// The events after the last proven event of the journal. Changes nothing.
    pub async fn forged_tail(url: &PostgresUrl, macs: &Macs) -> Result<ForgedTail, OpenError> {
        let looking = async {
            let mut connection = connect_to_look(url, url.answer()).await?;
            let tail = forged_tail(&mut connection, macs).await;
            let _ = connection.close().await;
            tail
        };
        while_at_work(url, |gone| gone, looking).await.map_err(|error| not_opened(url, &error))
    }

    /// Durably cuts off the events after the last proven one, and returns them. Cuts nothing if no event is proven:
    /// then the key is the wrong one. No node may be running.
    pub async fn cut_forged_tail(url: &PostgresUrl, macs: &Macs) -> Result<ForgedTail, OpenError> {
        let cutting = async {
            let mut connection = connect(url.options(), url.answer()).await?;
            let mut transaction = connection.begin().await?;
            // Appends wait for the same row.
            sqlx::query("SELECT 1 FROM watchword.turn FOR UPDATE").execute(&mut *transaction).await?;
            let tail = forged_tail(&mut transaction, macs).await?;
            if tail.proven > 0 && !tail.events.is_empty() {
                cut(&mut transaction, tail.proven).await?;
                transaction.commit().await?;
            }
            Ok(tail)
        };
        while_at_work(url, |gone| gone, cutting).await.map_err(|error| not_opened(url, &error))
    }
}

async fn forged_tail(connection: &mut PgConnection, macs: &Macs) -> Result<ForgedTail, sqlx::Error> {
    let mut events = Vec::new();
    let mut before = i64::MAX;
    loop {
        let rows =
            sqlx::query("SELECT * FROM watchword.events WHERE position < $1 ORDER BY position DESC LIMIT $2")
                .bind(before)
                .bind(PAGE)
                .fetch_all(&mut *connection)
                .await?;
        if rows.is_empty() {
            return Ok(ForgedTail { proven: 0, events });
        }
        for row in &rows {
            let row = columns(row)?;
            if macs.standing(row.position, 0, &row.event(), row.mac) == Standing::Proven {
                return Ok(ForgedTail { proven: row.position.cast_unsigned(), events });
            }
            events.push(Unproven::new(row.position, &row.event()));
            before = row.position;
        }
    }
}

async fn cut(connection: &mut PgConnection, proven: u64) -> Result<(), sqlx::Error> {
    sqlx::query("ALTER TABLE watchword.events DISABLE TRIGGER events_are_never_changed")
        .execute(&mut *connection)
        .await?;
    for statement in [
        "DELETE FROM watchword.events WHERE position > $1",
        "DELETE FROM watchword.idempotency WHERE last > $1",
        "UPDATE watchword.effects SET position = $1 WHERE position > $1",
    ] {
        sqlx::query(statement).bind(proven.cast_signed()).execute(&mut *connection).await?;
    }
    sqlx::query("ALTER TABLE watchword.events ENABLE TRIGGER events_are_never_changed")
        .execute(connection)
        .await?;
    Ok(())
}
