//! The appends that made a history.

use std::collections::HashMap;

use domain::claims::{ClaimChange, Claimed, Holding};
use domain::{Event, StreamId};
use event_store::{Append, LookupKey, NewEvent, Repository, Write};
use schemas::RecordedEvent;

use super::mails::Mails;

/// Computes the append of each event of a history, in order, with the claims that follow from it.
pub struct Following {
    lookup: LookupKey,
    held: HashMap<StreamId, Holding>,
    mails: Mails,
}

impl Following {
    /// Follows a history of the instance with these keys, from its first event.
    pub fn of(repository: &Repository) -> Self {
        let lookup = LookupKey::new(repository.sealer().keys().instance_key());
        Self { lookup, held: HashMap::new(), mails: Mails::default() }
    }

    /// The append of the next event. Claims of erased persons, which can no longer be computed, are neither taken nor
    /// released.
    pub fn append(&mut self, recorded: RecordedEvent, event: &Event) -> Append {
        let mut holding = self.held.remove(&recorded.stream).unwrap_or_default();
        let changes = holding.see(event);
        if !holding.is_empty() {
            self.held.insert(recorded.stream.clone(), holding);
        }
        let name =
            |claimed: &Claimed| self.lookup.claim(claimed, |event, kind| self.mails.asked(event, kind));
        let (mut taken, mut released) = (vec![], vec![]);
        for change in &changes {
            match change {
                // It was free when this was first appended: perhaps by a release without an event, as of an expired session.
                ClaimChange::Take(claimed) | ClaimChange::TakeUntil(claimed, _) => {
                    if let Some(claim) = name(claimed) {
                        released.push(claim.clone());
                        taken.push((claim, recorded.stream.clone()));
                    }
                }
                ClaimChange::Release(claimed) => released.extend(name(claimed)),
                ClaimChange::Extend(..) => {}
            }
        }
        // After the claims: the outcome of a mail removes it from here.
        self.mails.see(&recorded, event);
        let RecordedEvent {
            id,
            stream,
            version,
            name,
            schema_version,
            at,
            metadata,
            data,
            person,
            personal,
            ..
        } = recorded;
        let event = NewEvent { id, name: name.into(), schema_version, data, person, personal };
        Append {
            writes: vec![Write { stream, expected: version - 1, events: vec![event] }],
            guards: vec![],
            taken,
            released,
            idempotency: None,
            metadata,
            at,
        }
    }
}
