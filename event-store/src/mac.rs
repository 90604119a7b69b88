//! What proves that a node of this instance wrote something: MACs, with keys that are derived from the instance key.
//!
//! An event's MAC is made in two steps, as its position may be known to the database alone. HMAC-SHA-256 of everything
//! else gives a key that is used for this event and never kept; SHA-256 of that key and the position gives the MAC, which
//! SQL can compute as well. Whoever has the row alone can make neither.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{constant_time, digest, hmac};
use domain::StreamId;
use uuid::Uuid;

use crate::checksum::checksum;
use crate::instance_key::{InstanceKey, purpose};
use crate::journal::{Idempotency, StoreError, StoredIdempotency};

/// The bytes of a MAC.
pub(crate) const MAC: usize = 16;

/// How many damaged events are remembered one by one.
const REMEMBERED: usize = 100;

/// The keys with which an instance proves what it wrote.
#[derive(Clone)]
pub struct Macs {
    keys: Arc<Keys>,
    /// Whether events without a MAC are believed by their checksum: in a journal of before, until it was brought up to
    /// date.
    believes_checksums: bool,
}

struct Keys {
    events: hmac::Key,
    #[cfg(feature = "kurrentdb")]
    appends: hmac::Key,
    idempotency: hmac::Key,
    snapshots: hmac::Key,
    damage: Mutex<BTreeMap<u64, &'static str>>,
    has_damage: AtomicBool,
}

/// All that a row of an event holds besides its position.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) stream: &'a str,
    pub(crate) version: i64,
    pub(crate) name: &'a str,
    pub(crate) schema_version: i64,
    pub(crate) at: i64,
    pub(crate) app_id: &'a str,
    pub(crate) metadata: &'a str,
    pub(crate) data: &'a str,
    pub(crate) person: Option<&'a [u8]>,
    pub(crate) personal: Option<&'a [u8]>,
}

impl Row<'_> {
    /// What formats before MACs have in their place. PostgreSQL's did not know the position, which it left out as 0.
    pub(crate) fn checksum(&self, position: i64) -> [u8; 16] {
        checksum(
            [position, self.version, self.schema_version, self.at],
            [
                self.id,
                self.stream.as_bytes(),
                self.name.as_bytes(),
                self.metadata.as_bytes(),
                self.data.as_bytes(),
            ],
            [self.person, self.personal],
        )
    }
}

/// An event that nobody with the instance's key wrote, as it is stored: none of it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproven {
    /// Where it stands.
    pub position: u64,
    /// The stream it says it is in.
    pub stream: String,
    /// The version it says it has.
    pub version: i64,
    /// What it says happened.
    pub name: String,
    /// Its app.
    pub app_id: String,
    /// When it says that was, in microseconds since 1970.
    pub at: i64,
    /// Its payload.
    pub data: String,
    /// Who it says did it and why.
    pub metadata: String,
}

impl Unproven {
    pub(crate) fn new(position: i64, row: &Row<'_>) -> Self {
        Self {
            position: position.cast_unsigned(),
            stream: row.stream.to_owned(),
            version: row.version,
            name: row.name.to_owned(),
            app_id: row.app_id.to_owned(),
            at: row.at,
            data: row.data.to_owned(),
            metadata: row.metadata.to_owned(),
        }
    }
}

/// The end of a journal that nobody with the instance's key wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgedTail {
    /// The position of the last event that is proven.
    pub proven: u64,
    /// What stands behind it, newest first.
    pub events: Vec<Unproven>,
}

/// What a row that was written before there were MACs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has its MAC.
    Proven,
    /// It has its checksum, or none, as the first format had none.
    Old,
    /// It is not as it was written.
    False,
}

impl Macs {
    /// Those of this instance. Nothing without a MAC is believed.
    pub fn new(instance: &InstanceKey) -> Self {
        let key = |purpose| hmac::Key::new(hmac::HMAC_SHA256, &*instance.derive(purpose));
        let keys = Keys {
            events: key(purpose::EVENTS),
            #[cfg(feature = "kurrentdb")]
            appends: key(purpose::APPENDS),
            idempotency: key(purpose::IDEMPOTENCY),
            snapshots: key(purpose::SNAPSHOTS),
            damage: Mutex::default(),
            has_damage: AtomicBool::new(false),
        };
        Self { keys: Arc::new(keys), believes_checksums: false }
    }

    /// The same for a journal that was not brought up to date yet.
    pub(crate) fn believing_checksums(self) -> Self {
        Self { believes_checksums: true, ..self }
    }

    /// The same for a journal that was brought up to date.
    pub(crate) fn believing_nothing_else(&self) -> Self {
        Self { keys: Arc::clone(&self.keys), believes_checksums: false }
    }

    /// Whether the journal is still to be brought up to date.
    pub(crate) fn believes_checksums(&self) -> bool {
        self.believes_checksums
    }

    /// The events that were read and are not proven, by position, and what is wrong with each.
    pub fn damage(&self) -> Vec<(u64, &'static str)> {
        self.damaged().iter().map(|(position, what)| (*position, *what)).collect()
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeMap<u64, &'static str>> {
        self.keys.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the MAC of an event is made of, together with its position.
    pub(crate) fn event_key(&self, row: &Row<'_>) -> [u8; 32] {
        let mut context = Framed::new(&self.keys.events);
        for number in [row.version, row.schema_version, row.at] {
            context.number(number);
        }
        context.part(row.id);
        for text in [row.stream, row.name, row.app_id, row.metadata, row.data] {
            context.part(text.as_bytes());
        }
        context.optional(row.person);
        context.optional(row.personal);
        context.finish()
    }

    /// The MAC of an event.
    pub(crate) fn event(&self, position: i64, row: &Row<'_>) -> [u8; MAC] {
        at(&self.event_key(row), &[position])
    }

    /// Refuses an event that is not proven, and remembers it. `checksum_position` is what the old checksums of this store
    /// took for the position.
    pub(crate) fn check_event(
        &self,
        position: i64,
        checksum_position: i64,
        row: &Row<'_>,
        found: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let wrong = match self.standing(position, checksum_position, row, found) {
            Standing::Proven => None,
            Standing::Old if self.believes_checksums => None,
            Standing::Old if found.is_none() => Some("it carries no MAC"),
            Standing::Old => Some("it carries a checksum, which proves nothing, in the place of its MAC"),
            Standing::False if self.believes_checksums => Some("neither its MAC nor its checksum fits"),
            Standing::False => Some(
                "its MAC is false: it was changed or moved, or somebody without the instance's key wrote it",
            ),
        };
        self.remember(position.cast_unsigned(), wrong);
        match wrong {
            None => Ok(()),
            Some(wrong) => {
                Err(StoreError::Damaged(format!("event {position} is not as it was written: {wrong}")))
            }
        }
    }

    /// What a row is, whatever is believed.
    pub(crate) fn standing(
        &self,
        position: i64,
        checksum_position: i64,
        row: &Row<'_>,
        found: Option<&[u8]>,
    ) -> Standing {
        let Some(found) = found else { return Standing::Old };
        if constant_time::verify_slices_are_equal(&self.event(position, row), found).is_ok() {
            Standing::Proven
        } else if row.checksum(checksum_position) == found {
            Standing::Old
        } else {
            Standing::False
        }
    }

    /// An event of which a column cannot even be read, remembered as well.
    pub(crate) fn unreadable(&self, position: i64, error: &sqlx::Error) -> StoreError {
        if !matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) {
            return StoreError::Unavailable(error.to_string());
        }
        self.remember(position.cast_unsigned(), Some("a column of it cannot be read"));
        StoreError::Damaged(format!("event {position} is not as it was written: {error}"))
    }

    fn remember(&self, position: u64, wrong: Option<&'static str>) {
        // Nearly always nothing is wrong, and no lock is taken.
        if wrong.is_none() && !self.keys.has_damage.load(Ordering::Relaxed) {
            return;
        }
        let mut damage = self.damaged();
        match wrong {
            Some(wrong) => {
                metrics::counter!("watchword_journal_unproven_reads_total").increment(1);
                if damage.len() < REMEMBERED && damage.insert(position, wrong) != Some(wrong) {
                    tracing::error!(position, wrong, "an event of the journal is not as it was written");
                }
            }
            None => drop(damage.remove(&position)),
        }
        self.keys.has_damage.store(!damage.is_empty(), Ordering::Relaxed);
        metrics::gauge!("watchword_journal_damaged_events")
            .set(u32::try_from(damage.len()).unwrap_or(u32::MAX));
    }

    /// The MAC of what an append does besides its events, bound to the MAC of the first of them. Only KurrentDB keeps it with
    /// the events.
    #[cfg(feature = "kurrentdb")]
    pub(crate) fn append(&self, event: &[u8; MAC], beginning: &[u8]) -> [u8; 32] {
        let mut context = Framed::new(&self.keys.appends);
        context.part(event);
        context.part(beginning);
        context.finish()
    }

    /// What the MAC of an idempotency key's row is made of, together with the positions of its events.
    pub(crate) fn idempotency_key(&self, once: &Idempotency) -> [u8; 32] {
        let mut context = Framed::new(&self.keys.idempotency);
        context.part(&once.key);
        context.part(&once.fingerprint);
        context.finish()
    }

    /// The MAC of an idempotency key's row.
    pub(crate) fn idempotency(&self, key: &[u8; 32], stored: &StoredIdempotency) -> [u8; MAC] {
        let StoredIdempotency { fingerprint, first, last } = *stored;
        let positions = [first, last].map(u64::cast_signed);
        at(&self.idempotency_key(&Idempotency { key: *key, fingerprint }), &positions)
    }

    /// Refuses the row of an idempotency key that is not proven: it would have a request answered with somebody else's
    /// events.
    pub(crate) fn check_idempotency(
        &self,
        key: &[u8; 32],
        stored: &StoredIdempotency,
        found: Option<&[u8]>,
    ) -> Result<(), String> {
        match found {
            Some(found)
                if constant_time::verify_slices_are_equal(&self.idempotency(key, stored), found).is_ok() =>
            {
                Ok(())
            }
            None if self.believes_checksums => Ok(()),
            _ => {
                metrics::counter!("watchword_journal_unproven_reads_total").increment(1);
                tracing::error!(
                    first = stored.first,
                    last = stored.last,
                    "the row of an idempotency key is not proven"
                );
                let StoredIdempotency { first, last, .. } = stored;
                Err(format!("an idempotency key that names the events {first} to {last} has no valid MAC"))
            }
        }
    }

    /// The MAC of a snapshot of a stream at a version, whose last event has this id.
    pub(crate) fn snapshot(&self, stream: &StreamId, version: u64, last: Uuid, state: &[u8]) -> [u8; 32] {
        let mut context = Framed::new(&self.keys.snapshots);
        context.number(version.cast_signed());
        context.part(stream.as_str().as_bytes());
        context.part(last.as_bytes());
        context.part(state);
        context.finish()
    }

    /// Whether a snapshot has this MAC.
    pub(crate) fn is_snapshot(
        &self,
        stream: &StreamId,
        version: u64,
        last: Uuid,
        state: &[u8],
        found: &[u8],
    ) -> bool {
        constant_time::verify_slices_are_equal(&self.snapshot(stream, version, last, state), found).is_ok()
    }
}

impl std::fmt::Debug for Macs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Macs(…)")
    }
}

/// SHA-256 of a key that is used once, and where it is used. Key and numbers have fixed lengths, so nothing can be appended
/// to them; `append` in `postgres/journal_4.sql` computes the same.
fn at(key: &[u8; 32], numbers: &[i64]) -> [u8; MAC] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(key);
    for number in numbers {
        context.update(&number.to_be_bytes());
    }
    let mut mac = [0; MAC];
    mac.copy_from_slice(&context.finish().as_ref()[..MAC]);
    mac
}

/// An HMAC of parts of which none can run into the next.
struct Framed(hmac::Context);

impl Framed {
    fn new(key: &hmac::Key) -> Self {
        Self(hmac::Context::with_key(key))
    }

    fn number(&mut self, number: i64) {
        self.0.update(&number.to_be_bytes());
    }

    fn part(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// An absent part has a length that a present one cannot have.
    fn optional(&mut self, part: Option<&[u8]>) {
        match part {
            Some(part) => self.part(part),
            None => self.0.update(&u64::MAX.to_be_bytes()),
        }
    }

    fn finish(self) -> [u8; 32] {
        let mut mac = [0; 32];
        mac.copy_from_slice(self.0.sign().as_ref());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row<'static> {
        Row {
            id: &[7; 16],
            stream: "user-1",
            version: 3,
            name: "RoleGranted",
            schema_version: 1,
            at: 1_800_000_000_000_000,
            app_id: "acme",
            metadata: "{}",
            data: r#"{"role":"admin"}"#,
            person: Some(&[9; 16]),
            personal: Some(&[0, 1, 2]),
        }
    }

    #[test]
    fn every_part_of_an_event_and_its_position_change_its_mac() {
        let macs = Macs::new(&InstanceKey::generate());
        let mac = macs.event(5, &row());
        let changed = [
            Row { id: &[8; 16], ..row() },
            Row { stream: "user-2", ..row() },
            Row { version: 4, ..row() },
            Row { name: "RoleRevoked", ..row() },
            Row { schema_version: 2, ..row() },
            Row { at: 1, ..row() },
            Row { app_id: "acmf", ..row() },
            Row { metadata: "{ }", ..row() },
            Row { data: "{}", ..row() },
            Row { person: None, ..row() },
            Row { personal: None, ..row() },
            Row { personal: Some(&[]), ..row() },
            // The same bytes, parted elsewhere.
            Row { stream: "user-1R", name: "oleGranted", ..row() },
        ];
        for changed in changed {
            assert_ne!(macs.event(5, &changed), mac);
        }
        assert_ne!(macs.event(6, &row()), mac);
        assert_ne!(Macs::new(&InstanceKey::generate()).event(5, &row()), mac);
        assert_eq!(macs.event(5, &row()), mac);
    }

    #[test]
    fn without_a_mac_nothing_is_believed_unless_the_journal_is_still_to_be_brought_up_to_date() {
        let macs = Macs::new(&InstanceKey::generate());
        let (mac, sum) = (macs.event(5, &row()), row().checksum(5));
        let foreign = Macs::new(&InstanceKey::generate()).event(5, &row());
        let check = |macs: &Macs, found: Option<&[u8]>| macs.check_event(5, 5, &row(), found);
        assert_eq!(check(&macs, Some(&mac)), Ok(()));
        let false_ones: [Option<&[u8]>; 6] =
            [None, Some(&[]), Some(&[0; 16]), Some(&sum), Some(&foreign), Some(&mac[..15])];
        for found in false_ones {
            let error = check(&macs, found).expect_err("is refused").to_string();
            assert!(error.contains("event 5"), "{error}");
            assert_eq!(macs.damage().len(), 1);
        }
        // It was put back.
        assert_eq!(check(&macs, Some(&mac)), Ok(()));
        assert_eq!(macs.damage(), []);
        let old = macs.clone().believing_checksums();
        for found in [None, Some(&sum[..]), Some(&mac[..])] {
            assert_eq!(check(&old, found), Ok(()));
        }
        for found in [&[][..], &[0; 16], &foreign] {
            assert!(check(&old, Some(found)).is_err());
        }
    }

    #[test]
    fn the_row_of_an_idempotency_key_is_bound_to_key_request_and_events() {
        let macs = Macs::new(&InstanceKey::generate());
        let stored = StoredIdempotency { fingerprint: [2; 32], first: 5, last: 6 };
        let mac = macs.idempotency(&[1; 32], &stored);
        assert_eq!(macs.check_idempotency(&[1; 32], &stored, Some(&mac)), Ok(()));
        for (key, stored) in [
            ([3; 32], stored),
            ([1; 32], StoredIdempotency { fingerprint: [3; 32], ..stored }),
            ([1; 32], StoredIdempotency { first: 4, ..stored }),
            ([1; 32], StoredIdempotency { last: 7, ..stored }),
        ] {
            assert!(macs.check_idempotency(&key, &stored, Some(&mac)).is_err());
        }
        assert!(macs.check_idempotency(&[1; 32], &stored, None).is_err());
    }
}
