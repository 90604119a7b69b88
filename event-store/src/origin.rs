//! The origin of a journal's events, which its first event fixes.

use domain::Event;
use domain::claims::Claimed;
use domain::journal::{JournalCreated, JournalEvent};
use domain::{AppId, JournalId, LogOrigin, StreamId, Timestamp};
use schemas::envelope::{Actor, Metadata};
use schemas::{RecordedEvent, codec};

use crate::clock::Clock;
use crate::journal::{Append, AppendError, Claim, Journal, NewEvent, StoreError, Write};
use crate::lookup::plain;

/// How often a node looks again after another one was faster or the outcome of its append is unknown.
const LOOKS: usize = 8;

/// A claim that only one stream can hold: however many nodes write the event, it exists once.
fn claim() -> Claim {
    plain(&Claimed::Origin).expect("it is named by nothing else")
}

/// The origin of this journal; `None` before [`establish`].
///
/// Nearly every journal begins with it. Only if an earlier version without origins wrote the first events does a claim
/// say where it is; an attacker with write access to the store could remove that claim, or point it elsewhere.
pub async fn read(journal: &dyn Journal) -> Result<Option<LogOrigin>, StoreError> {
    let first = journal.read_positions(&[1]).await.unwrap_or_default();
    if let Some(first) = first.first()
        && let Ok(Some(origin)) = named_by(first)
    {
        return Ok(Some(origin));
    }
    let Some(stream) = journal.claim_owner(&claim()).await? else { return Ok(None) };
    for event in journal.read_stream(&stream, 0).await? {
        if let Some(origin) = named_by(&event)? {
            return Ok(Some(origin));
        }
    }
    Err(damaged(&format!("{stream} does not begin with JournalCreated")))
}

/// The stream of the journal's own events; `None` before [`establish`].
pub(crate) async fn stream(journal: &dyn Journal) -> Result<Option<StreamId>, StoreError> {
    let first = journal.read_positions(&[1]).await.unwrap_or_default();
    match first.into_iter().next() {
        Some(first) if first.stream.aggregate() == "journal" => Ok(Some(first.stream)),
        _ => journal.claim_owner(&claim()).await,
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("the origin of the journal: {what}"))
}

/// The origin that an event gives the journal, if any.
fn named_by(event: &RecordedEvent) -> Result<Option<LogOrigin>, StoreError> {
    if event.stream.aggregate() != "journal" {
        return Ok(None);
    }
    let decoded = codec::decode(&event.stream, &event.name, event.schema_version, &event.data, None);
    match decoded.map_err(|error| damaged(&error.to_string()))? {
        Event::Journal(JournalEvent::JournalCreated(created)) => Ok(Some(created.origin)),
        _ => Ok(None),
    }
}

/// The origin of this journal. A journal without one, because it is new or an earlier version wrote it, gets
/// `proposed`, as an event: exactly one, however many nodes start at the same time and whatever they propose.
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
            // Read it back, as another node's may be the valid one.
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
        None => Err(StoreError::Unavailable(last.into())),
    }
}

fn created(clock: &dyn Clock, origin: &LogOrigin) -> Append {
    let (journal_id, at) = (JournalId(clock.new_id()), clock.now());
    let stream = StreamId::journal(journal_id);
    let event = JournalCreated { journal_id, origin: origin.clone(), at };
    let created = own(clock, stream.clone(), 0, vec![JournalEvent::JournalCreated(event)], at);
    Append { taken: vec![(claim(), stream)], ..created }
}

/// Appends events about the journal itself, which no request has caused.
pub(crate) fn own(
    clock: &dyn Clock,
    stream: StreamId,
    expected: u64,
    events: Vec<JournalEvent>,
    at: Timestamp,
) -> Append {
    let encode = |event: JournalEvent| {
        let codec::Encoded { name, schema_version, data, person, .. } = codec::encode(&event.into());
        NewEvent { id: clock.new_id(), name: name.into(), schema_version, data, person, personal: None }
    };
    Append {
        writes: vec![Write { stream, expected, events: events.into_iter().map(encode).collect() }],
        guards: vec![],
        taken: vec![],
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
