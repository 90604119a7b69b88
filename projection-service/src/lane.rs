//! One projector: how it follows the journal, and what it does when it fails.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_store::{Clock, Journal, StoreError, SystemClock};
use futures::FutureExt;
use http_kit::trace::{self, Step};
use read_models::{ApplyError, JournalError, Lease, Projector, ProjectorState, ReadModels, Standing};
use tasks::End;
use tokio::sync::watch;

use crate::feed::{Feed, MAX_BATCH};
use crate::pulse::Pulse;
use crate::runner::ProjectionStatus;

/// A batch this small is followed by a short rest: under load the next one is then larger, and each costs a
/// transaction, which takes several round trips to a database server.
const SMALL_BATCH: usize = 64;
const REST: Duration = Duration::from_millis(4);
const REST_ON_A_SERVER: Duration = Duration::from_millis(15);
/// Polls the journal if no notification comes.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest time between retries while a store cannot be reached: once it can, queries should not wait long.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// The longest time between retries of an event that cannot be applied.
const LONGEST_RETRY_OF_AN_EVENT: Duration = Duration::from_secs(30);

/// One projector and its standing. Several nodes may have it; it runs on the node that holds its lease.
pub(crate) struct Lane {
    pub projector: Arc<dyn Projector>,
    pub models: Arc<ReadModels>,
    pub journal: Arc<dyn Journal>,
    pub feed: Arc<Feed>,
    pub position: watch::Sender<u64>,
    pub state: watch::Sender<ProjectorState>,
    pub pause: watch::Sender<bool>,
    /// The right to run here; `None` while another node has it.
    pub lease: watch::Sender<Option<Lease>>,
    /// The node that holds the lease, if nodes share it.
    pub holder: Mutex<Option<String>>,
    /// Whether it gets on while it runs here.
    pub pulse: Pulse,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("the journal cannot be read")]
    Feed(#[source] StoreError),
    #[error("the read model cannot be opened")]
    Open(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the events after {after} cannot be applied")]
    Apply { after: u64, size: usize, source: ApplyError },
    #[error("applying the events after {after} panicked: the log of the process has the message")]
    Panicked { after: u64, size: usize },
}

impl StepError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Feed(error) | Self::Open(error) | Self::Journal(JournalError::Journal(error)) => {
                matches!(error, StoreError::Unavailable(_))
            }
            Self::Apply { source, .. } => source.is_transient(),
            Self::Journal(JournalError::Other { .. }) | Self::Panicked { .. } => false,
        }
    }

    /// The size of the next batch, if an event of this batch is at fault and others come before it.
    fn shorter(&self) -> Option<usize> {
        match self {
            Self::Apply { size, .. } | Self::Panicked { size, .. } if *size > 1 && !self.is_transient() => {
                Some(size / 2)
            }
            _ => None,
        }
    }
}

/// Signals from the process to its lanes.
#[derive(Clone)]
pub(crate) struct Signals {
    /// The journal's head.
    pub head: watch::Receiver<u64>,
    pub ending: watch::Receiver<bool>,
}

impl Signals {
    /// Whether the process is ending, or the sender of that signal is gone.
    pub fn ended(&self) -> bool {
        *self.ending.borrow() || self.ending.has_changed().is_err()
    }
}

impl Lane {
    /// Works whenever this node holds the lease, until the process ends.
    pub async fn run(self: Arc<Self>, mut signals: Signals) -> End {
        let mut lease = self.lease.subscribe();
        while !signals.ended() {
            let held = *lease.borrow_and_update();
            if let Some(held) = held {
                self.work(held, lease.clone(), &mut signals).await;
            } else {
                tokio::select! {
                    _ = lease.changed() => {}
                    _ = signals.ending.changed() => {}
                }
            }
        }
        End::Asked
    }

    /// Works until this lease is lost or the process ends.
    async fn work(&self, held: Lease, mut lease: watch::Receiver<Option<Lease>>, signals: &mut Signals) {
        let mut pause = self.pause.subscribe();
        let mut news = self.feed.head();
        let mut size = MAX_BATCH;
        let mut retry = FIRST_RETRY;
        let mut adopted = false;
        self.pulse.beats(Duration::ZERO);
        while *lease.borrow_and_update() == Some(held) && !signals.ended() {
            let paused = *pause.borrow_and_update();
            news.mark_unchanged();
            let newest = *signals.head.borrow();
            let step = async {
                if !adopted {
                    self.adopt(held).await?;
                    adopted = true;
                }
                if paused { Ok(0) } else { self.step(size, held).await }
            };
            // A panic would silently end this task, and the projector would seem to run.
            let stepped = AssertUnwindSafe(step).catch_unwind().await;
            let after = *self.position.borrow();
            // Another node would fail at a wrong event, too, but may reach what this one does not.
            let mut is_well = true;
            // How long to rest, and whether a new event ends the rest early.
            let (rest, until_news) = match stepped.unwrap_or(Err(StepError::Panicked { after, size })) {
                Ok(_) if paused => {
                    self.enter(ProjectorState::Paused);
                    self.measure(newest);
                    (LONGEST_SLEEP, false)
                }
                Ok(applied) => {
                    self.enter(ProjectorState::Running);
                    retry = FIRST_RETRY;
                    size = (size * 2).min(MAX_BATCH);
                    self.measure(newest);
                    match applied {
                        0 => (LONGEST_SLEEP, true),
                        1..SMALL_BATCH if held == Lease::UNSHARED => (REST, false),
                        1..SMALL_BATCH => (REST_ON_A_SERVER, false),
                        _ => {
                            self.pulse.beats(Duration::ZERO);
                            continue;
                        }
                    }
                }
                Err(StepError::Apply { source: ApplyError::LeaseLost, .. }) => {
                    self.step_back(held);
                    return;
                }
                // The journal has lost what was applied.
                Err(StepError::Journal(JournalError::Other { .. })) if adopted => {
                    adopted = false;
                    continue;
                }
                // Another node wrote or recreated the tables: their own checkpoint is right.
                Err(StepError::Apply { source: ApplyError::Gap { .. }, .. }) if self.is_elsewhere().await => {
                    adopted = false;
                    continue;
                }
                Err(error) => {
                    if let Some(shorter) = error.shorter() {
                        size = shorter;
                        continue;
                    }
                    self.fail(&error);
                    self.measure(newest);
                    is_well = !error.is_transient();
                    let longest =
                        if error.is_transient() { LONGEST_RETRY } else { LONGEST_RETRY_OF_AN_EVENT };
                    let rest = retry.min(longest);
                    retry = rest * 2;
                    (rest, false)
                }
            };
            if is_well {
                self.pulse.beats(rest);
            }
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                Ok(()) = news.changed(), if until_news => {}
                _ = pause.changed() => {}
                _ = lease.changed() => {}
                _ = signals.ending.changed() => {}
            }
        }
    }

    /// Takes the tables as their last writer left them. Those of another history than the journal's are filled anew: what
    /// they contain may never have happened.
    async fn adopt(&self, held: Lease) -> Result<(), StepError> {
        self.models.create(&*self.projector).await.map_err(StoreError::from)?;
        match self.models.check_journal(&*self.projector, &*self.journal).await {
            Err(JournalError::Other { position }) => {
                let name = self.projector.name();
                tracing::error!(
                    projector = name,
                    position,
                    "the last event that the read model has applied is not in the journal, which went back or is another one: \
                     the read model is filled anew from the journal"
                );
                metrics::counter!("watchword_projection_start_overs_total", "projection" => name)
                    .increment(1);
                let over = self.models.start_over(&*self.projector, held).await;
                over.map_err(|source| StepError::Apply { after: 0, size: 0, source })?;
            }
            compared => compared?,
        }
        self.position.send_replace(self.models.checkpoint(&*self.projector).await?);
        Ok(())
    }

    /// Applies the next batch and says how long it was.
    async fn step(&self, size: usize, lease: Lease) -> Result<usize, StepError> {
        let after = *self.position.borrow();
        let batch = self.feed.after(after, size).await.map_err(StepError::Feed)?;
        if batch.is_empty() {
            return Ok(0);
        }
        if self.feed.has_bus() && !batch.is_by_bus() {
            // What was applied before a gap in the bus must belong to this journal.
            self.models.check_journal(&*self.projector, &*self.journal).await?;
        }
        let (started, begun) = (Instant::now(), trace::begin());
        let applied = self.models.apply(&*self.projector, &batch, lease).await;
        let position = applied.map_err(|source| StepError::Apply { after, size: batch.len(), source })?;
        self.position.send_replace(position);
        let name = self.projector.name();
        begun.end(Step::Apply(name), batch.iter().map(|event| &*event.recorded));
        metrics::histogram!("watchword_projection_apply_seconds", "projection" => name)
            .record(started.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "a batch is short")]
        metrics::histogram!("watchword_projection_batch_events", "projection" => name)
            .record(batch.len() as f64);
        if let Some(last) = batch.last() {
            let delay = SystemClock.now().duration_since(last.recorded.at);
            metrics::histogram!("watchword_projection_delay_seconds", "projection" => name)
                .record(delay.as_secs_f64().max(0.0));
        }
        Ok(batch.len())
    }

    /// Whether the tables' checkpoint has moved. Then the next step starts there.
    async fn is_elsewhere(&self) -> bool {
        let Ok(checkpoint) = self.models.checkpoint(&*self.projector).await else { return false };
        self.position.send_replace(checkpoint) != checkpoint
    }

    fn step_back(&self, lost: Lease) {
        tracing::info!(projector = self.projector.name(), "another node has taken over the projector");
        self.lease.send_if_modified(|lease| lease.take_if(|lease| *lease == lost).is_some());
    }

    fn fail(&self, error: &StepError) {
        let name = self.projector.name();
        let position = match error {
            StepError::Journal(JournalError::Other { position }) => *position,
            _ => self.position.borrow().saturating_add(1),
        };
        tracing::error!(projector = name, position, error = %chain(error), "projector failed");
        metrics::counter!("watchword_projection_failures_total", "projection" => name).increment(1);
        self.enter(ProjectorState::Failed { position, error: chain(error) });
    }

    /// Adopts what the other nodes published: the holder of the lease and, for a projector that runs elsewhere,
    /// everything else.
    pub fn follow(&self, standing: &Standing, node: &str, lasts: Duration, newest: u64) {
        let here = standing.holder.as_deref() == Some(node);
        self.holder.lock().expect("no holder panics").clone_from(&standing.holder);
        set(&self.pause, standing.paused);
        set(&self.lease, here.then_some(Lease { epoch: standing.epoch, lasts }));
        if !here {
            set(&self.position, standing.position);
            self.enter(standing.state.clone());
            self.measure(newest);
        }
    }

    fn enter(&self, state: ProjectorState) {
        set(&self.state, state);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53 events")]
    fn measure(&self, newest: u64) {
        let name = self.projector.name();
        let position = *self.position.borrow();
        let failed = matches!(*self.state.borrow(), ProjectorState::Failed { .. });
        let held = self.lease.borrow().is_some();
        metrics::gauge!("watchword_projection_position", "projection" => name).set(position as f64);
        metrics::gauge!("watchword_projection_lag", "projection" => name)
            .set(newest.saturating_sub(position) as f64);
        metrics::gauge!("watchword_projection_failed", "projection" => name).set(f64::from(u8::from(failed)));
        metrics::gauge!("watchword_projection_lease_held", "projection" => name)
            .set(f64::from(u8::from(held)));
    }

    pub fn status(&self, head: u64) -> ProjectionStatus {
        let position = *self.position.borrow();
        let state = self.state.borrow().clone();
        let name = state.name();
        let (failed_position, error) = match state {
            ProjectorState::Running | ProjectorState::Paused => (None, None),
            ProjectorState::Failed { position, error } => (Some(position), Some(error)),
        };
        ProjectionStatus {
            name: self.projector.name(),
            version: self.projector.version(),
            position,
            lag: head.saturating_sub(position),
            state: name,
            failed_position,
            error,
            node: self.holder.lock().expect("no holder panics").clone(),
            rebuild: None,
        }
    }
}

/// Sets a value, and notifies its watchers only if it changed.
fn set<T: PartialEq>(watched: &watch::Sender<T>, value: T) {
    watched.send_if_modified(|now| {
        let changed = *now != value;
        if changed {
            *now = value;
        }
        changed
    });
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
