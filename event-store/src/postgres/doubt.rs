//! What was committed, but perhaps not on the synchronous replica.
//!
//! A commit waits for the replica. If that wait is cancelled, or the connection breaks meanwhile, the events are in the
//! journal and everybody sees them, but they may be lost when the replica is promoted. Sending them again does not tell:
//! they are there. So a transaction of its own, which comes later in the server's log, waits for the replica instead. When
//! that has it, it has everything before it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnectOptions;
use tasks::End;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::history::History;
use super::session::{PostgresSettings, timed_out};
use super::warnings::Warnings;

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(200);
/// For how long one transaction waits for the replica. Each that is given up leaves a session behind on the server, which
/// ends when the replica is back.
const WAIT: Duration = Duration::from_mins(10);

/// Counts what has to be confirmed, and what was.
pub(super) struct Doubt {
    raised: watch::Sender<u64>,
    settled: watch::Sender<u64>,
}

impl Default for Doubt {
    fn default() -> Self {
        Self { raised: watch::Sender::new(0), settled: watch::Sender::new(0) }
    }
}

impl Doubt {
    /// From now on nothing is certain until it is confirmed.
    pub(super) fn raise(&self) {
        self.raised.send_modify(|raised| *raised += 1);
    }

    /// Whether something has to be confirmed.
    pub(super) fn is_raised(&self) -> bool {
        *self.settled.borrow() < *self.raised.borrow()
    }

    /// Waits until everything so far is confirmed. False if that takes longer.
    pub(super) async fn settled(&self, within: Duration) -> bool {
        let raised = *self.raised.borrow();
        let mut settled = self.settled.subscribe();
        matches!(timeout(within, settled.wait_for(|settled| *settled >= raised)).await, Ok(Ok(_)))
    }

    /// Confirms what is in doubt. Runs until it is dropped.
    pub(super) async fn settle(
        self: Arc<Self>,
        options: PgConnectOptions,
        settings: PostgresSettings,
        history: Arc<History>,
    ) -> End {
        let mut raised = self.raised.subscribe();
        let warnings = Warnings::new();
        loop {
            let now = *raised.borrow_and_update();
            if *self.settled.borrow() >= now {
                if raised.changed().await.is_err() {
                    return End::Asked;
                }
                continue;
            }
            match confirm(&options, &settings, &history, &warnings).await {
                Ok(()) => drop(self.settled.send_replace(now)),
                Err(error) => {
                    tracing::debug!(%error, "it is unknown whether the synchronous replica has the newest events");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn confirm(
    options: &PgConnectOptions,
    settings: &PostgresSettings,
    history: &History,
    warnings: &Warnings,
) -> Result<(), sqlx::Error> {
    let mut connection = settings.connect_to(options, history).await?;
    // It is written to the server's log, and nowhere else.
    let message =
        sqlx::query("SELECT pg_logical_emit_message(true, 'watchword', '')").execute(&mut connection);
    let (sent, has_warned) = warnings.of(timeout(WAIT, message)).await;
    sent.unwrap_or_else(|_| Err(timed_out("the synchronous replica does not answer")))?;
    // It has done its work.
    let _ = timeout(settings.connect_timeout, connection.close()).await;
    if has_warned {
        tracing::warn!("the wait for the synchronous replica was cancelled once more");
        return Err(timed_out("the wait for the synchronous replica was cancelled"));
    }
    Ok(())
}
