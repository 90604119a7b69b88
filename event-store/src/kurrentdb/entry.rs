//! Converts between appends and the events of the server's stream.
//!
//! An event has the same type and data as in the other adapters. Its metadata is JSON too, and holds everything else
//! that the journal keeps about it. The metadata of an append's first event also holds the number of its events, the
//! claims released and taken, and the idempotency key.

use std::cmp::Ordering;

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
    /// Its type, as the server knows it.
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
    /// As it was written, byte for byte: the MAC covers it.
    metadata: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    /// In events from before MACs, instead of the MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    /// Present in the first event of an append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    append: Option<Beginning>,
    /// See [`goes_on`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    goes_on: bool,
}

/// Whether an event with this metadata is followed by another one that was sent with it, and so is in the stream with it.
///
/// No MAC covers that. It only tells a node that more is about to be pushed; what the stream holds, the server says.
pub(super) fn goes_on(metadata: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct About {
        #[serde(default)]
        goes_on: bool,
    }
    serde_json::from_slice(metadata).is_ok_and(|about: About| about.goes_on)
}

/// What an append contains besides its events. Its guards held when it was decided, and are not stored.
#[derive(Serialize, Deserialize)]
struct Beginning {
    /// Covers the other fields, and the MAC of the event that carries this.
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

/// Encodes the events of a group for sending.
pub(super) fn encode(rows: &[EventRow<'_>], macs: &Macs) -> Vec<Entry> {
    let mut before: Option<&Append> = None;
    let mut entries = Vec::with_capacity(rows.len());
    for (number, row) in (1..).zip(rows) {
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
            goes_on: number < rows.len(),
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

    /// The MAC of all of it, in addition to that of its event.
    fn mac(&self, event: &[u8; 16], macs: &Macs) -> String {
        let Self { mac: _, events, released, taken, idempotency } = self;
        let once = idempotency.as_ref().map(|once| (&once.key, &once.fingerprint));
        let bytes = serde_json::to_vec(&(events, released, taken, once)).expect("it is a plain struct");
        STANDARD.encode(macs.append(event, &bytes))
    }

    /// The append, still without events.
    fn append(self, metadata: Metadata, at: Timestamp) -> Option<Append> {
        let idempotency = match self.idempotency {
            Some(once) => Some(once.decode()?),
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

impl Once {
    fn decode(self) -> Option<Idempotency> {
        let bytes = |text: String| STANDARD.decode(text).ok()?.try_into().ok();
        Some(Idempotency { key: bytes(self.key)?, fingerprint: bytes(self.fingerprint)? })
    }
}

/// Reassembles appends from the events of the stream, which arrive in order.
pub(super) struct Decoder<'m> {
    macs: &'m Macs,
    /// The events that need no MAC, and the digest of those read so far.
    unkeyed: &'m mut Unkeyed,
    /// The position of the last event.
    position: u64,
    /// The append in progress.
    open: Option<Open>,
    /// Whether the next events may belong to an append whose first event is missing.
    is_torn: bool,
}

struct Open {
    append: Append,
    /// How many events it has, and how many of them have not arrived yet.
    events: usize,
    missing: usize,
}

/// What the stream holds, in order.
#[derive(Debug)]
pub(super) enum Decoded {
    /// A complete append, as a node of this instance sent it.
    Whole(Append),
    /// Proven events of an append of this many, some of whose events were altered.
    Part(Append, usize),
    /// An event that no holder of the instance key wrote at this position. It has no effect, except that its stream
    /// accepts no more appends.
    Unproven(Unproven),
}

/// What such an event says. None of it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unproven {
    pub(super) id: Uuid,
    pub(super) stream: StreamId,
    pub(super) name: String,
    pub(super) schema_version: u16,
    /// Microseconds since 1970.
    pub(super) at: i64,
    pub(super) app_id: String,
    pub(super) metadata: String,
    pub(super) data: String,
    pub(super) person: Option<Uuid>,
    pub(super) personal: Option<Vec<u8>>,
    /// What it carries as a MAC.
    pub(super) mac: Option<Vec<u8>>,
    /// The claims that it says it takes. If it was altered, they belong to its stream and must not become free.
    pub(super) taken: Vec<Claim>,
    /// The idempotency key that it says it has. If it was altered, its request must not run again.
    pub(super) idempotency: Option<Idempotency>,
}

impl Unproven {
    /// Whatever can be read of it. If it does not even name a stream, it stops none.
    fn new(position: u64, entry: Entry) -> Self {
        let about: Option<About> = serde_json::from_slice(&entry.metadata).ok();
        let Some(about) = about else {
            return Self {
                id: entry.id,
                stream: StreamId::from_stored(format!("unreadable-{position}")),
                name: entry.name,
                schema_version: 0,
                at: 0,
                app_id: String::new(),
                metadata: String::from_utf8_lossy(&entry.metadata).into_owned(),
                data: entry.data,
                person: None,
                personal: None,
                mac: None,
                taken: vec![],
                idempotency: None,
            };
        };
        let metadata = about.metadata.get().to_owned();
        let app_id = serde_json::from_str(&metadata).map(|metadata: Metadata| metadata.app_id.to_string());
        let bytes = |text: String| STANDARD.decode(text).unwrap_or_default();
        let (taken, once) = about.append.map(|it| (it.taken, it.idempotency)).unwrap_or_default();
        Self {
            id: entry.id,
            stream: about.stream,
            name: entry.name,
            schema_version: about.schema_version,
            at: about.at.as_microsecond(),
            app_id: app_id.unwrap_or_default(),
            metadata,
            data: entry.data,
            person: about.person,
            personal: about.personal.map(bytes),
            mac: about.mac.or(about.checksum).map(bytes),
            taken: taken.into_iter().map(|(kind, key, _)| Claim { kind, key }).collect(),
            idempotency: once.and_then(Once::decode),
        }
    }
}

/// The events that were written before MACs were introduced. Nothing in a KurrentDB stream is ever rewritten, so they
/// never get MACs; they are accepted because of their digest, which the key store has sealed.
#[derive(Clone, Debug, Default)]
pub(super) struct Unkeyed {
    /// What is known of them; `None` while the key store does not say that the journal carries MACs.
    known: Option<JournalMark>,
    /// The position of the last one read, and the digest of all up to it.
    read: u64,
    digest: [u8; 32],
}

impl Unkeyed {
    pub(super) fn new(known: Option<JournalMark>) -> Self {
        Self { known, ..Self::default() }
    }

    /// The mark of the key store or, if it has none, one of the events read so far.
    pub(super) fn found(&self) -> JournalMark {
        self.known.clone().unwrap_or(JournalMark { unkeyed: self.read, digest: self.digest })
    }

    /// Takes the next event without a MAC. Returns whether it is one of the accepted ones.
    ///
    /// They have one digest, so all are accepted or none. The digest includes one that was damaged before it was
    /// computed; that event stays unproven.
    fn push(
        &mut self,
        position: u64,
        mac: Option<&[u8; 16]>,
        beginning: Option<&Beginning>,
        macs: &Macs,
    ) -> bool {
        let known = self.known.as_ref();
        if position != self.read + 1 || known.is_some_and(|known| position > known.unkeyed) {
            return false;
        }
        let beginning = beginning.zip(mac).map_or_else(String::new, |(it, mac)| it.mac(mac, macs));
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in [&self.digest[..], mac.map_or(&[][..], |mac| &mac[..]), beginning.as_bytes()] {
            context.update(part);
        }
        self.digest.copy_from_slice(context.finish().as_ref());
        self.read = position;
        true
    }

    /// Checks those up to this position against the mark, if it is the position of the last of them. `at_end` says that
    /// the whole stream was read.
    pub(super) fn check(&self, position: u64, at_end: bool) -> Result<(), StoreError> {
        let Some(JournalMark { unkeyed, digest }) = self.known.as_ref().filter(|known| known.unkeyed > 0)
        else {
            return Ok(());
        };
        let are_known = match position.cmp(unkeyed) {
            Ordering::Less => !at_end,
            Ordering::Equal if !at_end => self.read == position && self.digest == *digest,
            Ordering::Equal | Ordering::Greater => true,
        };
        if are_known {
            return Ok(());
        }
        Err(StoreError::Damaged(format!(
            "events 1 to {unkeyed} of the stream, which carry no MAC, are not those that the key store knows: one of them \
             was changed, or journal and key store come from different backups. Restore both from the same backup"
        )))
    }
}

impl<'m> Decoder<'m> {
    /// A decoder whose first event follows this position. `is_torn` says whether events before it were altered.
    pub(super) fn after(position: u64, is_torn: bool, macs: &'m Macs, unkeyed: &'m mut Unkeyed) -> Self {
        Self { macs, unkeyed, position, open: None, is_torn }
    }

    /// Takes the next event, with its revision according to the server, and adds what it completes to `complete`.
    pub(super) fn push(
        &mut self,
        revision: u64,
        entry: Entry,
        complete: &mut Vec<Decoded>,
    ) -> Result<(), StoreError> {
        let position = self.position + 1;
        if revision != self.position {
            return Err(StoreError::Damaged(format!("event {position} is missing from the stream")));
        }
        let proven = proven(position, &entry, self.macs, self.unkeyed);
        self.unkeyed.check(position, false)?;
        self.position = position;
        // An event that neither begins an append nor belongs to one has lost its append's beginning to tampering.
        let proven = proven.filter(|it| it.about.append.is_some() || self.open.is_some() || self.is_torn);
        let Some(Proven { about, metadata, event }) = proven else {
            complete.extend(self.break_off());
            self.is_torn = true;
            complete.push(Decoded::Unproven(Unproven::new(position, entry)));
            return Ok(());
        };
        let Some(expected) = about.version.checked_sub(1) else {
            return Err(StoreError::Damaged(format!("event {position} of the stream has no version")));
        };
        if let Some(beginning) = about.append {
            // The events between were altered.
            complete.extend(self.break_off());
            self.is_torn = false;
            let events = beginning.events;
            let append = beginning.append(metadata, about.at).filter(|_| events > 0).ok_or_else(|| {
                StoreError::Damaged(format!("event {position} of the stream begins an invalid append"))
            })?;
            self.open = Some(Open { append, events, missing: events });
        } else if self.open.is_none() {
            // The first event of its append was altered.
            let write = Write { stream: about.stream, expected, events: vec![event] };
            let alone =
                Beginning { mac: None, events: 1, released: vec![], taken: vec![], idempotency: None };
            let append =
                alone.append(metadata, about.at).map(|append| Append { writes: vec![write], ..append });
            complete.extend(append.map(|append| Decoded::Part(append, 1)));
            return Ok(());
        }
        let mut open = self.open.take().expect("an append is open");
        // Consecutive events of one stream are one write.
        match open.append.writes.last_mut() {
            Some(write)
                if write.stream == about.stream && write.expected + write.events.len() as u64 == expected =>
            {
                write.events.push(event);
            }
            _ => open.append.writes.push(Write { stream: about.stream, expected, events: vec![event] }),
        }
        open.missing -= 1;
        if open.missing == 0 {
            complete.push(Decoded::Whole(open.append));
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    /// The events so far of an append whose other events are missing.
    fn break_off(&mut self) -> Option<Decoded> {
        let Open { append, events, .. } = self.open.take()?;
        Some(Decoded::Part(append, events))
    }
}

/// An unaltered event.
struct Proven {
    about: About,
    metadata: Metadata,
    event: NewEvent,
}

/// The event, if a node of this instance wrote it at this position.
fn proven(position: u64, entry: &Entry, macs: &Macs, unkeyed: &mut Unkeyed) -> Option<Proven> {
    let read = read(entry);
    let standing = read.as_ref().map(|(about, metadata, personal, found)| {
        let row = about.row(entry, metadata, personal.as_deref());
        let place = position.cast_signed();
        (macs.event(place, &row), macs.standing(place, place, &row, found.as_deref()))
    });
    let is_proven = match (&read, standing) {
        (Some((about, ..)), Some((mac, Standing::Proven))) => about
            .append
            .as_ref()
            .is_none_or(|beginning| beginning.mac.as_deref() == Some(beginning.mac(&mac, macs).as_str())),
        (Some((about, _, _, Some(_))), Some((mac, Standing::Old))) => {
            unkeyed.push(position, Some(&mac), about.append.as_ref(), macs)
        }
        _ => {
            unkeyed.push(position, None, None, macs);
            false
        }
    };
    read.filter(|_| is_proven).map(|(about, metadata, personal, _)| {
        let event = NewEvent {
            id: entry.id,
            name: entry.name.clone().into(),
            schema_version: about.schema_version,
            data: entry.data.clone(),
            person: about.person.map(UserId),
            personal,
        };
        Proven { about, metadata, event }
    })
}

/// What an event's metadata holds, with its metadata in the journal, its personal part and its MAC.
type Read = (About, Metadata, Option<Vec<u8>>, Option<Vec<u8>>);

fn read(entry: &Entry) -> Option<Read> {
    let about: About = serde_json::from_slice(&entry.metadata).ok()?;
    let metadata: Metadata = serde_json::from_str(about.metadata.get()).ok()?;
    let bytes = |text: &String| STANDARD.decode(text).ok();
    let personal = match &about.personal {
        Some(personal) => Some(bytes(personal)?),
        None => None,
    };
    let found = about.mac.as_ref().or(about.checksum.as_ref()).and_then(bytes);
    Some((about, metadata, personal, found))
}

impl About {
    fn row<'a>(&'a self, entry: &'a Entry, metadata: &'a Metadata, personal: Option<&'a [u8]>) -> Row<'a> {
        Row {
            id: entry.id.as_bytes(),
            stream: self.stream.as_str(),
            version: self.version.cast_signed(),
            name: &entry.name,
            schema_version: self.schema_version.into(),
            at: self.at.as_microsecond(),
            app_id: metadata.app_id.as_str(),
            metadata: self.metadata.get(),
            data: &entry.data,
            person: self.person.as_ref().map(|person| person.as_bytes().as_slice()),
            personal,
        }
    }
}

#[cfg(test)]
mod tests;
