//! Signs checkpoints without being asked, and retires keys.

use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use event_store::checkpoint_keys::Standing;
use tasks::{End, Task, Weight};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{NotSigned, Notary};

/// How often to look whether there is something to sign.
const TICK: Duration = Duration::from_secs(1);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(10);
/// How often to look whether another node has rotated the keys, though nothing was signed.
const KEYS: Duration = Duration::from_hours(1);

/// Starts the task. `position` is how far the tree is.
pub(crate) fn start(
    notary: &Arc<Notary>,
    position: watch::Receiver<u64>,
    ending: watch::Receiver<bool>,
) -> Task {
    let notary = Arc::clone(notary);
    tasks::start("notary", Weight::Usual, move || {
        let task = Watch { notary: Arc::clone(&notary), position: position.clone(), keys: None };
        task.run(ending.clone())
    })
}

struct Watch {
    notary: Arc<Notary>,
    position: watch::Receiver<u64>,
    /// When the keys were looked at, and when the overlap of some ends.
    keys: Option<(Instant, Option<Timestamp>)>,
}

impl Watch {
    async fn run(mut self, mut ending: watch::Receiver<bool>) -> End {
        // Not at once: a node that finds that the journal went back is about to record it.
        let mut pause = TICK;
        loop {
            tokio::select! {
                // The sender is the service, which ends the task before it goes.
                _ = ending.wait_for(|ending| *ending) => return End::Asked,
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.look().await {
                Ok(()) | Err(NotSigned::Behind) => TICK,
                // It has said so.
                Err(NotSigned::Refused(why)) => {
                    self.notary.refuses(Some(&why));
                    RETRY
                }
                Err(NotSigned::Store(error)) => {
                    tracing::warn!(%error, "no checkpoint can be signed for now");
                    RETRY
                }
            };
        }
    }

    async fn look(&mut self) -> Result<(), NotSigned> {
        let position = *self.position.borrow();
        if position == 0 || !self.is_due(position) {
            return self.look_at_keys().await;
        }
        // Another node may have signed one since.
        self.notary.newest().await?;
        if self.is_due(position) {
            self.keys = None;
            self.look_at_keys().await?;
            self.notary.sign(0).await?;
        }
        Ok(())
    }

    /// Whether the newest checkpoint that is known lacks events for too long, or too many.
    fn is_due(&self, position: u64) -> bool {
        let (status, settings) = (self.notary.status(), self.notary.settings);
        let Some(signed_at) = status.signed_at else { return true };
        if status.size == position {
            return false;
        }
        // In either direction: clocks may have been wrong.
        let age = self.notary.clock().now().duration_since(signed_at).unsigned_abs();
        age >= settings.interval || status.size.abs_diff(position) >= settings.events
    }

    /// Retires keys whose overlap is over.
    async fn look_at_keys(&mut self) -> Result<(), NotSigned> {
        let (notary, overlap) = (&self.notary, self.notary.settings.overlap());
        let is_over = |end: Option<Timestamp>| end.is_some_and(|end| end <= notary.clock().now());
        if self.keys.is_some_and(|(at, end)| at.elapsed() < KEYS && !is_over(end)) {
            return Ok(());
        }
        let end = Standing::of(notary.journal()).await?.keys.overlap_ends(overlap);
        self.keys = Some((Instant::now(), end));
        if is_over(end) {
            notary.keyring().retire(notary.journal(), notary.clock(), overlap).await?;
            self.keys = None;
        }
        Ok(())
    }
}
