//! Rebuilds read models inside a serving process, each by a task of its own. It ends with the process: an interrupted build
//! stays as it is, and the next request to rebuild goes on where it was.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_store::{Clock, Repository, StoreError, SystemClock};
use read_models::{Projector, ReadModels, RebuildProgress, RebuildSettings};
use serde::Serialize;
use tasks::{End, Task, Weight};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::lane::Lane;

/// For how long other nodes wait for a rebuild that falls silent.
const LEASE: Duration = Duration::from_secs(10);

/// The rebuild of a read model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ProjectionRebuild)]
pub struct RebuildStatus {
    /// `rebuilding`, or `interrupted`: the next request to rebuild it continues it.
    #[schema(example = "rebuilding")]
    pub state: &'static str,
    /// The position of the last event that the new build has.
    pub position: u64,
    /// How fast it has been so far; absent at the beginning, and once it was interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<u64>,
    /// How long it takes if it stays as fast. Indexes are made after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Why it was interrupted, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What came of a request to rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It has begun, or goes on.
    Begun,
    /// There is no such read model.
    Unknown,
    /// It is being rebuilt already, here or by another process.
    Running,
}

/// The rebuilds of all read models, as far as this node knows.
pub(crate) struct Rebuilds {
    repository: Arc<Repository>,
    models: Arc<ReadModels>,
    lanes: Vec<Arc<Lane>>,
    ending: watch::Receiver<bool>,
    known: Mutex<BTreeMap<&'static str, Known>>,
    tasks: Mutex<BTreeMap<&'static str, Task>>,
}

/// A rebuild that is under way, or was interrupted.
struct Known {
    is_here: bool,
    is_active: bool,
    position: u64,
    /// Where it was seen first while it is active, and when.
    first: Option<(u64, Instant)>,
    error: Option<String>,
}

impl Known {
    fn begun_here(position: u64) -> Self {
        Self { is_here: true, is_active: true, position, first: None, error: None }
    }

    fn interrupted(position: u64, error: Option<String>) -> Self {
        Self { is_here: false, is_active: false, position, first: None, error }
    }

    /// Takes the position that it is seen at, now.
    fn at(&mut self, position: u64) {
        if self.first.is_none() || position < self.position {
            self.first = Some((position, Instant::now()));
        }
        self.position = position;
    }

    fn status(&self, head: u64) -> RebuildStatus {
        let (rate, left) = self
            .first
            .filter(|_| self.is_active)
            .and_then(|(first, since)| {
                let milliseconds = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
                let done = NonZeroU64::new(self.position.saturating_sub(first))?.get();
                let left = head.saturating_sub(self.position);
                // Rounded up: a slow one gets on, too.
                let rate = done.saturating_mul(1000).div_ceil(milliseconds);
                Some((rate, left.saturating_mul(milliseconds).div_ceil(done.saturating_mul(1000))))
            })
            .unzip();
        let state = if self.is_active { "rebuilding" } else { "interrupted" };
        let (position, error) = (self.position, self.error.clone());
        RebuildStatus { state, position, events_per_second: rate, seconds_left: left, error }
    }
}

impl Rebuilds {
    /// Knows those that were interrupted earlier.
    pub async fn new(
        repository: Arc<Repository>,
        models: Arc<ReadModels>,
        lanes: Vec<Arc<Lane>>,
        ending: watch::Receiver<bool>,
    ) -> Result<Arc<Self>, StoreError> {
        let (known, tasks) = (Mutex::default(), Mutex::default());
        let rebuilds = Self { repository, models, lanes, ending, known, tasks };
        rebuilds.look().await?;
        Ok(Arc::new(rebuilds))
    }

    /// Learns of those of other processes.
    pub async fn look(&self) -> Result<(), StoreError> {
        let here: Vec<&str> =
            self.known().iter().filter(|(_, it)| it.is_here).map(|(name, _)| *name).collect();
        let builds = self.models.builds(&here).await?;
        let mut known = self.known();
        known.retain(|name, it| it.is_here || builds.iter().any(|build| build.name == *name));
        for build in builds {
            let it = known.entry(build.name).or_insert_with(|| Known::interrupted(build.position, None));
            if it.is_here {
                continue;
            }
            if it.is_active != build.is_active {
                *it = Known {
                    is_active: build.is_active,
                    ..Known::interrupted(build.position, it.error.take())
                };
            }
            it.at(build.position);
        }
        drop(known);
        self.measure();
        Ok(())
    }

    /// Begins to rebuild a read model, or goes on.
    pub async fn start(
        self: &Arc<Self>,
        name: &str,
        events_per_second: Option<NonZeroU32>,
    ) -> Result<Asked, StoreError> {
        let Some(projector) = self.models.projectors().into_iter().find(|it| it.name() == name) else {
            return Ok(Asked::Unknown);
        };
        self.look().await?;
        let name = projector.name();
        {
            let mut known = self.known();
            if known.get(name).is_some_and(|it| it.is_active) {
                return Ok(Asked::Running);
            }
            let position = known.get(name).map_or(0, |it| it.position);
            known.insert(name, Known::begun_here(position));
        }
        // The same for each attempt of the task: what it held before a failure is its own.
        let node = format!("rebuild-{}", SystemClock.new_id().simple());
        let settings = RebuildSettings { node, lease: LEASE, events_per_second };
        tracing::info!(projector = name, throttle = events_per_second, "a read model is being rebuilt");
        let rebuilds = Arc::clone(self);
        let run = move || Arc::clone(&rebuilds).run(Arc::clone(&projector), settings.clone());
        let task = tasks::start(format!("rebuild_{name}"), Weight::Usual, run);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(name, task);
        Ok(Asked::Begun)
    }

    /// Rebuilds until it is done, or the process ends.
    async fn run(self: Arc<Self>, projector: Arc<dyn Projector>, settings: RebuildSettings) -> End {
        let name = projector.name();
        let (one, mut ending) = ([Arc::clone(&projector)], self.ending.clone());
        let at = |progress: &[RebuildProgress]| self.at(name, progress);
        let ended = async {
            // Its sender is gone: the process ends.
            let _ = ending.wait_for(|ending| *ending).await;
        };
        let rebuilt = tokio::select! {
            rebuilt = self.models.rebuild(&self.repository, &one, &settings, at) => rebuilt,
            () = ended => {
                if let Err(error) = self.models.leave_rebuild(&*projector, &settings.node).await {
                    tracing::warn!(%error, "the lease of a rebuild could not be released: it will expire");
                }
                tracing::info!(projector = name, "a rebuild was interrupted, as the process ends");
                return End::Asked;
            }
        };
        match rebuilt {
            Ok(_) => {
                tracing::info!(projector = name, "a read model was rebuilt");
                self.known().remove(name);
            }
            Err(error) => {
                tracing::error!(projector = name, %error, "a read model could not be rebuilt: the live one is as it was");
                metrics::counter!("watchword_rebuild_failures_total", "model" => name).increment(1);
                if let Some(it) = self.known().get_mut(name) {
                    *it = Known::interrupted(it.position, Some(error.to_string()));
                }
            }
        }
        self.measure();
        // It may have waited to try again an event that the new build has.
        if let Some(lane) = self.lanes.iter().find(|lane| lane.projector.name() == name) {
            lane.pause.send_modify(|_| {});
        }
        End::Asked
    }

    fn at(&self, name: &'static str, progress: &[RebuildProgress]) {
        let Some(RebuildProgress { position, .. }) = progress.first() else { return };
        let mut known = self.known();
        known.entry(name).or_insert_with(|| Known::begun_here(*position)).at(*position);
        drop(known);
        self.measure();
    }

    /// The rebuild of a read model.
    pub fn status(&self, name: &str, head: u64) -> Option<RebuildStatus> {
        self.known().get(name).map(|it| it.status(head))
    }

    /// Waits until all have ended, once they were told that the process ends.
    pub async fn ended(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for mut task in tasks.into_values() {
            task.ended().await;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53 events")]
    fn measure(&self) {
        let head = *self.repository.journal().watch_head().borrow();
        let known = self.known();
        for lane in &self.lanes {
            let name = lane.projector.name();
            let status = known.get(name).map(|it| it.status(head));
            let running = status.as_ref().is_some_and(|status| status.state == "rebuilding");
            let number = |it: Option<u64>| it.unwrap_or_default() as f64;
            metrics::gauge!("watchword_rebuild_running", "model" => name).set(f64::from(u8::from(running)));
            metrics::gauge!("watchword_rebuild_position", "model" => name)
                .set(number(status.as_ref().map(|it| it.position)));
            metrics::gauge!("watchword_rebuild_events_per_second", "model" => name)
                .set(number(status.as_ref().and_then(|it| it.events_per_second)));
            metrics::gauge!("watchword_rebuild_seconds_left", "model" => name)
                .set(number(status.as_ref().and_then(|it| it.seconds_left)));
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<&'static str, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
