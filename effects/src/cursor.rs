//! How far an effect has come, and which node performs it: what the mailer and the webhooks share.
//!
//! A cursor is stored beside the journal ([`Journal::hold_cursor`]), starts at the newest event, and is held by one node at a
//! time, fenced by an epoch. So neither a replay nor a rebuild performs an effect again, and a node that slept past its lease
//! moves nothing when it wakes up.

use std::sync::Arc;
use std::time::Duration;

use event_store::{Cursor, Journal, StoreError};
use schemas::RecordedEvent;
use schemas::envelope::{Actor, Metadata};
use tasks::End;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often a cursor is written at least. After a crash, the events since are read again.
pub(crate) const KEEP: Duration = Duration::from_secs(5);
/// The first pause after the journal was unreachable.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause before an unavailable store is tried again.
const LONGEST_ABSENCE: Duration = Duration::from_secs(2);

/// The state of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectStatus {
    /// `starting`, `running`, `standby` (another node performs it) or `interrupted` (it retries by itself).
    pub state: &'static str,
    /// The position of the last event it has finished, as far as this node knows.
    pub position: u64,
    /// The number of mails or messages waiting for a retry.
    pub waiting: usize,
    /// The number of mails or messages given up.
    pub failed: usize,
    /// The current error.
    pub error: Option<String>,
}

impl EffectStatus {
    pub(crate) const STARTING: Self =
        Self { state: "starting", position: 0, waiting: 0, failed: 0, error: None };
}

/// Why an effect stops for now.
pub(crate) enum Stop {
    /// It is shutting down.
    Ending,
    /// Another node performs it now.
    Lost,
    /// The journal cannot be read or written.
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Whether the process is shutting down.
#[derive(Clone)]
pub(crate) struct Ending(pub(crate) watch::Receiver<bool>);

impl Ending {
    pub(crate) fn require_going_on(&self) -> Result<(), Stop> {
        if *self.0.borrow() { Err(Stop::Ending) } else { Ok(()) }
    }

    /// Sleeps, unless it is shutting down.
    pub(crate) async fn sleep(&self, until: Instant) -> Result<(), Stop> {
        let mut ending = self.0.clone();
        tokio::select! {
            () = tokio::time::sleep_until(until) => Ok(()),
            _ = ending.wait_for(|ending| *ending) => Err(Stop::Ending),
        }
    }
}

/// The interruptions of an effect, after each of which it works again.
pub(crate) struct Interruptions {
    /// The effect's name for the log.
    what: &'static str,
    pause: Duration,
}

impl Interruptions {
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, pause: FIRST_PAUSE }
    }

    /// Waits for as long as it takes after this one. Returns the end of the task if it was asked to end.
    pub(crate) async fn after(
        &mut self,
        stop: Stop,
        status: &watch::Sender<EffectStatus>,
        ending: &Ending,
    ) -> Option<End> {
        let what = self.what;
        match stop {
            Stop::Ending => return Some(End::Asked),
            Stop::Lost => {
                tracing::info!("another node has taken over from the {what}");
                self.pause = FIRST_PAUSE;
            }
            Stop::Store(error) => {
                // An unavailable store is polled often, so that the effect goes on once it is back, but logged only once.
                let is_away = matches!(error, StoreError::Unavailable(_));
                if is_away && status.borrow().state == "interrupted" {
                    tracing::debug!(%error, "the {what} is still interrupted");
                } else {
                    tracing::error!(%error, "the {what} is interrupted");
                }
                status.send_modify(|status| {
                    status.state = "interrupted";
                    status.error = Some(error.to_string());
                });
                if ending.sleep(Instant::now() + self.pause).await.is_err() {
                    return Some(End::Asked);
                }
                self.pause = (self.pause * 2).min(if is_away { LONGEST_ABSENCE } else { LONGEST_PAUSE });
            }
        }
        None
    }
}

/// Which cursor a node takes, and as whom.
pub(crate) struct Claimant<'a> {
    pub(crate) journal: &'a Arc<dyn Journal>,
    pub(crate) effect: &'static str,
    pub(crate) node: &'a str,
    pub(crate) lease: Duration,
    pub(crate) status: &'a watch::Sender<EffectStatus>,
    pub(crate) ending: &'a Ending,
}

impl Claimant<'_> {
    /// Waits until no other node holds the cursor.
    pub(crate) async fn take(&self) -> Result<HeldCursor, Stop> {
        loop {
            self.ending.require_going_on()?;
            let renewed = Instant::now();
            let taken = self.journal.hold_cursor(self.effect, self.node, self.lease).await?;
            let Some(mut cursor) = taken else {
                self.status.send_modify(|status| (status.state, status.error) = ("standby", None));
                self.ending.sleep(renewed + self.lease / 3).await?;
                continue;
            };
            let newest = self.journal.head().await?;
            if cursor.position > newest {
                tracing::warn!(
                    effect = self.effect,
                    position = cursor.position,
                    newest,
                    "the journal was restored to an older state: nothing is done for its events"
                );
                cursor.position = newest;
            }
            return Ok(HeldCursor {
                journal: Arc::clone(self.journal),
                effect: self.effect,
                node: self.node.to_owned(),
                lease: self.lease,
                kept: (cursor.position, renewed),
                cursor,
                renewed,
            });
        }
    }
}

/// A cursor that this node holds.
pub(crate) struct HeldCursor {
    journal: Arc<dyn Journal>,
    effect: &'static str,
    node: String,
    lease: Duration,
    cursor: Cursor,
    renewed: Instant,
    /// The stored position, and when it was stored.
    kept: (u64, Instant),
}

impl HeldCursor {
    /// Every event up to it is finished; later ones may be.
    pub(crate) fn position(&self) -> u64 {
        self.cursor.position
    }

    pub(crate) fn set_position(&mut self, position: u64) {
        self.cursor.position = position;
    }

    /// Renews the lease, so that no other node works for a while.
    pub(crate) async fn renew(&mut self) -> Result<(), Stop> {
        if self.renewed.elapsed() < self.lease / 6 {
            return Ok(());
        }
        let renewed = Instant::now();
        let cursor = self.journal.hold_cursor(self.effect, &self.node, self.lease).await?;
        if cursor.is_none_or(|cursor| cursor.epoch != self.cursor.epoch) {
            return Err(Stop::Lost);
        }
        self.renewed = renewed;
        Ok(())
    }

    /// Stores the position from time to time.
    pub(crate) async fn keep(&mut self) -> Result<(), Stop> {
        if self.kept.1.elapsed() < KEEP { Ok(()) } else { self.keep_now().await }
    }

    /// Stores the position, if it has changed.
    pub(crate) async fn keep_now(&mut self) -> Result<(), Stop> {
        if self.cursor.position == self.kept.0 {
            return Ok(());
        }
        if !self.journal.move_cursor(self.effect, self.cursor).await? {
            return Err(Stop::Lost);
        }
        self.kept = (self.cursor.position, Instant::now());
        Ok(())
    }

    /// When the lease is to be renewed, or the position to be stored.
    pub(crate) fn next_look(&self) -> Instant {
        let renewal = self.renewed + self.lease / 3;
        if self.cursor.position > self.kept.0 { renewal.min(self.kept.1 + KEEP) } else { renewal }
    }

    /// Stores the position and lets another node work at once. On failure, that node finds it out by itself.
    pub(crate) async fn let_go(self) {
        let _ = self.journal.move_cursor(self.effect, self.cursor).await;
        let _ = self.journal.release_cursor(self.effect, self.cursor).await;
    }
}

/// The metadata of events caused by an event.
pub(crate) fn because_of(recorded: &RecordedEvent) -> Metadata {
    Metadata {
        app_id: recorded.metadata.app_id.clone(),
        actor: Actor::system(),
        correlation_id: recorded.metadata.correlation_id,
        causation_id: Some(recorded.id),
        request_id: None,
        traceparent: recorded.metadata.traceparent.clone(),
    }
}
