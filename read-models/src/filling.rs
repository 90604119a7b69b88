//! Fills new builds of read models from the journal, as fast as it can: each event is read and decoded once for all of them,
//! and each build is written by a task and a connection of its own.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use event_store::{Repository, StoreError};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::build::Build;
use crate::projector::{ApplyError, ProjectedEvent};

/// How many events are read at a time, and applied in one transaction.
pub(crate) const CHUNK: u64 = 2000;
/// How many chunks are read and decoded at the same time, and how many wait for a slower projector.
const AHEAD: usize = 2;

/// Why new builds could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The journal cannot be read.
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] StoreError),
    /// An event cannot be applied.
    #[error("the events after {after} cannot be applied to {model}: {source}")]
    Apply {
        /// The read model.
        model: &'static str,
        /// The last event that was applied.
        after: u64,
        /// The cause.
        source: ApplyError,
    },
}

/// Reads and decodes the events after a position.
pub(crate) async fn read(
    repository: &Arc<Repository>,
    after: u64,
    count: u64,
) -> Result<Vec<ProjectedEvent>, StoreError> {
    let (mut events, mut last) = (Vec::new(), after);
    // What comes before a damaged event is read alone.
    while last < after + count {
        let limit = usize::try_from(after + count - last).unwrap_or(usize::MAX);
        let page = repository.journal().read_all(last, limit).await?;
        if page.is_empty() {
            return Err(StoreError::Damaged(format!("event {} is missing", last + 1)));
        }
        for recorded in page {
            last = recorded.position;
            let decoded = repository.decode(&recorded).await;
            events.push(ProjectedEvent { recorded: Arc::new(recorded), decoded });
        }
    }
    Ok(events)
}

/// How many events are applied in a second at most.
pub(crate) struct Pace {
    per_second: Option<NonZeroU32>,
    begun: Instant,
    done: u64,
}

impl Pace {
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        Self { per_second, begun: Instant::now(), done: 0 }
    }

    /// How many events to take at a time: slow ones are not taken all at once.
    fn chunk(&self) -> u64 {
        self.per_second.map_or(CHUNK, |limit| u64::from(limit.get()).div_ceil(10).min(CHUNK))
    }

    async fn keep(&mut self, count: u64) {
        self.done += count;
        let Some(limit) = self.per_second else { return };
        #[expect(clippy::cast_precision_loss, reason = "a pace need not be exact")]
        let due = Duration::from_secs_f64(self.done as f64 / f64::from(limit.get()));
        tokio::time::sleep(due.saturating_sub(self.begun.elapsed())).await;
    }
}

/// Fills the builds up to their targets. `at` receives their positions, in their order.
pub(crate) async fn fill(
    repository: &Arc<Repository>,
    builds: Vec<Build>,
    target: impl Fn(&Build) -> u64,
    in_bulk: bool,
    pace: &mut Pace,
    at: &mut impl FnMut(&[u64]),
) -> Result<Vec<Build>, FillError> {
    let end = builds.iter().map(&target).max().unwrap_or_default();
    let behind = builds.iter().filter(|build| build.position < target(build));
    let Some(mut next) = behind.map(|build| build.position).min() else { return Ok(builds) };
    let mut writers = JoinSet::new();
    let (mut senders, mut positions) = (Vec::new(), Vec::new());
    for (number, build) in builds.into_iter().enumerate() {
        let (sender, chunks) = mpsc::channel(AHEAD);
        let position = Arc::new(AtomicU64::new(build.position));
        senders.push(sender);
        positions.push(Arc::clone(&position));
        let until = target(&build);
        writers.spawn(async move { (number, write(build, chunks, until, in_bulk, &position).await) });
    }
    let mut reading: VecDeque<JoinHandle<Result<Vec<ProjectedEvent>, StoreError>>> = VecDeque::new();
    let mut failed = None;
    'reading: loop {
        while reading.len() < AHEAD && next < end {
            let (repository, after, count) = (Arc::clone(repository), next, pace.chunk().min(end - next));
            reading.push_back(tokio::spawn(async move { read(&repository, after, count).await }));
            next += count;
        }
        let Some(read) = reading.pop_front() else { break };
        let read = read.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string().into())));
        let chunk = match read {
            Ok(chunk) => Arc::new(chunk),
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        for sender in &senders {
            // Its writer has failed.
            if sender.send(Arc::clone(&chunk)).await.is_err() {
                break 'reading;
            }
        }
        let positions: Vec<u64> = positions.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        at(&positions);
        pace.keep(chunk.len() as u64).await;
    }
    drop(senders);
    let mut filled = Vec::new();
    while let Some(written) = writers.join_next().await {
        match written {
            Ok((number, written)) => filled.push((number, written?)),
            Err(error) => return Err(StoreError::Unavailable(error.to_string().into()).into()),
        }
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    filled.sort_by_key(|(number, _)| *number);
    let filled: Vec<Build> = filled.into_iter().map(|(_, build)| build).collect();
    at(&filled.iter().map(|build| build.position).collect::<Vec<_>>());
    Ok(filled)
}

/// Applies the events of these chunks that come after those that were applied, up to a position.
async fn write(
    mut build: Build,
    mut chunks: mpsc::Receiver<Arc<Vec<ProjectedEvent>>>,
    until: u64,
    in_bulk: bool,
    at: &AtomicU64,
) -> Result<Build, FillError> {
    while let Some(chunk) = chunks.recv().await {
        let begin = chunk.partition_point(|event| event.position() <= build.position);
        let end = chunk.partition_point(|event| event.position() <= until);
        let batch = chunk.get(begin..end).unwrap_or_default();
        build.apply(batch, in_bulk).await.map_err(|source| build.failed(source))?;
        at.store(build.position, Ordering::Relaxed);
    }
    Ok(build)
}

/// Makes the indexes of all builds, and does what was left to do then.
pub(crate) async fn complete(builds: Vec<Build>) -> Result<Vec<Build>, FillError> {
    let mut completing = JoinSet::new();
    for (number, build) in builds.into_iter().enumerate() {
        completing.spawn(async move {
            let completed = build.complete().await.map_err(|source| build.failed(source));
            completed.map(|()| (number, build))
        });
    }
    let mut completed = Vec::new();
    while let Some(build) = completing.join_next().await {
        completed.push(build.map_err(|error| StoreError::Unavailable(error.to_string().into()))??);
    }
    completed.sort_by_key(|(number, _)| *number);
    Ok(completed.into_iter().map(|(_, build)| build).collect())
}
