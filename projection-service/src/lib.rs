//! The queries: projectors that follow the journal, and routes that answer from what they wrote.
//!
//! Its routes change nothing. But before an app's admin gets other people's data, the access is recorded
//! ([`http_kit::access_log`]), even in a process that serves only queries.
//!
//! A query that must not be stale decides from aggregates ([`event_store::Repository`]) and uses a read model only to
//! find them. All others wait for their read model if the caller sends a `Consistency-Token`.
#![deny(missing_docs)]

mod answers;
mod audit;
pub mod bus;
pub mod csv;
mod events;
pub mod feed;
mod filters;
mod history;
mod lane;
mod organizations;
mod person;
mod projections;
mod proofs;
mod pulse;
mod rebuilds;
pub mod runner;
mod sessions;
mod sharing;
mod stats;
mod streamed;
mod users;
mod witnesses;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::LogOrigin;
use event_store::{Clock, Journal, Repository, StoreError};
use http_kit::places::{Places, Shares};
use http_kit::{AccessLog, AfterToken, AsOf, Authenticator, Moment, Problem};
use read_models::{Projector, ReadModels};
use schemas::problems;
use tasks::Task;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;

pub use bus::BusStatus;
pub use proofs::{CheckpointSettings, NotaryStatus};
pub use read_models::ProjectorState;
pub use rebuilds::RebuildStatus;
pub use runner::{ProjectionStatus, SharingSettings};
pub use witnesses::WitnessSettings;

use crate::bus::Bus;
use crate::feed::Feed;
use crate::proofs::Notary;
use crate::rebuilds::Rebuilds;
use crate::runner::Runner;
use crate::witnesses::Witnesses;

/// How long a query waits for its read model.
const PATIENCE: Duration = Duration::from_secs(2);

/// The parts of the service.
pub struct Parts {
    /// Aggregates, loaded from the journal.
    pub repository: Arc<Repository>,
    /// The read models.
    pub models: Arc<ReadModels>,
    /// Identifies callers.
    pub authenticator: Arc<Authenticator>,
    /// Records who reads other people's data.
    pub access_log: Arc<AccessLog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The origin of the journal's events.
    pub origin: LogOrigin,
    /// Brings the newest events. Without it they are read from the journal.
    pub bus: Option<Bus>,
    /// This node's settings if several nodes share the projectors.
    pub sharing: SharingSettings,
    /// How many live streams of events may be open at a time, and for whom; further ones get 503 `overloaded`.
    pub event_streams: Shares,
    /// The same for exports.
    pub exports: Shares,
    /// How many bytes of decoded events are kept for slower projectors.
    pub window_bytes: usize,
    /// When checkpoints are signed.
    pub checkpoints: CheckpointSettings,
    /// Who is asked to sign them too.
    pub witnesses: Vec<WitnessSettings>,
}

/// The service.
pub struct ProjectionService {
    pub(crate) repository: Arc<Repository>,
    pub(crate) models: Arc<ReadModels>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) access_log: Arc<AccessLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) origin: LogOrigin,
    pub(crate) notary: Arc<Notary>,
    pub(crate) witnesses: Witnesses,
    /// Sign checkpoints without being asked, and ask the witnesses.
    signing: Mutex<Vec<Task>>,
    runner: Runner,
    pub(crate) rebuilds: Arc<Rebuilds>,
    feed: Arc<Feed>,
    /// Places for live streams of events.
    pub(crate) streams: Places,
    /// Places for exports.
    pub(crate) exports: Places,
    /// As many for what people take of their own: whoever may register must not keep an app's admins out.
    pub(crate) own_exports: Places,
}

impl ProjectionService {
    /// Starts every projector at its checkpoint.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, StoreError> {
        let projectors = parts.models.projectors();
        Self::start_with(parts, projectors).await
    }

    /// Like [`ProjectionService::start`], with projectors of the caller's choice. For tests.
    pub async fn start_with(
        parts: Parts,
        projectors: Vec<Arc<dyn Projector>>,
    ) -> Result<Arc<Self>, StoreError> {
        let Parts {
            repository,
            models,
            authenticator,
            access_log,
            clock,
            origin,
            bus,
            sharing,
            event_streams,
            exports,
            window_bytes,
            checkpoints,
            witnesses,
        } = parts;
        models.know_origin(&origin);
        let feed = Arc::new(Feed::start(repository.clone(), bus));
        feed.limit_window(window_bytes);
        let runner =
            Runner::start(repository.clone(), feed.clone(), models.clone(), projectors, sharing).await?;
        let (lanes, ending) = (runner.lanes().to_vec(), runner.ending());
        let rebuilds = Rebuilds::new(repository.clone(), models.clone(), lanes, ending).await?;
        let notary = Notary::new(
            Arc::clone(&repository),
            Arc::clone(&models),
            Arc::clone(&clock),
            origin.clone(),
            checkpoints,
        );
        let notary = Arc::new(notary);
        let signing = runner.position(read_models::merkle_tree::NAME);
        let signing = signing.map(|position| proofs::start(&notary, position, runner.ending()));
        let (witnesses, asking) = Witnesses::start(witnesses, &notary, &models, &runner.ending());
        let (streams, own_exports) = (Places::new(event_streams), Places::new(exports));
        let exports = Places::new(exports);
        Ok(Arc::new(Self {
            repository,
            models,
            authenticator,
            access_log,
            clock,
            origin,
            notary,
            witnesses,
            signing: Mutex::new(signing.into_iter().chain(asking).collect()),
            runner,
            rebuilds,
            feed,
            streams,
            exports,
            own_exports,
        }))
    }

    /// All routes of the service, ready to be merged with those of others.
    pub fn router(self: Arc<Self>) -> OpenApiRouter<()> {
        routes().with_state(self)
    }

    /// The status of each projector.
    pub fn status(&self) -> Vec<ProjectionStatus> {
        self.runner.status()
    }

    /// The same, with their rebuilds, which may be on other nodes.
    pub(crate) async fn projections(&self) -> Vec<ProjectionStatus> {
        if let Err(error) = self.rebuilds.look().await {
            // What this node knows is shown all the same.
            tracing::warn!(%error, "the rebuilds on other nodes cannot be read");
        }
        let head = *self.journal().watch_head().borrow();
        let mut all = self.status();
        for it in &mut all {
            it.rebuild = self.rebuilds.status(it.name, head);
            if it.state == "running"
                && it.rebuild.as_ref().is_some_and(|rebuild| rebuild.state == "rebuilding")
            {
                it.state = "rebuilding";
            }
        }
        all
    }

    /// What the bus brought that was rejected; `None` if there is no bus.
    pub fn bus_status(&self) -> Option<BusStatus> {
        self.feed.bus_status()
    }

    /// What is known of the newest checkpoint, and why none is signed, if none is.
    pub fn notary_status(&self) -> NotaryStatus {
        self.notary.status()
    }

    /// Updates gauges.
    pub fn measure(&self) {
        self.notary.measure();
    }

    /// Waits until a read model has the event at this position, for at most 2 seconds; then 503 `projection_behind`.
    pub async fn wait_for(&self, model: &str, position: u64) -> Result<(), Problem> {
        match tokio::time::timeout(PATIENCE, self.runner.reached(model, position)).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(behind()),
        }
    }

    /// Stops a projector before its next batch, and returns when it has stopped. False if there is none with this name.
    pub async fn pause(&self, model: &str) -> bool {
        self.runner.pause(model).await
    }

    /// Undoes [`ProjectionService::pause`].
    pub async fn resume(&self, model: &str) -> bool {
        self.runner.resume(model).await
    }

    /// Ends event streams and rebuilds, and lets every projector finish its batch.
    pub async fn shutdown(&self) {
        self.runner.begin_shutdown();
        let signing = std::mem::take(&mut *self.signing.lock().unwrap_or_else(PoisonError::into_inner));
        for mut task in signing {
            task.ended().await;
        }
        self.runner.shutdown().await;
        self.rebuilds.ended().await;
        self.models.close().await;
    }

    /// Ends only event streams: a server that drains its connections would wait for them without end.
    pub fn end_streams(&self) {
        self.runner.begin_shutdown();
    }

    pub(crate) fn journal(&self) -> &Arc<dyn Journal> {
        self.repository.journal()
    }

    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.runner.ending()
    }

    /// The end of the journal, once the read model has it: what is streamed up to there lacks nothing without a word.
    pub(crate) async fn end_of(&self, model: &str) -> Result<u64, Problem> {
        let end = self.journal().head().await?;
        self.wait_for(model, end).await?;
        Ok(end)
    }

    /// Waits for the read model if the caller sent a token.
    pub(crate) async fn wait_for_token(&self, model: &str, token: AfterToken) -> Result<(), Problem> {
        match token.0 {
            Some(position) => self.wait_for(model, position).await,
            None => Ok(()),
        }
    }

    /// The moment of the past that a query asks for, if it does.
    pub(crate) async fn moment(&self, as_of: Option<AsOf>) -> Result<Option<Moment>, Problem> {
        match as_of {
            Some(as_of) => as_of.find(&self.repository, &*self.clock).await.map(Some),
            None => Ok(None),
        }
    }

    /// Waits for the journal itself. Only a token from another node can be ahead of it.
    pub(crate) async fn wait_for_journal(&self, token: AfterToken) -> Result<(), Problem> {
        let Some(position) = token.0 else { return Ok(()) };
        let mut head = self.journal().watch_head();
        match tokio::time::timeout(PATIENCE, head.wait_for(|head| *head >= position)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(behind()),
        }
    }
}

/// All routes of the service, before there is one: a proxy must send it these.
pub fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new()
        .merge(users::routes())
        .merge(person::routes())
        .merge(sessions::routes())
        .merge(organizations::routes())
        .merge(stats::routes())
        .merge(audit::routes())
        .merge(history::routes())
        .merge(events::routes())
        .merge(projections::routes())
        .merge(proofs::routes())
        .merge(witnesses::routes())
}

fn behind() -> Problem {
    Problem::new(problems::PROJECTION_BEHIND).retry_after(1)
}

#[cfg(test)]
mod tests;
