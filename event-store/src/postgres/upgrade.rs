//! Adds MACs to the events and idempotency keys of a journal from before MACs, as the owner of its tables.
//!
//! As on SQLite: in batches, each a transaction, in order; what has its MAC already is skipped. Two that run at the same
//! time write the same MACs, one batch after the other. An advisory lock would keep one of them waiting, but anybody who may
//! connect could hold it.

use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::connecting::connect;
use super::rows::columns;
use crate::journal::{StoredIdempotency, idempotency_key};
use crate::mac::{MAC, Macs, Standing};
use crate::upgrade::{TELL, batch_size};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Why an upgrade failed.
pub(super) enum Failure {
    /// This user does not own the tables.
    Forbidden,
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        // insufficient_privilege
        let code = error.as_database_error().and_then(DatabaseError::code);
        if code.is_some_and(|code| code == "42501") { Self::Forbidden } else { Self::Failed(error) }
    }
}

pub(super) async fn prove(options: &PgConnectOptions, macs: &Macs) -> Result<(), Failure> {
    let mut connection = connect(options, CONNECT).await?;
    let is_owner: bool = sqlx::query_scalar(
        "SELECT pg_has_role(current_user, relowner, 'MEMBER') FROM pg_class WHERE oid = 'watchword.events'::regclass",
    )
    .fetch_one(&mut connection)
    .await?;
    if !is_owner {
        return Err(Failure::Forbidden);
    }
    prove_events(&mut connection, macs).await?;
    prove_idempotency(&mut connection, macs).await?;
    connection.close().await?;
    Ok(())
}

async fn prove_events(connection: &mut PgConnection, macs: &Macs) -> Result<(), sqlx::Error> {
    let head: Option<i64> =
        sqlx::query_scalar("SELECT max(position) FROM watchword.events").fetch_one(&mut *connection).await?;
    let head = head.unwrap_or(0);
    let (mut after, mut proven, mut told) = (0_i64, 0, Instant::now());
    while after < head {
        let rows =
            sqlx::query("SELECT * FROM watchword.events WHERE position > $1 ORDER BY position LIMIT $2")
                .bind(after)
                .bind(batch_size())
                .fetch_all(&mut *connection)
                .await?;
        let (mut positions, mut new): (Vec<i64>, Vec<[u8; MAC]>) = (Vec::new(), Vec::new());
        for row in &rows {
            let row = columns(row)?;
            after = row.position;
            match macs.standing(after, 0, &row.event(), row.mac) {
                Standing::Proven => {}
                Standing::Old => {
                    positions.push(after);
                    new.push(macs.event(after, &row.event()));
                }
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
        if !positions.is_empty() {
            proven += positions.len();
            let mut transaction = connection.begin().await?;
            // Events are never changed, except here.
            sqlx::query("ALTER TABLE watchword.events DISABLE TRIGGER events_are_never_changed")
                .execute(&mut *transaction)
                .await?;
            sqlx::query(
                "UPDATE watchword.events e SET mac = n.mac FROM unnest($1::bigint[], $2::bytea[]) n (position, mac)
                 WHERE e.position = n.position",
            )
            .bind(&positions)
            .bind(&new)
            .execute(&mut *transaction)
            .await?;
            sqlx::query("ALTER TABLE watchword.events ENABLE TRIGGER events_are_never_changed")
                .execute(&mut *transaction)
                .await?;
            fail::fail_point!("before-upgrade-commit", |_| std::process::abort());
            transaction.commit().await?;
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            tracing::info!("upgrading the journal: event {after} of {head} has its MAC");
        }
    }
    if proven > 0 {
        tracing::info!(events = proven, "the journal was upgraded: its events have their MACs");
    }
    Ok(())
}

async fn prove_idempotency(connection: &mut PgConnection, macs: &Macs) -> Result<(), sqlx::Error> {
    loop {
        let rows: Vec<(Vec<u8>, Vec<u8>, i64, i64)> = sqlx::query_as(
            "SELECT key, fingerprint, first, last FROM watchword.idempotency WHERE mac IS NULL LIMIT $1",
        )
        .bind(batch_size())
        .fetch_all(&mut *connection)
        .await?;
        if rows.is_empty() {
            return Ok(());
        }
        let (mut keys, mut new): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
        for (key, fingerprint, first, last) in rows {
            let mac = match (idempotency_key(&key), fingerprint.try_into()) {
                (Ok(key), Ok(fingerprint)) => {
                    let (first, last) = (first.cast_unsigned(), last.cast_unsigned());
                    macs.idempotency(&key, &StoredIdempotency { fingerprint, first, last }).to_vec()
                }
                // It is not a valid row, and gets an invalid MAC.
                _ => vec![],
            };
            keys.push(key);
            new.push(mac);
        }
        let mut transaction = connection.begin().await?;
        // One batch after the other, if two upgrades run.
        sqlx::query("LOCK TABLE watchword.idempotency IN SHARE UPDATE EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "UPDATE watchword.idempotency i SET mac = n.mac FROM unnest($1::bytea[], $2::bytea[]) n (key, mac)
             WHERE i.key = n.key",
        )
        .bind(&keys)
        .bind(&new)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
    }
}
