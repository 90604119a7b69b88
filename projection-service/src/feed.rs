//! The journal for projectors: each event is fetched and decoded once for all of them.
//!
//! There is one way to get events, [`Feed::after`], and one source that is always right, the journal. With NATS, the
//! bus ([`crate::bus`]) brings the newest events into the same window that keeps what was read from the journal. What
//! is not in the window, because the bus has a gap, is late or is away, is read from the journal. So a projector gets
//! consecutive events whatever happens to the bus.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use event_store::{Repository, StoreError};
use futures::StreamExt;
use read_models::ProjectedEvent;
use schemas::RecordedEvent;
use tasks::{Task, Weight};
use tokio::sync::{Mutex, watch};

use crate::bus::{self, Bus, BusStatus, Doubts};

/// The most events read at once.
pub const MAX_BATCH: usize = 1000;
/// How many decoded events are kept for slower projectors.
pub(crate) const WINDOW: usize = 8 * MAX_BATCH;
/// The default limit of their size.
const WINDOW_BYTES: usize = 16 << 20;
/// How many events are opened concurrently: their keys may have to be fetched.
const DECODING: usize = 32;

/// The size of an event's names, ids and traces.
const NAMES_BYTES: usize = 400;

/// Brings the journal's events to several projectors.
pub struct Feed {
    source: Arc<Source>,
    head: watch::Receiver<u64>,
    following: Option<Task>,
}

/// The journal and the events fetched last.
pub(crate) struct Source {
    repository: Arc<Repository>,
    /// Decoded batches, oldest first. Reading happens under the lock on purpose: other callers wait for the same events
    /// instead of reading them again.
    window: Mutex<VecDeque<Fetched>>,
    window_bytes: AtomicUsize,
    doubts: Doubts,
}

/// Decoded events that came together.
#[derive(Clone)]
struct Fetched {
    events: Arc<Vec<ProjectedEvent>>,
    by_bus: bool,
    /// Their approximate size.
    bytes: usize,
}

/// Consecutive events.
pub struct Batch {
    events: Arc<Vec<ProjectedEvent>>,
    start: usize,
    end: usize,
    by_bus: bool,
}

impl Batch {
    /// Whether the bus brought all of them. If there is a bus, other events fill a gap in it.
    pub(crate) fn is_by_bus(&self) -> bool {
        self.by_bus
    }
}

impl Deref for Batch {
    type Target = [ProjectedEvent];

    fn deref(&self) -> &[ProjectedEvent] {
        &self.events[self.start..self.end]
    }
}

impl Feed {
    /// A feed of the repository's journal, brought by the bus if there is one.
    pub fn start(repository: Arc<Repository>, bus: Option<Bus>) -> Self {
        let head = repository.journal().watch_head();
        let source = Arc::new(Source {
            repository,
            window: Mutex::default(),
            window_bytes: AtomicUsize::new(WINDOW_BYTES),
            doubts: Doubts::default(),
        });
        let Some(bus) = bus else { return Self { source, head, following: None } };
        let (sender, head) = watch::channel(0);
        let (sender, filled) = (Arc::new(sender), Arc::clone(&source));
        let following = tasks::start("bus", Weight::Usual, move || {
            bus::follow(bus.clone(), Arc::clone(&filled), Arc::clone(&sender))
        });
        Self { source, head, following: Some(following) }
    }

    /// Limits the memory for decoded events to this many bytes. The newest batch is always kept.
    pub fn limit_window(&self, bytes: usize) {
        self.source.window_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn has_bus(&self) -> bool {
        self.following.is_some()
    }

    /// What the bus brought that was rejected; `None` if there is no bus.
    pub fn bus_status(&self) -> Option<BusStatus> {
        self.following.as_ref().map(|_| self.source.doubts.status())
    }

    /// Up to which position events are available; changes when it is worth asking again.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// Up to `limit` events after a position; empty if it is the newest.
    pub async fn after(&self, position: u64, limit: usize) -> Result<Batch, StoreError> {
        let mut window = self.source.window.lock().await;
        if let Some(batch) = from_window(&window, position, limit) {
            return Ok(batch);
        }
        let recorded = self.source.repository.journal().read_all(position, MAX_BATCH).await?;
        metrics::counter!("watchword_feed_events_total", "from" => "journal")
            .increment(recorded.len() as u64);
        let fetched = Fetched::new(self.source.decode(recorded).await, false);
        self.source.keep(&mut window, fetched.clone());
        Ok(cut(fetched, position, limit))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(task) = &self.following {
            task.abort();
        }
    }
}

impl Source {
    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(crate) fn doubts(&self) -> &Doubts {
        &self.doubts
    }

    /// Takes consecutive events that the bus brought.
    pub(crate) async fn take(&self, recorded: Vec<RecordedEvent>) {
        let fetched = Fetched::new(self.decode(recorded).await, true);
        self.keep(&mut *self.window.lock().await, fetched);
    }

    /// Keeps events for slower projectors, and drops the oldest.
    fn keep(&self, window: &mut VecDeque<Fetched>, fetched: Fetched) {
        // Events that could not be decoded are not kept: they may be decodable later, when the key store answers again.
        if fetched.events.is_empty() || fetched.events.iter().any(|event| event.decoded.is_err()) {
            return;
        }
        window.push_back(fetched);
        let most = self.window_bytes.load(Ordering::Relaxed);
        let is_too_much = |window: &VecDeque<Fetched>| {
            let (events, bytes) = window.iter().fold((0, 0), |(events, bytes), fetched| {
                (events + fetched.events.len(), bytes + fetched.bytes)
            });
            events > WINDOW || bytes > most
        };
        while window.len() > 1 && is_too_much(window) {
            window.pop_front();
        }
    }

    async fn decode(&self, recorded: Vec<RecordedEvent>) -> Arc<Vec<ProjectedEvent>> {
        let decoding = recorded.into_iter().map(|recorded| async {
            let decoded = self.repository.decode(&recorded).await;
            ProjectedEvent { recorded: Arc::new(recorded), decoded }
        });
        Arc::new(futures::stream::iter(decoding).buffered(DECODING).collect().await)
    }
}

fn from_window(window: &VecDeque<Fetched>, position: u64, limit: usize) -> Option<Batch> {
    let newest = window.iter().rposition(|fetched| fetched.holds(position + 1))?;
    let batch = cut(window[newest].clone(), position, limit);
    let mut last = position + batch.len() as u64;
    if batch.len() == limit || !window.iter().any(|fetched| fetched.holds(last + 1)) {
        return Some(batch);
    }
    // The bus brings few events at a time. A projector that is behind gets many at once, as each batch is a
    // transaction.
    let mut by_bus = batch.by_bus;
    let mut events = batch.to_vec();
    while events.len() < limit
        && let Some(next) = window.iter().rfind(|fetched| fetched.holds(last + 1))
    {
        let more = cut(next.clone(), last, limit - events.len());
        last += more.len() as u64;
        by_bus &= more.by_bus;
        events.extend_from_slice(&more);
    }
    let end = events.len();
    Some(Batch { events: Arc::new(events), start: 0, end, by_bus })
}

impl Fetched {
    fn new(events: Arc<Vec<ProjectedEvent>>, by_bus: bool) -> Self {
        let bytes = |event: &ProjectedEvent| {
            // The content is stored twice, as read and as decoded.
            let said = event.recorded.data.len() + event.recorded.personal.as_ref().map_or(0, Vec::len);
            size_of::<ProjectedEvent>() + size_of::<RecordedEvent>() + 2 * said + NAMES_BYTES
        };
        let bytes = events.iter().map(bytes).sum();
        Self { events, by_bus, bytes }
    }

    fn holds(&self, position: u64) -> bool {
        let ends = self.events.first().zip(self.events.last());
        ends.is_some_and(|(first, last)| (first.position()..=last.position()).contains(&position))
    }
}

fn cut(fetched: Fetched, position: u64, limit: usize) -> Batch {
    let Fetched { events, by_bus, .. } = fetched;
    let start = events.partition_point(|event| event.position() <= position);
    let end = events.len().min(start + limit);
    Batch { events, start, end, by_bus }
}
