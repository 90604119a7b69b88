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
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::journal::{Append, Claim, Idempotency, NewEvent, StoreError, Write};
use crate::mac::{Macs, Row, Standing};
use crate::master_key::JournalMark;
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
    /// As it was written, byte for byte: the MAC is of it.
    metadata: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    /// In events of before, in the place of the MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    /// Where it begins an append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    append: Option<Beginning>,
}

/// What an append is besides its events. Its guards held when it was decided, and are not kept.
#[derive(Serialize, Deserialize)]
struct Beginning {
    /// Of all else that is in here, and of the MAC of the event it is with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
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
pub(super) fn encode(rows: &[EventRow<'_>], macs: &Macs) -> Vec<Entry> {
    let mut before: Option<&Append> = None;
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let begins = before.is_none_or(|before| !std::ptr::eq(before, row.append));
        before = Some(row.append);
        let event = row.event;
        let mac = row.mac(macs);
        let metadata = serde_json::value::to_raw_value(&row.append.metadata);
        let about = About {
            stream: row.stream.clone(),
            version: row.version,
            schema_version: event.schema_version,
            at: row.append.at,
            person: event.person.map(|person| person.0),
            personal: event.personal.as_ref().map(|personal| STANDARD.encode(personal)),
            metadata: metadata.expect("metadata is a plain struct"),
            mac: Some(STANDARD.encode(mac)),
            checksum: None,
            append: begins.then(|| {
                let beginning = Beginning::of(row.append);
                Beginning { mac: Some(beginning.mac(&mac, macs)), ..beginning }
            }),
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
            mac: None,
            events: append.len(),
            released: released.collect(),
            taken: taken.collect(),
            idempotency: append.idempotency.map(once),
        }
    }

    /// The MAC of all of it, beside that of its event.
    fn mac(&self, event: &[u8; 16], macs: &Macs) -> String {
        let Self { mac: _, events, released, taken, idempotency } = self;
        let once = idempotency.as_ref().map(|once| (&once.key, &once.fingerprint));
        let bytes = serde_json::to_vec(&(events, released, taken, once)).expect("it is a plain struct");
        STANDARD.encode(macs.append(event, &bytes))
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
pub(super) struct Decoder<'m> {
    macs: &'m Macs,
    /// Up to where events need no MAC, and the digest of those so far.
    unkeyed: &'m mut Unkeyed,
    /// The position of the last event.
    position: u64,
    /// What has begun, and how many events are still to come.
    open: Option<(Append, usize)>,
}

/// The events that were written before there were MACs. Nothing in a stream of KurrentDB is ever written anew, so they never
/// get any; what makes them believed is their digest, which the key store has sealed.
#[derive(Clone, Debug, Default)]
pub(super) struct Unkeyed {
    /// What is known of them; nothing yet where the key store does not say that the journal carries MACs.
    known: Option<JournalMark>,
    /// The position of the last one that was read, and the digest of all up to it.
    read: u64,
    digest: [u8; 32],
}

impl Unkeyed {
    pub(super) fn new(known: Option<JournalMark>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Up to where they were read and found, if the key store did not know before.
    pub(super) fn found(&self) -> JournalMark {
        self.known.clone().unwrap_or(JournalMark { unkeyed: self.read, digest: self.digest })
    }

    /// Takes the next event that carries no MAC. Whether it is believed so far.
    fn push(&mut self, position: u64, mac: &[u8; 16], beginning: Option<&Beginning>, macs: &Macs) -> bool {
        if position != self.read + 1 || self.known.as_ref().is_some_and(|known| position > known.unkeyed) {
            return false;
        }
        let beginning = beginning.map_or_else(String::new, |beginning| beginning.mac(mac, macs));
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in [&self.digest[..], mac, beginning.as_bytes()] {
            context.update(part);
        }
        self.digest.copy_from_slice(context.finish().as_ref());
        self.read = position;
        let known = self.known.as_ref().filter(|known| known.unkeyed == position);
        known.is_none_or(|known| known.digest == self.digest)
    }
}

impl<'m> Decoder<'m> {
    /// What comes first has the position after this one.
    pub(super) fn after(position: u64, macs: &'m Macs, unkeyed: &'m mut Unkeyed) -> Self {
        Self { macs, unkeyed, position, open: None }
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
        let metadata: Metadata = serde_json::from_str(about.metadata.get())
            .map_err(|error| damaged(&format!("is no event of a journal: {error}")))?;
        let event = new_event(position, entry, &about, &metadata, self.macs, self.unkeyed)
            .map_err(|wrong| damaged(&format!("is not as it was written: {wrong}")))?;
        let (mut append, missing) = match (self.open.take(), about.append) {
            (None, Some(beginning)) => {
                let events = beginning.events;
                let append = beginning.append(metadata, about.at);
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

/// The event, if it is as it was written; else what is wrong.
fn new_event(
    position: u64,
    entry: Entry,
    about: &About,
    metadata: &Metadata,
    macs: &Macs,
    unkeyed: &mut Unkeyed,
) -> Result<NewEvent, &'static str> {
    let bytes = |text: &String| STANDARD.decode(text).map_err(|_| "it holds something that is no Base64");
    let personal = about.personal.as_ref().map(bytes).transpose()?;
    let found = about.mac.as_ref().or(about.checksum.as_ref()).map(bytes).transpose()?;
    let row = Row {
        id: entry.id.as_bytes(),
        stream: about.stream.as_str(),
        version: about.version.cast_signed(),
        name: &entry.name,
        schema_version: about.schema_version.into(),
        at: about.at.as_microsecond(),
        app_id: metadata.app_id.as_str(),
        metadata: about.metadata.get(),
        data: &entry.data,
        person: about.person.as_ref().map(|person| person.as_bytes().as_slice()),
        personal: personal.as_deref(),
    };
    let place = position.cast_signed();
    let mac = macs.event(place, &row);
    match macs.standing(place, place, &row, found.as_deref()) {
        Standing::Proven => {
            if let Some(beginning) = &about.append
                && beginning.mac.as_deref() != Some(beginning.mac(&mac, macs).as_str())
            {
                return Err("the MAC of its claims and its idempotency key is false");
            }
        }
        Standing::Old if found.is_some() && unkeyed.push(position, &mac, about.append.as_ref(), macs) => {}
        Standing::Old => return Err("it carries no MAC, or is not among those that were there before MACs"),
        Standing::False => return Err("its MAC is false"),
    }
    Ok(NewEvent {
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
    use crate::contract::{append, claim, event, macs, nothing, stream};
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
        let mut group = Group::new(&macs());
        for (place, append) in appends.iter().enumerate() {
            group.resolve(place, append).expect("is accepted");
        }
        encode(&group.rows(appends), &macs())
    }

    fn read(entries: &[Entry]) -> Result<Vec<Append>, StoreError> {
        let (macs, mut unkeyed) = (macs(), Unkeyed::new(Some(JournalMark::default())));
        let mut decoder = Decoder::after(0, &macs, &mut unkeyed);
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
        assert!(damage(&|entries| entries[0].name.push('X')).contains("its MAC is false"));
        assert!(damage(&|entries| entries[3].id = Uuid::from_u128(1)).contains("event 4"));
        assert!(damage(&|entries| entries[0].metadata = b"{}".to_vec()).contains("is no event of a journal"));
        // Each event knows its position.
        assert!(damage(&|entries| entries.swap(0, 3)).contains("event 1"));
        assert!(damage(&|entries| drop(entries.remove(1))).contains("event 2"));
        let (macs, mut unkeyed) = (macs(), Unkeyed::new(Some(JournalMark::default())));
        let mut decoder = Decoder::after(0, &macs, &mut unkeyed);
        let gap = decoder.push(1, whole[0].clone());
        assert_eq!(gap.err(), Some(StoreError::Damaged("event 1 is missing from the stream".to_owned())));
        let mut decoder = Decoder::after(1, &macs, &mut unkeyed);
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
