//! The origin of a journal's events, which its first event fixes.

use domain::event::Event;
use domain::journal::{JournalCreated, JournalEvent};
use domain::{AppId, JournalId, LogOrigin, StreamId};
use schemas::codec;
use schemas::envelope::{Actor, Metadata};

use crate::clock::Clock;
use crate::journal::{Append, AppendError, Claim, Journal, NewEvent, StoreError, Write};

/// How often a node that loses to another one, or does not know what became of its append, looks again.
const LOOKS: usize = 8;

/// The claim that one stream alone can have: whoever writes the event, it is there once.
fn claim() -> Claim {
    Claim { kind: "journal".to_owned(), key: "origin".to_owned() }
}

/// The origin of this journal; nothing before [`establish`].
pub async fn read(journal: &dyn Journal) -> Result<Option<LogOrigin>, StoreError> {
    let Some(stream) = journal.claim_owner(&claim()).await? else { return Ok(None) };
    let damaged = |what: String| StoreError::Damaged(format!("the origin of the journal: {what}"));
    for event in journal.read_stream(&stream, 0).await? {
        let decoded = codec::decode(&event.stream, &event.name, event.schema_version, &event.data, None);
        if let Event::Journal(JournalEvent::JournalCreated(created)) =
            decoded.map_err(|error| damaged(error.to_string()))?
        {
            return Ok(Some(created.origin));
        }
    }
    Err(damaged(format!("{stream} does not begin with JournalCreated")))
}

/// The origin of this journal. One that has none yet, because it is new or was written by a version that knew of none, gets
/// `proposed`, as an event: exactly one, however many nodes start at the same time, and whatever they propose.
pub async fn establish(
    journal: &dyn Journal,
    clock: &dyn Clock,
    proposed: &LogOrigin,
) -> Result<LogOrigin, StoreError> {
    let mut last = String::new();
    for _ in 0..LOOKS {
        if let Some(origin) = read(journal).await? {
            return Ok(origin);
        }
        match journal.append(created(clock, proposed)).await {
            // Read back, as another node's may be the one that counts.
            Ok(_) => {}
            Err(
                error @ (AppendError::ClaimTaken { .. }
                | AppendError::Conflict { .. }
                | AppendError::Unknown(_)
                | AppendError::IdempotencyKeyReused
                | AppendError::Empty),
            ) => last = error.to_string(),
            Err(AppendError::Unavailable(reason)) => return Err(StoreError::Unavailable(reason)),
            Err(AppendError::Damaged(reason)) => return Err(StoreError::Damaged(reason)),
        }
    }
    match read(journal).await? {
        Some(origin) => Ok(origin),
        None => Err(StoreError::Unavailable(last)),
    }
}

fn created(clock: &dyn Clock, origin: &LogOrigin) -> Append {
    let (journal_id, at) = (JournalId(clock.new_id()), clock.now());
    let stream = StreamId::journal(journal_id);
    let event = JournalCreated { journal_id, origin: origin.clone(), at };
    let codec::Encoded { name, schema_version, data, person, .. } =
        codec::encode(&JournalEvent::JournalCreated(event).into());
    let event =
        NewEvent { id: clock.new_id(), name: name.into(), schema_version, data, person, personal: None };
    Append {
        writes: vec![Write { stream: stream.clone(), expected: 0, events: vec![event] }],
        guards: vec![],
        taken: vec![(claim(), stream)],
        released: vec![],
        idempotency: None,
        metadata: Metadata {
            app_id: AppId::platform(),
            actor: Actor::system(),
            correlation_id: clock.new_id(),
            causation_id: None,
            request_id: None,
            traceparent: None,
        },
        at,
    }
}
