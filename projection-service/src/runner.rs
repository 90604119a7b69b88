//! Runs the projectors: one task each, so that one that fails or is slow holds up no other.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_store::{Journal, Repository, StoreError};
use futures::FutureExt;
use read_models::{ApplyError, JournalError, Projector, ReadModels};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use crate::feed::{Feed, MAX_BATCH};

/// A batch this small is followed by a short rest: under load the next is larger then, and each costs a transaction.
const SMALL_BATCH: usize = 256;
const REST: Duration = Duration::from_millis(10);
/// Looks at the journal although nothing was heard of it.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What a projector does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProjectorState {
    /// It follows the journal.
    Running,
    /// It was told to stand still.
    Paused,
    /// It cannot get past an event. It tries again from time to time.
    Failed {
        /// The position of the event.
        position: u64,
        /// What is wrong, without personal data.
        error: String,
    },
}

/// Where a projector stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProjectionStatus {
    /// The read model.
    #[schema(example = "users")]
    pub name: &'static str,
    /// The version of its tables.
    pub version: u32,
    /// The position of the last event it has applied.
    pub position: u64,
    /// How many events it has not applied yet.
    pub lag: u64,
    /// `running`, `paused` or `failed`.
    #[schema(example = "running")]
    pub state: &'static str,
    /// The position of the event it fails at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_position: Option<u64>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All projectors of a process.
pub struct Runner {
    lanes: Vec<Arc<Lane>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    head: watch::Receiver<u64>,
    ending: watch::Sender<bool>,
}

/// One projector and where it stands.
struct Lane {
    projector: Arc<dyn Projector>,
    models: Arc<ReadModels>,
    journal: Arc<dyn Journal>,
    feed: Arc<Feed>,
    position: watch::Sender<u64>,
    state: watch::Sender<ProjectorState>,
    pause: watch::Sender<bool>,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("the journal cannot be read")]
    Feed(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the events behind {after} cannot be applied")]
    Apply { after: u64, size: usize, source: ApplyError },
    #[error("applying the events behind {after} panicked: what with is in the log of the process")]
    Panicked { after: u64, size: usize },
}

impl Runner {
    /// Starts a task for each projector.
    pub async fn start(
        repository: Arc<Repository>,
        feed: Arc<Feed>,
        models: Arc<ReadModels>,
        projectors: Vec<Arc<dyn Projector>>,
    ) -> Result<Self, StoreError> {
        let ending = watch::Sender::new(false);
        let head = repository.journal().watch_head();
        let (mut lanes, mut tasks) = (vec![], vec![]);
        for projector in projectors {
            models.create(&*projector).await?;
            let position = models.checkpoint(&*projector).await?;
            let lane = Arc::new(Lane {
                projector,
                models: models.clone(),
                journal: repository.journal().clone(),
                feed: feed.clone(),
                position: watch::Sender::new(position),
                state: watch::Sender::new(ProjectorState::Running),
                pause: watch::Sender::new(false),
            });
            tasks.push(tokio::spawn(lane.clone().run(feed.head(), ending.subscribe())));
            lanes.push(lane);
        }
        Ok(Self { lanes, tasks: Mutex::new(tasks), head, ending })
    }

    /// Where each projector stands.
    pub fn status(&self) -> Vec<ProjectionStatus> {
        let head = *self.head.borrow();
        self.lanes.iter().map(|lane| lane.status(head)).collect()
    }

    /// Waits, however long, until a read model has an event. False if there is no such read model.
    pub async fn reached(&self, name: &str, position: u64) -> bool {
        let Some(lane) = self.lane(name) else { return false };
        lane.position.subscribe().wait_for(|applied| *applied >= position).await.is_ok()
    }

    /// Stops a projector before its next batch, and returns when it stands still.
    pub async fn pause(&self, name: &str) -> bool {
        let Some(lane) = self.lane(name) else { return false };
        lane.pause.send_replace(true);
        lane.state.subscribe().wait_for(|state| *state == ProjectorState::Paused).await.is_ok()
    }

    /// Undoes [`Runner::pause`].
    pub fn resume(&self, name: &str) -> bool {
        let Some(lane) = self.lane(name) else { return false };
        lane.pause.send_replace(false);
        true
    }

    /// Tells everything that follows the journal to stop.
    pub fn begin_shutdown(&self) {
        self.ending.send_replace(true);
    }

    /// Stops all projectors behind their current batch.
    pub async fn shutdown(&self) {
        self.begin_shutdown();
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder panics"));
        for task in tasks {
            // A panicked projector has nothing left to finish.
            let _ = task.await;
        }
    }

    /// Becomes true when the process ends.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    fn lane(&self, name: &str) -> Option<&Arc<Lane>> {
        self.lanes.iter().find(|lane| lane.projector.name() == name)
    }
}

impl Lane {
    async fn run(self: Arc<Self>, mut head: watch::Receiver<u64>, mut ending: watch::Receiver<bool>) {
        let mut pause = self.pause.subscribe();
        let mut belongs = false;
        let mut size = MAX_BATCH;
        let mut retry = FIRST_RETRY;
        while !*ending.borrow_and_update() {
            if *pause.borrow_and_update() {
                self.enter(ProjectorState::Paused);
                tokio::select! {
                    _ = pause.changed() => {}
                    _ = ending.changed() => {}
                }
                continue;
            }
            if *self.state.borrow() == ProjectorState::Paused {
                self.enter(ProjectorState::Running);
            }
            let newest = *head.borrow_and_update();
            // A panic would end this task without a word, and the projector would look as if it ran.
            let step = AssertUnwindSafe(self.step(size, &mut belongs)).catch_unwind().await;
            let after = *self.position.borrow();
            let sleep = match step.unwrap_or(Err(StepError::Panicked { after, size })) {
                Ok(applied) => {
                    self.enter(ProjectorState::Running);
                    retry = FIRST_RETRY;
                    size = (size * 2).min(MAX_BATCH);
                    self.measure(newest);
                    match applied {
                        0 => LONGEST_SLEEP,
                        1..SMALL_BATCH => REST,
                        _ => continue,
                    }
                }
                // Half the batch next time: all that comes before the event at fault is applied.
                Err(StepError::Apply { size: failed, .. } | StepError::Panicked { size: failed, .. })
                    if failed > 1 =>
                {
                    size = failed / 2;
                    continue;
                }
                Err(error) => {
                    self.fail(&error).await;
                    self.measure(newest);
                    let sleep = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                    sleep
                }
            };
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                changed = head.changed(), if sleep == LONGEST_SLEEP => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = pause.changed() => {}
                _ = ending.changed() => {}
            }
        }
    }

    /// Applies the next batch and says how long it was.
    async fn step(&self, size: usize, belongs: &mut bool) -> Result<usize, StepError> {
        // Once: nobody exchanges the journal under a running process.
        if !*belongs {
            self.models.check_journal(&*self.projector, &*self.journal).await?;
            *belongs = true;
        }
        let after = *self.position.borrow();
        let batch = self.feed.after(after, size).await?;
        if batch.is_empty() {
            return Ok(0);
        }
        let applied = self.models.apply(&*self.projector, &batch).await;
        let position = applied.map_err(|source| StepError::Apply { after, size: batch.len(), source })?;
        self.position.send_replace(position);
        Ok(batch.len())
    }

    async fn fail(&self, error: &StepError) {
        let name = self.projector.name();
        let position = match error {
            StepError::Journal(JournalError::Other { position }) => *position,
            _ => *self.position.borrow() + 1,
        };
        tracing::error!(projector = name, position, error = %chain(error), "projector failed");
        metrics::counter!("watchword_projection_failures_total", "projection" => name).increment(1);
        self.enter(ProjectorState::Failed { position, error: chain(error) });
        // Somebody else wrote the tables, or put back an older file: the tables know best where they are.
        if let StepError::Apply { source: ApplyError::Gap { .. }, .. } = error
            && let Ok(checkpoint) = self.models.checkpoint(&*self.projector).await
        {
            self.position.send_replace(checkpoint);
        }
    }

    fn enter(&self, state: ProjectorState) {
        self.state.send_if_modified(|now| {
            let changed = *now != state;
            if changed {
                *now = state;
            }
            changed
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53 events")]
    fn measure(&self, newest: u64) {
        let name = self.projector.name();
        let position = *self.position.borrow();
        let failed = matches!(*self.state.borrow(), ProjectorState::Failed { .. });
        metrics::gauge!("watchword_projection_position", "projection" => name).set(position as f64);
        metrics::gauge!("watchword_projection_lag", "projection" => name)
            .set(newest.saturating_sub(position) as f64);
        metrics::gauge!("watchword_projection_failed", "projection" => name).set(f64::from(u8::from(failed)));
    }

    fn status(&self, head: u64) -> ProjectionStatus {
        let position = *self.position.borrow();
        let (state, failed_position, error) = match &*self.state.borrow() {
            ProjectorState::Running => ("running", None, None),
            ProjectorState::Paused => ("paused", None, None),
            ProjectorState::Failed { position, error } => ("failed", Some(*position), Some(error.clone())),
        };
        ProjectionStatus {
            name: self.projector.name(),
            version: self.projector.version(),
            position,
            lag: head.saturating_sub(position),
            state,
            failed_position,
            error,
        }
    }
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
