//! The keys that sign checkpoints of the journal: which do, and what a rotation says.
//!
//! A new key signs beside the one before it, so that an auditor who knows only that one has time to learn of the next. The
//! one before it retires when the overlap is over, or with the next rotation.

use jiff::{SignedDuration, Timestamp};

use crate::journal::{CheckpointKeyAdded, CheckpointKeyId, CheckpointKeyRetired, JournalEvent, JournalId};

/// A key that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointKey {
    /// Its id.
    pub id: CheckpointKeyId,
    /// Its public half, a vkey.
    pub key: String,
    /// Since when it signs.
    pub added: Timestamp,
}

/// The keys of a journal, as its own events say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointKeys {
    /// Those that sign, the newest first.
    signing: Vec<CheckpointKey>,
}

impl CheckpointKeys {
    /// Applies the next event of the journal's own stream.
    pub fn apply(&mut self, event: &JournalEvent) {
        match event {
            JournalEvent::CheckpointKeyAdded(CheckpointKeyAdded { key_id, key, at, .. }) => {
                self.signing.insert(0, CheckpointKey { id: *key_id, key: key.clone(), added: *at });
            }
            JournalEvent::CheckpointKeyRetired(retired) => {
                self.signing.retain(|key| key.id != retired.key_id);
            }
            JournalEvent::JournalCreated(_) | JournalEvent::JournalWentBack(_) => {}
        }
    }

    /// Those that sign, the newest first.
    pub fn signing(&self) -> &[CheckpointKey] {
        &self.signing
    }

    /// Adds a key: from then on it and the one before it sign, and no other.
    pub fn add(&self, new: CheckpointKeyAdded) -> Vec<JournalEvent> {
        let (journal_id, at) = (new.journal_id, new.at);
        let mut events: Vec<JournalEvent> =
            self.signing.iter().skip(1).map(|key| key.retired(journal_id, at)).collect();
        events.push(JournalEvent::CheckpointKeyAdded(new));
        events
    }

    /// When the keys before the newest have signed beside it for so long; `None` if there are none.
    pub fn overlap_ends(&self, overlap: SignedDuration) -> Option<Timestamp> {
        let newest = self.signing.first().filter(|_| self.signing.len() > 1)?;
        Some(newest.added.checked_add(overlap).unwrap_or(Timestamp::MAX))
    }

    /// Retires the keys before the newest, if their time is over.
    pub fn retire(&self, journal_id: JournalId, overlap: SignedDuration, at: Timestamp) -> Vec<JournalEvent> {
        match self.overlap_ends(overlap) {
            Some(end) if end <= at => {
                self.signing.iter().skip(1).map(|key| key.retired(journal_id, at)).collect()
            }
            _ => vec![],
        }
    }
}

impl CheckpointKey {
    fn retired(&self, journal_id: JournalId, at: Timestamp) -> JournalEvent {
        let key = self.key.clone();
        JournalEvent::CheckpointKeyRetired(CheckpointKeyRetired { journal_id, key_id: self.id, key, at })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const JOURNAL: JournalId = JournalId(Uuid::nil());

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn key(n: u128, second: i64) -> CheckpointKeyAdded {
        let key_id = CheckpointKeyId(Uuid::from_u128(n));
        CheckpointKeyAdded {
            journal_id: JOURNAL,
            key_id,
            key: format!("log+{n}"),
            endorsement: None,
            at: at(second),
        }
    }

    fn after(events: &[JournalEvent]) -> CheckpointKeys {
        let mut keys = CheckpointKeys::default();
        for event in events {
            keys.apply(event);
        }
        keys
    }

    fn ids(keys: &CheckpointKeys) -> Vec<u128> {
        keys.signing().iter().map(|key| key.id.0.as_u128()).collect()
    }

    #[test]
    fn a_rotation_lets_two_keys_sign_and_the_next_retires_the_older_one() {
        let mut events = after(&[]).add(key(1, 10));
        assert_eq!((events.len(), ids(&after(&events))), (1, vec![1]));
        events.extend(after(&events).add(key(2, 20)));
        assert_eq!((events.len(), ids(&after(&events))), (2, vec![2, 1]), "the newest first");
        events.extend(after(&events).add(key(3, 30)));
        assert_eq!((events.len(), ids(&after(&events))), (4, vec![3, 2]));
        assert!(
            matches!(&events[2], JournalEvent::CheckpointKeyRetired(it) if it.key == "log+1" && it.at == at(30))
        );
    }

    #[test]
    fn the_older_key_retires_when_the_overlap_is_over_and_the_newest_never_does() {
        let overlap = SignedDuration::from_secs(100);
        let first = after(&[]).add(key(1, 10));
        assert_eq!(after(&first).overlap_ends(overlap), None);
        assert!(after(&first).retire(JOURNAL, overlap, at(5000)).is_empty());
        let mut events = [first.clone(), after(&first).add(key(2, 20))].concat();
        let keys = after(&events);
        assert_eq!(keys.overlap_ends(overlap), Some(at(120)));
        assert!(keys.retire(JOURNAL, overlap, at(119)).is_empty());
        events.extend(keys.retire(JOURNAL, overlap, at(120)));
        assert_eq!(ids(&after(&events)), [2]);
        assert!(after(&events).retire(JOURNAL, overlap, at(9999)).is_empty());
    }
}
