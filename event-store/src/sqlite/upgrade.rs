//! Adds MACs to the events and idempotency keys of a journal from before MACs.
//!
//! What has a valid checksum is accepted one last time, and gets its MAC. This happens in batches, each a transaction,
//! in order; after an interruption, what has its MAC already is skipped.

use std::time::Instant;

use sqlx::SqliteConnection;

use super::read_head;
use super::rows::{columns, stored};
use crate::mac::{Macs, Standing};
use crate::upgrade::{TELL, batch_size};

/// Events are never changed, except here.
const CHANGE: &str = "BEGIN IMMEDIATE; DROP TRIGGER IF EXISTS events_are_never_changed;";
const CHANGED: &str = "CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
    COMMIT;";

pub(super) async fn prove(connection: &mut SqliteConnection, macs: &Macs) -> Result<(), sqlx::Error> {
    let head = read_head(connection).await?.cast_signed();
    let (mut after, mut proven, mut told) = (0, 0, Instant::now());
    while after < head {
        let rows = sqlx::query("SELECT * FROM events WHERE position > ?1 ORDER BY position LIMIT ?2")
            .bind(after)
            .bind(batch_size())
            .fetch_all(&mut *connection)
            .await?;
        let mut batch = Vec::new();
        for row in &rows {
            let row = columns(row)?;
            after = row.position;
            match macs.standing(after, after, &row.event, row.mac) {
                Standing::Proven => {}
                Standing::Old => batch.push((after, hex::encode(macs.event(after, &row.event)))),
                // It stays unchanged, and every read refuses it.
                Standing::False => tracing::error!(
                    position = after,
                    "an event was altered: its checksum does not match, and it gets no MAC"
                ),
            }
        }
        if rows.is_empty() {
            break;
        }
        if !batch.is_empty() {
            proven += batch.len();
            sqlx::raw_sql(CHANGE).execute(&mut *connection).await?;
            sqlx::query(
                "UPDATE events SET mac = unhex(new.value ->> 1) FROM json_each(?1) new
                 WHERE events.position = new.value ->> 0",
            )
            .bind(serde_json::json!(batch).to_string())
            .execute(&mut *connection)
            .await?;
            fail::fail_point!("before-upgrade-commit", |_| std::process::abort());
            sqlx::raw_sql(CHANGED).execute(&mut *connection).await?;
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            tracing::info!("upgrading the journal: event {after} of {head} has its MAC");
        }
    }
    prove_idempotency(connection, macs).await?;
    if proven > 0 {
        tracing::info!(events = proven, "the journal was upgraded: its events have their MACs");
    }
    Ok(())
}

async fn prove_idempotency(connection: &mut SqliteConnection, macs: &Macs) -> Result<(), sqlx::Error> {
    loop {
        let rows: Vec<(Vec<u8>, Vec<u8>, i64, i64)> = sqlx::query_as(
            "SELECT key, fingerprint, first, last FROM idempotency WHERE mac IS NULL LIMIT ?1",
        )
        .bind(batch_size())
        .fetch_all(&mut *connection)
        .await?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut batch = Vec::with_capacity(rows.len());
        for (key, fingerprint, first, last) in rows {
            let mac = match (<[u8; 32]>::try_from(key.as_slice()), stored(&fingerprint, first, last)) {
                (Ok(key), Ok(stored)) => hex::encode(macs.idempotency(&key, &stored)),
                // It is not a valid row, and gets an invalid MAC.
                _ => String::new(),
            };
            batch.push((hex::encode(key), mac));
        }
        sqlx::query(
            "UPDATE idempotency SET mac = unhex(new.value ->> 1) FROM json_each(?1) new
             WHERE idempotency.key = unhex(new.value ->> 0)",
        )
        .bind(serde_json::json!(batch).to_string())
        .execute(&mut *connection)
        .await?;
    }
}
