//! How several nodes share the projectors: each takes its share of the leases and keeps them while it works, releases
//! the excess when another node joins, and takes over what a node that is gone has left.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_store::StoreError;
use read_models::{Leases, Standing, projector};
use tasks::End;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::lane::{Lane, Signals};
use crate::pulse::Aside;

/// A lease is renewed this often during its duration, so that a late renewal does no harm.
const RENEWALS: u32 = 4;
/// How often the position of a projector on another node is polled while a query waits for it.
const POLL: Duration = Duration::from_millis(15);

/// This node's part in the sharing.
pub(crate) struct Sharing {
    pub leases: Leases,
    /// The name of this node, which no other process has.
    pub node: String,
    pub lasts: Duration,
    pub lanes: Vec<Arc<Lane>>,
    /// Notified when a query waits for a projector, or a projector was paused or resumed.
    pub look: Notify,
    /// Whether this node leaves the projectors to others for a while.
    pub aside: Mutex<Aside>,
}

impl Sharing {
    /// Shares projectors until the process ends.
    pub async fn run(self: Arc<Self>, mut signals: Signals) -> End {
        let mut heard = true;
        while !signals.ended() {
            // A database that does not answer must not keep this node from asking again.
            let beat = tokio::time::timeout(self.lasts, self.beat(&signals)).await;
            let failure = match beat {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("it does not answer".to_owned()),
            };
            // Logged once when it starts to fail or works again, not on every beat.
            match &failure {
                Some(error) if heard => {
                    tracing::error!(
                        error,
                        "the leases of the projectors cannot be renewed: other nodes may take them"
                    );
                }
                None if !heard => tracing::info!("the leases of the projectors can be renewed again"),
                _ => {}
            }
            heard = failure.is_none();
            if !heard {
                metrics::counter!("watchword_projection_lease_errors_total").increment(1);
            }
            self.rest(&mut signals).await;
        }
        End::Asked
    }

    /// Releases everything, so that the other nodes need not wait for leases to end.
    pub async fn leave(&self) {
        let left = tokio::time::timeout(self.lasts, self.release_all()).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("the leases of the projectors could not be released: they will expire");
        }
    }

    async fn release_all(&self) -> Result<(), StoreError> {
        self.leases.leave(&self.node).await?;
        for lane in &self.lanes {
            lane.lease.send_replace(None);
            self.leases.release(&*lane.projector, &self.node).await?;
        }
        Ok(())
    }

    fn aside(&self) -> MutexGuard<'_, Aside> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node leaves the projectors to others: it begins when one of its own stands still, which may be
    /// because of what only this node does not reach, and ends after a while, or if there are no others.
    async fn is_aside(&self) -> Result<bool, StoreError> {
        if self.aside().was_asleep(self.lasts) {
            self.lanes.iter().for_each(|lane| lane.pulse.beats(Duration::ZERO));
        }
        let stalled = self.lanes.iter().find(|lane| lane.lease.borrow().is_some() && lane.pulse.is_overdue());
        let was_aside = self.aside().lasts();
        if stalled.is_none() && !was_aside {
            return Ok(false);
        }
        if self.leases.others(&self.node).await? == 0 {
            self.aside().end(true);
            return Ok(false);
        }
        if let Some(lane) = stalled {
            let time = self.aside().begin(self.lasts);
            tracing::error!(
                projector = lane.projector.name(),
                "the projector stands still here: other nodes take the projectors, for {time:?} at least"
            );
            metrics::counter!("watchword_projection_leases_given_up_total").increment(1);
        }
        if let Err(error) = self.release_all().await {
            tracing::warn!(%error, "the leases of the projectors could not be released: they will expire");
        }
        Ok(true)
    }

    async fn beat(&self, signals: &Signals) -> Result<(), StoreError> {
        if self.is_aside().await? {
            self.follow(signals).await?;
            return Ok(());
        }
        let nodes = self.leases.announce(&self.node, self.lasts).await?;
        metrics::gauge!("watchword_projection_nodes").set(u32::try_from(nodes).unwrap_or(u32::MAX));
        for lane in self.lanes.iter().filter(|lane| lane.lease.borrow().is_some()) {
            let state = lane.state.borrow().clone();
            self.leases.renew(&*lane.projector, &self.node, self.lasts, &state).await?;
        }
        let standings = self.follow(signals).await?;
        if self.even_out(&standings, nodes).await? {
            self.follow(signals).await?;
        }
        Ok(())
    }

    /// Reads the standings of all projectors.
    async fn follow(&self, signals: &Signals) -> Result<Vec<Standing>, StoreError> {
        let standings = self.leases.standings().await?;
        let newest = *signals.head.borrow();
        for lane in &self.lanes {
            if let Some(standing) = standing_of(lane, &standings) {
                lane.follow(standing, &self.node, self.lasts, newest);
            }
        }
        Ok(standings)
    }

    /// Takes or releases projectors until this node has its share among `nodes` nodes. True if anything changed.
    async fn even_out(&self, standings: &[Standing], nodes: u64) -> Result<bool, StoreError> {
        let nodes = usize::try_from(nodes).unwrap_or(usize::MAX).max(1);
        let share = self.lanes.len().div_ceil(nodes);
        let holder =
            |lane: &Lane| standing_of(lane, standings).and_then(|standing| standing.holder.as_deref());
        let mine: Vec<_> = self.lanes.iter().filter(|lane| holder(lane) == Some(&self.node)).collect();
        let mut changed = false;
        for lane in mine.iter().skip(share) {
            let projector = lane.projector.name();
            tracing::info!(projector, nodes, "projector released, so that another node may take it");
            lane.lease.send_replace(None);
            self.leases.release(&*lane.projector, &self.node).await?;
            changed = true;
        }
        let free = self.lanes.iter().filter(|lane| holder(lane).is_none());
        for lane in free.take(share.saturating_sub(mine.len())) {
            if self.leases.take(&*lane.projector, &self.node, self.lasts).await? {
                let projector = lane.projector.name();
                lane.pulse.beats(Duration::ZERO);
                tracing::info!(projector, nodes, "projector taken");
                metrics::counter!("watchword_projection_leases_taken_total", "projection" => projector)
                    .increment(1);
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Sleeps until the next beat. A position that a query waits for is polled in between.
    async fn rest(&self, signals: &mut Signals) {
        let next = Instant::now() + self.lasts / RENEWALS;
        loop {
            let elsewhere =
                |lane: &&Arc<Lane>| lane.lease.borrow().is_none() && lane.position.receiver_count() > 0;
            let awaited = self.lanes.iter().any(|lane| elsewhere(&lane));
            let until = if awaited { next.min(Instant::now() + POLL) } else { next };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.look.notified() => {}
                _ = signals.ending.changed() => return,
            }
            if Instant::now() >= next {
                return;
            }
            // The next beat reports what is wrong with the database.
            let _ = tokio::time::timeout(self.lasts, self.follow(signals)).await;
        }
    }
}

fn standing_of<'s>(lane: &Lane, standings: &'s [Standing]) -> Option<&'s Standing> {
    let key = projector::key(&*lane.projector);
    standings.iter().find(|standing| standing.key == key)
}
