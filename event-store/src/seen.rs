//! What a node has seen of the journal, and whether the journal still has it.
//!
//! A journal on a server can go back: a replica that lacks the newest events is promoted, or a backup restored, while
//! nodes run. What they have in memory then belongs to a history that no longer exists, although stream versions and
//! positions may be the same again. So a node knows the newest event it has seen, by position and id, and never decides
//! on a journal without it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use crate::journal::StoreError;

/// An event that a node has seen, and that the journal no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its position.
    pub position: u64,
    /// Its id.
    pub event: Uuid,
    /// The position of the newest event that the journal has instead.
    pub head: u64,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, event, head } = self;
        write!(
            f,
            "the journal went back: it has lost event {position} ({event}) and ends at {head}, as after the promotion of a \
             replica that lacked the newest events, or the restore of a backup. What was acknowledged since is lost"
        )
    }
}

/// The newest event that a node has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// To look at without a lock.
    newest: AtomicU64,
    event: Mutex<(u64, Uuid)>,
    lost: watch::Sender<Option<Lost>>,
}

impl Seen {
    /// Remembers an event that is in the journal.
    pub fn see(&self, position: u64, event: Uuid) {
        if position < self.newest.load(Ordering::Relaxed) {
            return;
        }
        let known = {
            let mut newest = self.event.lock().unwrap_or_else(PoisonError::into_inner);
            let known = *newest;
            if position > known.0 {
                *newest = (position, event);
                self.newest.store(position, Ordering::Relaxed);
            }
            known
        };
        if position == known.0 && event != known.1 {
            self.lose(Lost { position, event: known.1, head: position });
        }
    }

    /// The newest event; position 0 before the first.
    pub fn newest(&self) -> (u64, Uuid) {
        *self.event.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the newest event that was known with what the journal has at its position.
    pub fn compare(&self, known: (u64, Uuid), found: Option<Uuid>, head: u64) -> Result<(), StoreError> {
        let (position, event) = known;
        if position > 0 && found != Some(event) {
            self.lose(Lost { position, event, head });
        }
        self.check()
    }

    /// Records that the journal no longer has what was seen: from here on nothing is decided on it.
    pub fn lose(&self, lost: Lost) {
        self.lost.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                tracing::error!(
                    position = lost.position,
                    head = lost.head,
                    "{lost}. This node drops what it knows and starts anew from the journal"
                );
                metrics::counter!("watchword_journal_went_back_total").increment(1);
                *known = Some(lost);
            }
            is_first
        });
    }

    /// Refuses a journal that went back.
    pub fn check(&self) -> Result<(), StoreError> {
        match &*self.lost.borrow() {
            None => Ok(()),
            Some(lost) => Err(StoreError::Unavailable(lost.to_string().into())),
        }
    }

    /// What the journal has lost, if anything.
    pub fn known_loss(&self) -> Option<Lost> {
        self.lost.borrow().clone()
    }

    /// Waits until the journal goes back.
    pub async fn lost(&self) -> Lost {
        let mut lost = self.lost.subscribe();
        loop {
            if let Some(lost) = lost.borrow_and_update().clone() {
                return lost;
            }
            if lost.changed().await.is_err() {
                // The sender lives as long as this.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_event_at_a_position_and_a_lower_head_are_noticed_and_remembered() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let seen = Seen::default();
        assert_eq!(seen.compare(seen.newest(), None, 0), Ok(()), "nothing was seen yet");
        seen.see(5, one);
        seen.see(3, other);
        assert_eq!(seen.newest(), (5, one));
        assert_eq!(seen.compare(seen.newest(), Some(one), 9), Ok(()));
        assert!(seen.compare(seen.newest(), Some(other), 9).is_err());
        assert!(seen.check().is_err(), "it stays so");

        let seen = Seen::default();
        seen.see(5, one);
        assert!(seen.compare(seen.newest(), None, 4).is_err());

        let seen = Seen::default();
        seen.see(5, one);
        seen.see(5, one);
        assert_eq!(seen.check(), Ok(()));
        seen.see(5, other);
        assert!(seen.check().is_err());
    }
}
