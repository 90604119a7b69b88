//! What was committed, but perhaps not on the synchronous replica.
//!
//! A commit waits for the replica. If that wait is cancelled, the connection breaks meanwhile, or the server crashes and
//! recovers, the events are in the journal and everybody sees them, but they may be lost when the replica is promoted.
//! Sending them again does not tell: they are there. So a transaction of its own, which comes later in the server's log,
//! waits for the replica instead. When that has it, it has everything before it.
//!
//! The node whose commit it was is not the only one that has to know: another may be asked to repeat the command, or be
//! asked for what it finds done already. So no node answers with what is in the journal as done before one of its own
//! commits, or such a transaction, has confirmed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Counts what has to be confirmed, and what was.
pub(super) struct Doubt {
    asked: watch::Sender<u64>,
    settled: watch::Sender<u64>,
    /// What was last asked because the outcome of a commit of this node is in doubt.
    raised: AtomicU64,
    /// The position up to which the replica has everything.
    confirmed: AtomicU64,
}

impl Default for Doubt {
    fn default() -> Self {
        let (asked, settled) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { asked, settled, raised: AtomicU64::default(), confirmed: AtomicU64::default() }
    }
}

impl Doubt {
    /// From now on nothing is certain until it is confirmed.
    pub(super) fn raise(&self) {
        self.raised.fetch_max(self.ask(), Ordering::AcqRel);
    }

    /// Whether a commit of this node has to be confirmed.
    pub(super) fn is_raised(&self) -> bool {
        *self.settled.borrow() < self.raised.load(Ordering::Acquire)
    }

    /// Waits until every commit of this node so far is confirmed. False if that takes longer.
    pub(super) async fn settled(&self, within: Duration) -> bool {
        self.wait_for(self.raised.load(Ordering::Acquire), within).await
    }

    /// Whether the replica is known to have everything up to a position.
    pub(super) fn is_confirmed(&self, position: u64) -> bool {
        position <= self.confirmed.load(Ordering::Acquire)
    }

    /// The replica has everything up to a position, or there is none.
    pub(super) fn confirmed(&self, position: u64) {
        self.confirmed.fetch_max(position, Ordering::AcqRel);
    }

    /// Has everything up to a position confirmed that is in the journal, whoever has written it. False if that takes longer.
    pub(super) async fn confirm(&self, position: u64, within: Duration) -> bool {
        let is_settled = self.wait_for(self.ask(), within).await;
        if is_settled {
            self.confirmed(position);
        }
        is_settled
    }

    fn ask(&self) -> u64 {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        number
    }

    async fn wait_for(&self, asked: u64, within: Duration) -> bool {
        let mut settled = self.settled.subscribe();
        matches!(timeout(within, settled.wait_for(|settled| *settled >= asked)).await, Ok(Ok(_)))
    }

    /// Confirms what is in doubt. Runs until it is dropped.
    pub(super) async fn settle(
        self: Arc<Self>,
        options: PgConnectOptions,
        settings: PostgresSettings,
        history: Arc<History>,
    ) -> End {
        let mut asked = self.asked.subscribe();
        let warnings = Warnings::new();
        loop {
            let now = *asked.borrow_and_update();
            if *self.settled.borrow() >= now {
                if asked.changed().await.is_err() {
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

/// Waits until the replica has everything, however long it is away: each wait that is given up would leave a session
/// behind on the server, which ends only when the replica is back.
async fn confirm(
    options: &PgConnectOptions,
    settings: &PostgresSettings,
    history: &History,
    warnings: &Warnings,
) -> Result<(), sqlx::Error> {
    let generation = history.generation();
    let mut connection = settings.connect_to(options, history).await?;
    let asked = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection);
    let session: i32 = timeout(settings.connect_timeout, asked)
        .await
        .unwrap_or_else(|_| Err(timed_out("the database does not answer")))?;
    // It is written to the server's log, and nowhere else.
    let message =
        sqlx::query("SELECT pg_logical_emit_message(true, 'watchword', '')").execute(&mut connection);
    let (sent, has_warned) = tokio::select! {
        sent = warnings.of(message) => sent,
        () = has_ended(session, generation, options, settings, history) => {
            return Err(timed_out("the session that waited for the synchronous replica is gone"));
        }
    };
    sent?;
    // It has done its work.
    let _ = timeout(settings.connect_timeout, connection.close()).await;
    if has_warned {
        tracing::warn!("the wait for the synchronous replica was cancelled once more");
        return Err(timed_out("the wait for the synchronous replica was cancelled"));
    }
    Ok(())
}

/// Completes when a session is not at the server any more that the address leads to: its connection, on which nothing
/// comes, would wait for ever.
async fn has_ended(
    session: i32,
    generation: u64,
    options: &PgConnectOptions,
    settings: &PostgresSettings,
    history: &History,
) {
    loop {
        sleep(settings.look).await;
        let looked = timeout(settings.connect_timeout * 2, async {
            let mut other = settings.connect_to(options, history).await?;
            let is_there = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)")
                .bind(session)
                .fetch_one(&mut other)
                .await?;
            // It has done its work.
            let _ = other.close().await;
            Ok::<bool, sqlx::Error>(is_there)
        });
        if matches!(looked.await, Ok(Ok(false))) || history.generation() != generation {
            return;
        }
    }
}
