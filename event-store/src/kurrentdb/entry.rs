//! Between appends and the events of the server's stream.
//!
//! An event's type and data are as they are everywhere. Its metadata is JSON as well, with all else that the journal
//! keeps of it; that of an append's first event says how many belong to it, and what happens with them: claims given
//! back and taken, and the idempotency key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{StreamId, Timestamp, UserId};
use schemas::envelope::Metadata;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checksum::checksum;
use crate::journal::{Append, Claim, Idempotency, NewEvent, StoreError, Write};
use crate::sqlite::group::EventRow;

/// An event of the server's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Uuid,
    /// What the server calls its type.
    pub(super) name: String,
    /// JSON.
    pub(super) data: String,
    /// JSON.
    pub(super) metadata: Vec<u8>,
}

/// What an event's metadata holds. Bytes are in Base64.
#[derive(Serialize, Deserialize)]
struct About {
    stream: StreamId,
    version: u64,
    schema_version: u16,
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    person: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    personal: Option<String>,
    metadata: Metadata,
    checksum: String,
    /// Where it begins an append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    append: Option<Beginning>,
}

/// What an append is besides its events. Its guards held when it was decided, and are not kept.
#[derive(Serialize, Deserialize)]
struct Beginning {
    events: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    released: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    taken: Vec<(String, String, StreamId)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency: Option<Once>,
}

#[derive(Serialize, Deserialize)]
struct Once {
    key: String,
    fingerprint: String,
}

/// The events of a group, as they are sent.
pub(super) fn encode(rows: &[EventRow<'_>]) -> Vec<Entry> {
    let mut before: Option<&Append> = None;
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let begins = before.is_none_or(|before| !std::ptr::eq(before, row.append));
        before = Some(row.append);
        let event = row.event;
        let about = About {
            stream: row.stream.clone(),
            version: row.version,
            schema_version: event.schema_version,
            at: row.append.at,
            person: event.person.map(|person| person.0),
            personal: event.personal.as_ref().map(|personal| STANDARD.encode(personal)),
            metadata: row.append.metadata.clone(),
            checksum: STANDARD.encode(row.checksum()),
            append: begins.then(|| Beginning::of(row.append)),
        };
        entries.push(Entry {
            id: event.id,
            name: event.name.to_string(),
            data: event.data.clone(),
            metadata: serde_json::to_vec(&about).expect("it is a plain struct"),
        });
    }
    entries
}

impl Beginning {
    fn of(append: &Append) -> Self {
        let released = append.released.iter().map(|claim| (claim.kind.clone(), claim.key.clone()));
        let taken =
            append.taken.iter().map(|(claim, owner)| (claim.kind.clone(), claim.key.clone(), owner.clone()));
        let once = |once: Idempotency| Once {
            key: STANDARD.encode(once.key),
            fingerprint: STANDARD.encode(once.fingerprint),
        };
        Self {
            events: append.len(),
            released: released.collect(),
            taken: taken.collect(),
            idempotency: append.idempotency.map(once),
        }
    }

    /// The append, without its events so far.
    fn append(self, metadata: Metadata, at: Timestamp) -> Option<Append> {
        let idempotency = match self.idempotency {
            Some(once) => {
                Some(Idempotency { key: decode(&once.key)?, fingerprint: decode(&once.fingerprint)? })
            }
            None => None,
        };
        Some(Append {
            writes: vec![],
            guards: vec![],
            taken: self.taken.into_iter().map(|(kind, key, owner)| (Claim { kind, key }, owner)).collect(),
            released: self.released.into_iter().map(|(kind, key)| Claim { kind, key }).collect(),
            idempotency,
            metadata,
            at,
        })
    }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Puts appends together from the events of the stream, which come in order.
pub(super) struct Decoder {
    /// The position of the last event.
    position: u64,
    /// What has begun, and how many events are still to come.
    open: Option<(Append, usize)>,
}

impl Decoder {
    /// What comes first has the position after this one.
    pub(super) fn after(position: u64) -> Self {
        Self { position, open: None }
    }

    /// Takes the next event, and the revision that the server says it has. The answer is the append that it completes.
    pub(super) fn push(&mut self, revision: u64, entry: Entry) -> Result<Option<Append>, StoreError> {
        let position = self.position + 1;
        if revision != self.position {
            return Err(StoreError::Damaged(format!("event {position} is missing from the stream")));
        }
        let damaged = |what: &str| StoreError::Damaged(format!("event {position} of the stream {what}"));
        let about: About = serde_json::from_slice(&entry.metadata)
            .map_err(|error| damaged(&format!("is no event of a journal: {error}")))?;
        let event = new_event(position, entry, &about)
            .ok_or_else(|| damaged("is not as it was written: its checksum differs"))?;
        let (mut append, missing) = match (self.open.take(), about.append) {
            (None, Some(beginning)) => {
                let events = beginning.events;
                let append = beginning.append(about.metadata, about.at);
                (append.ok_or_else(|| damaged("has an idempotency key that is none"))?, events)
            }
            (Some(open), None) => open,
            (None, None) => return Err(damaged("continues an append that did not begin")),
            (Some(_), Some(_)) => return Err(damaged("begins an append before the one before it ended")),
        };
        // Events that follow each other in one stream are one write.
        match append.writes.last_mut() {
            Some(write)
                if write.stream == about.stream
                    && write.expected + write.events.len() as u64 + 1 == about.version =>
            {
                write.events.push(event);
            }
            _ => append.writes.push(Write {
                stream: about.stream,
                expected: about.version.checked_sub(1).ok_or_else(|| damaged("has no version"))?,
                events: vec![event],
            }),
        }
        self.position = position;
        match missing.checked_sub(1) {
            None => Err(damaged("belongs to an append of no events")),
            Some(0) => Ok(Some(append)),
            Some(missing) => {
                self.open = Some((append, missing));
                Ok(None)
            }
        }
    }
}

/// The event, if it is as it was written.
fn new_event(position: u64, entry: Entry, about: &About) -> Option<NewEvent> {
    let personal = match &about.personal {
        Some(text) => Some(STANDARD.decode(text).ok()?),
        None => None,
    };
    let metadata = serde_json::to_string(&about.metadata).ok()?;
    let numbers = [position, about.version].map(u64::cast_signed);
    let found = checksum(
        [numbers[0], numbers[1], about.schema_version.into(), about.at.as_microsecond()],
        [
            entry.id.as_bytes(),
            about.stream.as_str().as_bytes(),
            entry.name.as_bytes(),
            metadata.as_bytes(),
            entry.data.as_bytes(),
        ],
        [about.person.as_ref().map(|person| person.as_bytes().as_slice()), personal.as_deref()],
    );
    (STANDARD.encode(found) == about.checksum).then_some(NewEvent {
        id: entry.id,
        name: entry.name.into(),
        schema_version: about.schema_version,
        data: entry.data,
        person: about.person.map(UserId),
        personal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{append, claim, event, nothing, stream};
    use crate::sqlite::group::Group;

    /// Three events in two streams, with everything that an append can hold besides guards.
    fn full() -> Append {
        let mut append = append(&stream("a"), 0, 2);
        append.writes[0].events[1].person = Some(UserId(Uuid::from_u128(7)));
        append.writes[0].events[1].personal = Some(vec![0, 1, 255]);
        append.writes.push(Write { stream: stream("b"), expected: 0, events: vec![event()] });
        append.released = vec![claim("old")];
        append.taken = vec![(claim("new"), stream("b"))];
        append.idempotency = Some(Idempotency { key: [1; 32], fingerprint: [2; 32] });
        append
    }

    /// What these appends look like in an empty stream.
    fn entries(appends: &[Append]) -> Vec<Entry> {
        let mut group = Group::default();
        for (place, append) in appends.iter().enumerate() {
            group.resolve(place, append).expect("is accepted");
        }
        encode(&group.rows(appends))
    }

    fn read(entries: &[Entry]) -> Result<Vec<Append>, StoreError> {
        let mut decoder = Decoder::after(0);
        let pushed = entries.iter().zip(0..).map(|(entry, revision)| decoder.push(revision, entry.clone()));
        Ok(pushed.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn same(one: &Append, other: &Append) {
        assert_eq!(one.writes, other.writes);
        assert_eq!(one.taken, other.taken);
        assert_eq!(one.released, other.released);
        assert_eq!(one.idempotency, other.idempotency);
        assert_eq!(one.metadata, other.metadata);
        assert_eq!(one.at, other.at);
        assert_eq!(other.guards, []);
    }

    #[test]
    fn given_a_group_when_its_events_are_read_then_its_appends_are_as_before() {
        let appends = [full(), Append { guards: vec![(stream("b"), 1)], ..append(&stream("c"), 0, 1) }];
        let entries = entries(&appends);
        assert_eq!(entries.len(), 4);
        let found = read(&entries).expect("is whole");
        assert_eq!(found.len(), 2);
        for (sent, found) in appends.iter().zip(&found) {
            same(sent, found);
        }
    }

    #[test]
    fn given_writes_that_interleave_when_they_are_read_then_positions_and_versions_are_the_same() {
        let one = |name: &str, expected| append(&stream(name), expected, 1).writes.remove(0);
        let woven = Append { writes: vec![one("a", 0), one("b", 0), one("a", 1), one("a", 2)], ..nothing() };
        let found = read(&entries(std::slice::from_ref(&woven))).expect("is whole");
        let lengths: Vec<_> =
            found[0].writes.iter().map(|write| (write.expected, write.events.len())).collect();
        // The last two follow each other: one write says the same.
        assert_eq!(lengths, [(0, 1), (0, 1), (1, 2)]);
        assert_eq!(entries(&found), entries(&[woven]));
    }

    #[test]
    fn given_a_stream_that_was_tampered_with_when_it_is_read_then_it_is_damaged() {
        let whole = entries(&[full(), append(&stream("c"), 0, 1)]);
        let damage = |change: &dyn Fn(&mut Vec<Entry>)| {
            let mut entries = whole.clone();
            change(&mut entries);
            let Err(StoreError::Damaged(what)) = read(&entries) else { panic!("is damaged") };
            what
        };
        assert!(
            damage(&|entries| entries[1].data.push(' ')).contains("event 2 of the stream is not as it was")
        );
        assert!(damage(&|entries| entries[0].name.push('X')).contains("its checksum differs"));
        assert!(damage(&|entries| entries[3].id = Uuid::from_u128(1)).contains("event 4"));
        assert!(damage(&|entries| entries[0].metadata = b"{}".to_vec()).contains("is no event of a journal"));
        // Each event knows its position.
        assert!(damage(&|entries| entries.swap(0, 3)).contains("event 1"));
        assert!(damage(&|entries| drop(entries.remove(1))).contains("event 2"));
        let mut decoder = Decoder::after(0);
        let gap = decoder.push(1, whole[0].clone());
        assert_eq!(gap.err(), Some(StoreError::Damaged("event 1 is missing from the stream".to_owned())));
        let mut decoder = Decoder::after(1);
        let inside = decoder.push(1, whole[1].clone()).expect_err("is refused").to_string();
        assert!(inside.contains("continues an append that did not begin"), "{inside}");
    }

    #[test]
    fn nothing_is_complete_before_the_last_event_of_an_append() {
        let entries = entries(&[full()]);
        assert_eq!(read(&entries[..2]).expect("is whole so far").len(), 0);
        assert_eq!(read(&entries).expect("is whole").len(), 1);
    }
}
