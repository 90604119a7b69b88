//! The journal as projectors see it: each batch is read and decoded once for all of them.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

use event_store::{Repository, StoreError};
use futures::StreamExt;
use read_models::ProjectedEvent;
use tokio::sync::Mutex;

/// The most events that are read at once.
pub const MAX_BATCH: usize = 1000;
/// How many decoded events are kept for projectors that come a little later.
const WINDOW: usize = 8 * MAX_BATCH;
/// How many events are opened at a time: their keys may have to be fetched.
const DECODING: usize = 32;

/// Reads the journal for several projectors.
pub struct Feed {
    repository: Arc<Repository>,
    /// Decoded batches, oldest first. Reading happens under the lock on purpose: whoever wants the same events waits
    /// for them instead of reading them again.
    window: Mutex<VecDeque<Arc<Vec<ProjectedEvent>>>>,
}

/// Consecutive events.
pub struct Batch {
    events: Arc<Vec<ProjectedEvent>>,
    start: usize,
    end: usize,
}

impl Deref for Batch {
    type Target = [ProjectedEvent];

    fn deref(&self) -> &[ProjectedEvent] {
        &self.events[self.start..self.end]
    }
}

impl Feed {
    /// A feed of the repository's journal.
    pub fn new(repository: Arc<Repository>) -> Self {
        Self { repository, window: Mutex::default() }
    }

    /// Up to `limit` events behind a position; none if it is the newest.
    pub async fn after(&self, position: u64, limit: usize) -> Result<Batch, StoreError> {
        let mut window = self.window.lock().await;
        if let Some(events) = window.iter().rev().find(|events| holds(events, position + 1)) {
            return Ok(cut(events.clone(), position, limit));
        }
        let recorded = self.repository.journal().read_all(position, MAX_BATCH).await?;
        let decoding = recorded.into_iter().map(|recorded| async {
            let decoded = self.repository.decode(&recorded).await;
            ProjectedEvent { recorded: Arc::new(recorded), decoded }
        });
        let events: Arc<Vec<ProjectedEvent>> =
            Arc::new(futures::stream::iter(decoding).buffered(DECODING).collect().await);
        // What could not be decoded may be decodable later, when the key store answers again: it is not kept.
        if !events.is_empty() && events.iter().all(|event| event.decoded.is_ok()) {
            window.push_back(events.clone());
            while window.iter().map(|events| events.len()).sum::<usize>() > WINDOW {
                window.pop_front();
            }
        }
        Ok(cut(events, position, limit))
    }
}

fn holds(events: &[ProjectedEvent], position: u64) -> bool {
    let ends = events.first().zip(events.last());
    ends.is_some_and(|(first, last)| (first.position()..=last.position()).contains(&position))
}

fn cut(events: Arc<Vec<ProjectedEvent>>, position: u64, limit: usize) -> Batch {
    let start = events.partition_point(|event| event.position() <= position);
    let end = events.len().min(start + limit);
    Batch { events, start, end }
}
