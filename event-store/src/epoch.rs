//! Which history consumers of the events are reading.
//!
//! When a journal goes back ([`crate::seen`]), positions that were given out before belong to other events. Every node that
//! finds that out records it as an event, so that consumers learn of it wherever they read events, and auditors later.
//! The *epoch* is the id of the newest such event, or of the journal's first: as long as it is the same, no position was
//! given out anew.

use aws_lc_rs::digest;
use domain::journal::{JournalEvent, JournalWentBack};
use domain::{Event, EventId, JournalId, StreamId};
use schemas::codec;
use uuid::Uuid;

use crate::clock::Clock;
use crate::journal::{Append, AppendError, Idempotency, Journal, StoreError};
use crate::origin;
use crate::seen::Lost;

/// How often to try again after another node was faster, or the outcome is unknown.
const TRIES: usize = 8;

/// Records that the journal lost an event. However many nodes have seen the same one, there is one record.
pub async fn record(journal: &dyn Journal, clock: &dyn Clock, lost: &Lost) -> Result<(), StoreError> {
    // Before its first event a journal has nothing to lose.
    let Some(stream) = origin::stream(journal).await? else { return Ok(()) };
    let Some(journal_id) = stream.uuid().map(JournalId) else { return Ok(()) };
    let mut reason = String::new();
    for _ in 0..TRIES {
        let versions = journal.versions(std::slice::from_ref(&stream)).await?;
        let expected = versions.first().copied().unwrap_or_default();
        match journal.append(went_back(clock, journal_id, &stream, expected, lost)).await {
            Ok(_) => return Ok(()),
            Err(AppendError::Unavailable(why)) => return Err(StoreError::Unavailable(why)),
            Err(AppendError::Damaged(what)) => return Err(StoreError::Damaged(what)),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(StoreError::Unavailable(reason.into()))
}

/// The epoch of this journal; nil before its first event.
pub async fn read(journal: &dyn Journal) -> Result<Uuid, StoreError> {
    let own = own_events(journal).await?;
    Ok(epochs(&own).last().copied().unwrap_or_default())
}

/// The epochs that these events of the journal itself begin, the newest last.
pub(crate) fn epochs(own: &[OwnEvent]) -> Vec<Uuid> {
    let begins = |event: &JournalEvent| {
        matches!(event, JournalEvent::JournalCreated(_) | JournalEvent::JournalWentBack(_))
    };
    own.iter().filter(|own| begins(&own.event)).map(|own| own.id).collect()
}

/// All recorded losses.
pub async fn losses(journal: &dyn Journal) -> Result<Vec<JournalWentBack>, StoreError> {
    let loss = |own: OwnEvent| match own.event {
        JournalEvent::JournalWentBack(loss) => Some(loss),
        JournalEvent::JournalCreated(_)
        | JournalEvent::CheckpointKeyAdded(_)
        | JournalEvent::CheckpointKeyRetired(_) => None,
    };
    Ok(own_events(journal).await?.into_iter().filter_map(loss).collect())
}

/// An event of the journal itself.
pub(crate) struct OwnEvent {
    pub(crate) event: JournalEvent,
    pub(crate) id: Uuid,
    pub(crate) position: u64,
}

/// The journal's own events.
pub(crate) async fn own_events(journal: &dyn Journal) -> Result<Vec<OwnEvent>, StoreError> {
    let Some(stream) = origin::stream(journal).await? else { return Ok(vec![]) };
    let mut own = Vec::new();
    for event in journal.read_stream(&stream, 0).await? {
        let decoded = codec::decode(&event.stream, &event.name, event.schema_version, &event.data, None);
        let decoded =
            decoded.map_err(|error| StoreError::Damaged(format!("event {}: {error}", event.position)))?;
        if let Event::Journal(decoded) = decoded {
            own.push(OwnEvent { event: decoded, id: event.id, position: event.position });
        }
    }
    Ok(own)
}

fn went_back(
    clock: &dyn Clock,
    journal_id: JournalId,
    stream: &StreamId,
    expected: u64,
    lost: &Lost,
) -> Append {
    let Lost { position, event, head } = *lost;
    let at = clock.now();
    let name = format!("watchword/v1/journal-went-back\0{position}\0{event}");
    let mut key = [0; 32];
    key.copy_from_slice(digest::digest(&digest::SHA256, name.as_bytes()).as_ref());
    let event = JournalWentBack { journal_id, lost: position, lost_event: EventId(event), head, at };
    let event = JournalEvent::JournalWentBack(event);
    Append {
        idempotency: Some(Idempotency { key, fingerprint: key }),
        ..origin::own(clock, stream.clone(), expected, vec![event], at)
    }
}
