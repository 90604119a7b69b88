//! Reads a journal page by page, ahead of whoever checks the order of its events: what can be checked of an event by
//! itself is done on all cores.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread;

use domain::{Event, LogOrigin, UserId};
use event_store::{Repository, StoreError};
use read_models::merkle_tree;
use schemas::RecordedEvent;
use tlog::Hash;
use tokio::task::JoinHandle;

/// How many events are read at once.
const PAGE: u64 = 1000;

/// An event that can be read.
pub(super) struct Seen {
    pub recorded: RecordedEvent,
    /// Or why it cannot be decoded.
    pub decoded: Result<Event, String>,
    /// Its leaf in the tree, if that is asked for.
    pub leaf: Option<Hash>,
    /// The standing of the key that seals its personal part.
    pub key: KeyFound,
}

/// What there is of a person's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyFound {
    /// It is there, or is not needed.
    There,
    /// The person was erased.
    Erased(UserId),
    /// It should be there.
    Missing(String),
}

/// The events after some position up to `last`, each with its position, or why one is missing.
pub(super) struct Page {
    pub last: u64,
    pub events: Vec<(u64, Result<Seen, String>)>,
}

/// Reads up to an end.
pub(super) struct Pages {
    repository: Arc<Repository>,
    origin: Option<Arc<LogOrigin>>,
    head: u64,
    /// The position after which nothing is being read yet.
    asked: u64,
    reading: VecDeque<JoinHandle<Page>>,
}

impl Pages {
    pub fn new(repository: &Arc<Repository>, head: u64, origin: Option<LogOrigin>) -> Self {
        let repository = Arc::clone(repository);
        Self { repository, origin: origin.map(Arc::new), head, asked: 0, reading: VecDeque::new() }
    }

    /// The next page; `None` behind the last one.
    pub async fn next(&mut self) -> Option<Page> {
        let ahead = thread::available_parallelism().map_or(2, |cores| cores.get() + 1);
        while self.asked < self.head && self.reading.len() < ahead {
            let (after, last) = (self.asked, self.head.min(self.asked + PAGE));
            let (repository, origin) = (Arc::clone(&self.repository), self.origin.clone());
            self.reading.push_back(tokio::spawn(async move { page(&repository, after, last, origin).await }));
            self.asked = last;
        }
        let page = self.reading.pop_front()?.await;
        Some(page.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic())))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.reading.iter().for_each(JoinHandle::abort);
    }
}

/// If an event is unreadable, the others are still read.
async fn page(repository: &Repository, after: u64, last: u64, origin: Option<Arc<LogOrigin>>) -> Page {
    let journal = repository.journal();
    let length = usize::try_from(last - after).unwrap_or(usize::MAX);
    let read = journal.read_all(after, length).await.unwrap_or_default();
    let is_whole =
        read.len() == length && read.iter().zip(after + 1..).all(|(event, at)| event.position == at);
    let mut keys = HashMap::new();
    let mut events = Vec::with_capacity(length);
    if is_whole {
        for event in read {
            events.push((event.position, Ok(see(repository, event, origin.as_deref(), &mut keys).await)));
        }
        return Page { last, events };
    }
    for position in after + 1..=last {
        let event = match journal.read_positions(&[position]).await {
            Ok(events) => events.into_iter().next().ok_or_else(|| format!("event {position} is missing")),
            Err(error) => Err(format!("event {position} cannot be read: {error}")),
        };
        let event = match event {
            Ok(event) => Ok(see(repository, event, origin.as_deref(), &mut keys).await),
            Err(problem) => Err(problem),
        };
        events.push((position, event));
    }
    Page { last, events }
}

async fn see(
    repository: &Repository,
    recorded: RecordedEvent,
    origin: Option<&LogOrigin>,
    keys: &mut HashMap<UserId, KeyFound>,
) -> Seen {
    let key = match (recorded.person, &recorded.personal) {
        (Some(person), Some(_)) => match keys.get(&person) {
            Some(found) => found.clone(),
            None => keys.entry(person).insert_entry(key(repository, person).await).get().clone(),
        },
        _ => KeyFound::There,
    };
    let decoded = repository.decode(&recorded).await.map_err(|error| match error {
        StoreError::Damaged(problem) => problem,
        error => error.to_string(),
    });
    let leaf = origin.map(|origin| merkle_tree::leaf(&recorded, origin));
    Seen { recorded, decoded, leaf, key }
}

/// Whether the key of a sealed part exists, or was destroyed.
async fn key(repository: &Repository, person: UserId) -> KeyFound {
    let keys = repository.sealer().keys();
    // Decoding reports a key that cannot be unwrapped.
    if !matches!(keys.data_key(person).await, Ok(None)) {
        return KeyFound::There;
    }
    match keys.is_erased(person).await {
        Ok(true) => KeyFound::Erased(person),
        Ok(false) => KeyFound::Missing(format!(
            "the key of {person} is missing from the key store, and was never erased"
        )),
        Err(error) => KeyFound::Missing(error.to_string()),
    }
}
