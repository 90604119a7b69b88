//! MACs, with keys derived from the instance key, prove that a node of this instance wrote something.
//!
//! An event's MAC is made in two steps, as its position may be known only to the database. HMAC-SHA-256 of everything
//! else gives a key that is used for this event and never stored; SHA-256 of that key and the position gives the MAC,
//! which SQL can compute too. Neither can be made from the row alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{constant_time, digest, hmac};
use domain::StreamId;
use uuid::Uuid;

use crate::checksum::checksum;
use crate::instance_key::{InstanceKey, purpose};
use crate::journal::{Idempotency, StoreError, StoredIdempotency};
use crate::storage::Why;

/// The bytes of a MAC.
pub(crate) const MAC: usize = 16;

/// How many damaged events are remembered one by one.
const REMEMBERED: usize = 100;

/// The keys that prove what an instance wrote.
#[derive(Clone)]
pub struct Macs {
    keys: Arc<Keys>,
    /// Whether events without a MAC are accepted by their checksum: only in an older journal, until it is upgraded.
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

/// All columns of an event's row except its position.
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
    /// What formats before MACs store instead. PostgreSQL's did not know the position and used 0.
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

/// An event that no holder of the instance key wrote, as it is stored. None of it can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproven {
    /// Its position.
    pub position: u64,
    /// The stream that it names.
    pub stream: String,
    /// The version that it claims.
    pub version: i64,
    /// The event type that it claims.
    pub name: String,
    /// The app that it names.
    pub app_id: String,
    /// The time that it claims, in microseconds since 1970.
    pub at: i64,
    /// Its payload.
    pub data: String,
    /// The actor and the cause that it claims.
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

/// The end of a journal that no holder of the instance key wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgedTail {
    /// The position of the last proven event.
    pub proven: u64,
    /// The events after it, newest first.
    pub events: Vec<Unproven>,
}

/// The standing of a row that may be from before MACs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has its MAC.
    Proven,
    /// It has its checksum, or none: the first format had none.
    Old,
    /// It was altered.
    False,
}

impl Macs {
    /// The MACs of this instance. Nothing without a MAC is accepted.
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

    /// The same for a journal that is not upgraded yet.
    pub(crate) fn believing_checksums(self) -> Self {
        Self { believes_checksums: true, ..self }
    }

    /// The same for a journal that has been upgraded.
    pub(crate) fn believing_nothing_else(&self) -> Self {
        Self { keys: Arc::clone(&self.keys), believes_checksums: false }
    }

    /// Whether the journal has yet to be upgraded.
    pub(crate) fn believes_checksums(&self) -> bool {
        self.believes_checksums
    }

    /// The events found to be unproven, by position, and what is wrong with each.
    pub fn damage(&self) -> Vec<(u64, &'static str)> {
        self.damaged().iter().map(|(position, what)| (*position, *what)).collect()
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeMap<u64, &'static str>> {
        self.keys.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that, with the position, makes an event's MAC.
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

    /// Refuses an unproven event, and remembers it. `checksum_position` is what the old checksums of this store use as
    /// the position.
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
            Standing::Old => Some("it carries a checksum, which proves nothing, instead of a MAC"),
            Standing::False if self.believes_checksums => Some("neither its MAC nor its checksum matches"),
            Standing::False => {
                Some("its MAC is wrong: it was changed or moved, or was written without the instance key")
            }
        };
        self.remember(position.cast_unsigned(), wrong);
        match wrong {
            None => Ok(()),
            Some(wrong) => Err(StoreError::Damaged(format!("event {position} was altered: {wrong}"))),
        }
    }

    /// The standing of a row, whatever is accepted.
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

    /// The error for an event with an unreadable column, which is remembered too.
    pub(crate) fn unreadable(&self, position: i64, error: &sqlx::Error) -> StoreError {
        if !matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) {
            return StoreError::Unavailable(Why::of(error));
        }
        self.remember(position.cast_unsigned(), Some("a column of it cannot be read"));
        StoreError::Damaged(format!("event {position} was altered: {error}"))
    }

    fn remember(&self, position: u64, wrong: Option<&'static str>) {
        // Nearly always nothing is wrong, and this avoids the lock.
        if wrong.is_none() && !self.keys.has_damage.load(Ordering::Relaxed) {
            return;
        }
        let mut damage = self.damaged();
        match wrong {
            Some(wrong) => {
                metrics::counter!("watchword_journal_unproven_reads_total").increment(1);
                if damage.len() < REMEMBERED && damage.insert(position, wrong) != Some(wrong) {
                    tracing::error!(position, wrong, "an event of the journal was altered");
                }
            }
            None => drop(damage.remove(&position)),
        }
        self.keys.has_damage.store(!damage.is_empty(), Ordering::Relaxed);
        metrics::gauge!("watchword_journal_damaged_events")
            .set(u32::try_from(damage.len()).unwrap_or(u32::MAX));
    }

    /// The MAC of what an append contains besides its events, bound to the MAC of the first event. Only KurrentDB
    /// stores it with the events.
    #[cfg(feature = "kurrentdb")]
    pub(crate) fn append(&self, event: &[u8; MAC], beginning: &[u8]) -> [u8; 32] {
        let mut context = Framed::new(&self.keys.appends);
        context.part(event);
        context.part(beginning);
        context.finish()
    }

    /// The key that, with the positions of the events, makes the MAC of an idempotency key's row.
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

    /// Refuses an unproven row of an idempotency key: it would answer a request with another request's events.
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
                Err(format!("an idempotency key for events {first} to {last} has no valid MAC"))
            }
        }
    }

    /// The MAC of a stream's snapshot at a version whose last event has this id.
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

/// SHA-256 of a single-use key and the numbers that say where it is used. Both have fixed lengths, so nothing can be
/// appended; `append` in `postgres/journal_4.sql` computes the same.
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

/// An HMAC of parts that cannot run into each other.
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

    /// An absent part has a length that no present one can have.
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
            // The same bytes, split elsewhere.
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
    fn without_a_mac_nothing_is_accepted_unless_the_journal_has_yet_to_be_upgraded() {
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
        // It was restored.
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
