//! The newest events of the journal, read once for all webhooks. Those that are behind read the journal themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use event_store::{Journal, StoreError};
use schemas::RecordedEvent;
use tokio::sync::watch;

/// How many events are kept.
const MOST: usize = 2_000;
/// How many bytes of them are kept.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// How many events are read at once.
pub(super) const BATCH: usize = 200;

/// Some events after a position, or the gap where one cannot be read.
pub(super) enum Next {
    Events(Vec<Arc<RecordedEvent>>),
    /// The event after the position cannot be read.
    Unreadable,
}

pub(super) struct Feed {
    journal: Arc<dyn Journal>,
    recent: Mutex<Recent>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Recent {
    /// Consecutive events.
    events: VecDeque<Arc<RecordedEvent>>,
    bytes: usize,
}

fn size(event: &RecordedEvent) -> usize {
    event.data.len() + event.personal.as_ref().map_or(0, Vec::len) + 512
}

impl Feed {
    /// A feed of what comes after a position.
    pub fn after(journal: Arc<dyn Journal>, position: u64) -> Self {
        Self { journal, recent: Mutex::default(), newest: watch::Sender::new(position) }
    }

    /// The position up to which there are events; changes with each new one.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Adds the next events.
    pub fn add(&self, events: Vec<Arc<RecordedEvent>>) {
        let Some(last) = events.last().map(|event| event.position) else { return };
        {
            let mut recent = self.recent.lock().expect("no holder panics");
            for event in events {
                if recent.events.back().is_some_and(|back| back.position + 1 != event.position) {
                    recent.events.clear();
                    recent.bytes = 0;
                }
                recent.bytes += size(&event);
                recent.events.push_back(event);
                while recent.events.len() > MOST || recent.bytes > MOST_BYTES {
                    let Some(oldest) = recent.events.pop_front() else { break };
                    recent.bytes -= size(&oldest);
                }
            }
        }
        self.newest.send_replace(last);
    }

    /// Records that the event at a position cannot be read.
    pub fn skip(&self, position: u64) {
        self.newest.send_replace(position);
    }

    /// The next events after a position, some of them.
    pub async fn next(&self, position: u64) -> Result<Next, StoreError> {
        if let Some(events) = self.recent_after(position) {
            return Ok(Next::Events(events));
        }
        read(&*self.journal, position).await
    }

    /// An event, if it is among the newest ones.
    pub fn at(&self, position: u64) -> Option<Arc<RecordedEvent>> {
        let recent = self.recent.lock().expect("no holder panics");
        let first = recent.events.front()?.position;
        recent.events.get(usize::try_from(position.checked_sub(first)?).ok()?).cloned()
    }

    fn recent_after(&self, position: u64) -> Option<Vec<Arc<RecordedEvent>>> {
        let recent = self.recent.lock().expect("no holder panics");
        let first = recent.events.front()?.position;
        let index = usize::try_from((position + 1).checked_sub(first)?).ok()?;
        let events: Vec<_> = recent.events.iter().skip(index).take(BATCH).cloned().collect();
        (!events.is_empty()).then_some(events)
    }
}

/// The next events in the journal after a position, some of them.
pub(super) async fn read(journal: &dyn Journal, position: u64) -> Result<Next, StoreError> {
    match journal.read_all(position, BATCH).await {
        Ok(events) => Ok(Next::Events(events.into_iter().map(Arc::new).collect())),
        Err(StoreError::Damaged(what)) => {
            tracing::error!(position = position + 1, what, "an event cannot be read: no webhook is sent it");
            metrics::counter!("watchword_webhook_unreadable_total").increment(1);
            Ok(Next::Unreadable)
        }
        Err(error) => Err(error),
    }
}
