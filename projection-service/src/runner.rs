//! Runs each projector in its own task, so that a failing or slow one does not delay the others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_store::{Repository, StoreError};
use read_models::{Lease, Projector, ProjectorState, ReadModels};
use serde::Serialize;
use tasks::{Task, Weight};
use tokio::sync::{Notify, watch};
use utoipa::ToSchema;

use crate::feed::Feed;
use crate::lane::{Lane, Signals};
use crate::pulse::{Aside, Pulse};
use crate::rebuilds::RebuildStatus;
use crate::sharing::Sharing;

/// The state of a projector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Projection)]
pub struct ProjectionStatus {
    /// The read model.
    #[schema(example = "users")]
    pub name: &'static str,
    /// The version of its tables.
    pub version: u32,
    /// The position of the last event it has applied.
    pub position: u64,
    /// The number of events it has yet to apply.
    pub lag: u64,
    /// `running`, `paused` or `failed`, and `rebuilding` while one that is running is rebuilt.
    #[schema(example = "running")]
    pub state: &'static str,
    /// The position of the event it fails at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_position: Option<u64>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The node it runs on, if several share the projectors; absent while none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its rebuild, if one is under way or was interrupted. Until that is done, queries are answered by the live tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<RebuildStatus>,
}

/// How nodes share the projectors. Used only if the read models are in PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharingSettings {
    /// The name of this node. No two running processes may have the same name.
    pub node: String,
    /// How long a silent node keeps its projectors. A healthy one renews its leases four times as often.
    pub lease: Duration,
}

impl SharingSettings {
    /// The default duration of a lease.
    pub const LEASE: Duration = Duration::from_secs(4);
}

/// All projectors of a process.
pub struct Runner {
    lanes: Vec<Arc<Lane>>,
    /// `None` if the read models belong to this process alone.
    sharing: Option<Arc<Sharing>>,
    tasks: Mutex<Vec<Task>>,
    head: watch::Receiver<u64>,
    ending: watch::Sender<bool>,
}

impl Runner {
    /// Starts a task for each projector. If nodes share them, each runs once this node has its lease.
    pub async fn start(
        repository: Arc<Repository>,
        feed: Arc<Feed>,
        models: Arc<ReadModels>,
        projectors: Vec<Arc<dyn Projector>>,
        settings: SharingSettings,
    ) -> Result<Self, StoreError> {
        let ending = watch::Sender::new(false);
        let head = repository.journal().watch_head();
        let leases = models.leases();
        let mut lanes = vec![];
        for projector in projectors {
            models.create(&*projector).await?;
            let lane = Lane {
                position: watch::Sender::new(models.checkpoint(&*projector).await?),
                state: watch::Sender::new(ProjectorState::Running),
                pause: watch::Sender::new(false),
                lease: watch::Sender::new(leases.is_none().then_some(Lease::UNSHARED)),
                holder: Mutex::default(),
                pulse: Pulse::new(settings.lease),
                projector,
                models: models.clone(),
                journal: repository.journal().clone(),
                feed: feed.clone(),
            };
            lanes.push(Arc::new(lane));
        }
        let signals = Signals { head: head.clone(), ending: ending.subscribe() };
        let run = |lane: &Arc<Lane>| {
            let (lane, signals) = (Arc::clone(lane), signals.clone());
            let name = format!("projector_{}", lane.projector.name());
            tasks::start(name, Weight::Usual, move || Arc::clone(&lane).run(signals.clone()))
        };
        let mut tasks: Vec<_> = lanes.iter().map(run).collect();
        let sharing = leases.map(|leases| {
            let SharingSettings { node, lease } = settings;
            let (lanes, look, aside) = (lanes.clone(), Notify::new(), Mutex::new(Aside::default()));
            let sharing = Arc::new(Sharing { leases, node, lasts: lease, lanes, look, aside });
            let shared = Arc::clone(&sharing);
            let run = move || Arc::clone(&shared).run(signals.clone());
            tasks.push(tasks::start("projector_leases", Weight::Usual, run));
            sharing
        });
        Ok(Self { lanes, sharing, tasks: Mutex::new(tasks), head, ending })
    }

    /// The status of each projector, on whichever node it runs.
    pub fn status(&self) -> Vec<ProjectionStatus> {
        let head = *self.head.borrow();
        self.lanes.iter().map(|lane| lane.status(head)).collect()
    }

    /// Waits, however long, until a read model has an event. False if there is no such read model.
    pub async fn reached(&self, name: &str, position: u64) -> bool {
        let Some(lane) = self.lane(name) else { return false };
        let mut reached = lane.position.subscribe();
        if *reached.borrow() < position {
            self.look();
        }
        reached.wait_for(|applied| *applied >= position).await.is_ok()
    }

    /// How far a read model is, on whichever node it runs. `None` if there is no such read model.
    pub fn position(&self, name: &str) -> Option<watch::Receiver<u64>> {
        self.lane(name).map(|lane| lane.position.subscribe())
    }

    /// Stops a projector before its next batch, on whichever node it runs, and returns when it has stopped. False if
    /// there is none with this name, or the other nodes cannot be notified.
    pub async fn pause(&self, name: &str) -> bool {
        let Some(lane) = self.lane(name) else { return false };
        self.tell(lane, true).await
            && lane.state.subscribe().wait_for(|state| *state == ProjectorState::Paused).await.is_ok()
    }

    /// Undoes [`Runner::pause`]. A projector that has failed tries again at once if it runs here.
    pub async fn resume(&self, name: &str) -> bool {
        let Some(lane) = self.lane(name) else { return false };
        self.tell(lane, false).await
    }

    async fn tell(&self, lane: &Lane, paused: bool) -> bool {
        if let Some(sharing) = &self.sharing {
            if let Err(error) = sharing.leases.pause(&*lane.projector, paused).await {
                tracing::error!(%error, "a projector cannot be paused or resumed");
                return false;
            }
            self.look();
        }
        lane.pause.send_replace(paused);
        true
    }

    /// Reads the standings of the other nodes' projectors now.
    fn look(&self) {
        if let Some(sharing) = &self.sharing {
            sharing.look.notify_one();
        }
    }

    /// Signals everything that follows the journal to stop.
    pub fn begin_shutdown(&self) {
        self.ending.send_replace(true);
    }

    /// Stops all projectors after their current batch, and releases them for the other nodes.
    pub async fn shutdown(&self) {
        self.begin_shutdown();
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder panics"));
        for mut task in tasks {
            task.ended().await;
        }
        if let Some(sharing) = &self.sharing {
            sharing.leave().await;
        }
    }

    /// Becomes true when the process ends.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    pub(crate) fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }

    fn lane(&self, name: &str) -> Option<&Arc<Lane>> {
        self.lanes.iter().find(|lane| lane.projector.name() == name)
    }
}
