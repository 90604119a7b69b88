//! The aggregates of one decision, checked together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use domain::{Recorded, StreamId};

use super::{Fetched, Loaded, Repository};
use crate::journal::StoreError;

/// The aggregates that one decision rests on. It decides on what is at hand, and asks once, in the end, whether that still
/// held: if not, the decision is made again.
///
/// ```text
/// let reads = repository.reads();
/// let decision = loop {
///     let decision = decide(&reads).await;
///     if reads.are_current().await? {
///         break decision;
///     }
/// };
/// ```
pub struct Reads<'a> {
    repository: &'a Repository,
    seen: Mutex<HashMap<StreamId, Seen>>,
    /// What was read and is not loaded yet.
    fetched: Mutex<Fetched>,
}

struct Seen {
    version: u64,
    /// It is known to have been current at some moment since the first read.
    is_confirmed: bool,
}

impl<'a> Reads<'a> {
    pub(super) fn new(repository: &'a Repository) -> Self {
        Self { repository, seen: Mutex::default(), fetched: Mutex::default() }
    }

    /// Reads together those of these streams that are not at hand: loading all of them then takes two round trips at most.
    pub async fn fetch(&self, streams: &[StreamId]) -> Result<(), StoreError> {
        let fetched = self.repository.fetch(streams).await?;
        *self.fetched() = fetched;
        Ok(())
    }

    /// As [`Repository::load_at_hand`].
    pub async fn load<A: Recorded>(&self, id: &A::Id) -> Result<Arc<Loaded<A>>, StoreError> {
        let stream = A::stream(id);
        let tail = self.fetched().take(&stream);
        let loaded = self.repository.load_fetched::<A>(&stream, tail).await?;
        if self.repository.journal.is_shared() {
            let version = loaded.version;
            let seen = |is_confirmed| Seen { version, is_confirmed };
            self.seen().entry(stream).and_modify(|it| *it = seen(it.is_confirmed)).or_insert(seen(false));
        }
        Ok(loaded)
    }

    /// Whether everything that was read was current at a moment since the first read. What was not is read anew when it is
    /// asked for again, and is current then.
    pub async fn are_current(&self) -> Result<bool, StoreError> {
        // What was read before this is too old for what is loaded after it.
        *self.fetched() = Fetched::default();
        let open: Vec<(StreamId, u64)> = {
            let seen = self.seen();
            let open = seen.iter().filter(|(_, seen)| !seen.is_confirmed);
            open.map(|(stream, seen)| (stream.clone(), seen.version)).collect()
        };
        let moved = self.repository.moved(&open).await?;
        for seen in self.seen().values_mut() {
            seen.is_confirmed = true;
        }
        Ok(moved.is_empty())
    }

    fn fetched(&self) -> MutexGuard<'_, Fetched> {
        self.fetched.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<StreamId, Seen>> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
