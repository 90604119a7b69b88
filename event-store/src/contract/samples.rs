//! Streams, claims, appends and MACs for the tests of adapters.

use std::time::Duration;

use domain::{AppId, StreamId};
use schemas::envelope::{Actor, Metadata, RecordedEvent};
use uuid::Uuid;

use crate::clock::{Clock, SystemClock};
use crate::instance_key::InstanceKey;
use crate::journal::{Append, Claim, NewEvent, Write};
use crate::mac::{Macs, Row};
use crate::postgres::PostgresSettings;

/// The MACs of tests. The key is constant, so that a test can open its journal again.
pub fn macs() -> Macs {
    Macs::new(&InstanceKey::from_bytes([7; 32]))
}

/// Settings of a node that never looks at the journal by itself. A test that changes the store under a node needs them: a
/// look in between would find, rightly, that the journal went back.
pub fn never_looking() -> PostgresSettings {
    let never = Duration::from_hours(24);
    PostgresSettings { poll: never, look: never, ..PostgresSettings::default() }
}

/// The MACs of tests, for a journal written before MACs were introduced.
pub fn macs_before_upgrade() -> Macs {
    macs().believing_checksums()
}

/// What an event written before MACs has in place of its MAC: a checksum, which anybody can compute.
pub fn old_checksum(event: &RecordedEvent, metadata: &str) -> [u8; 16] {
    let position = event.position.cast_signed();
    let row = Row {
        id: event.id.as_bytes(),
        stream: event.stream.as_str(),
        version: event.version.cast_signed(),
        name: &event.name,
        schema_version: event.schema_version.into(),
        at: event.at.as_microsecond(),
        app_id: event.metadata.app_id.as_str(),
        metadata,
        data: &event.data,
        person: event.person.as_ref().map(|person| person.0.as_bytes().as_slice()),
        personal: event.personal.as_deref(),
    };
    row.checksum(position)
}

/// The MAC of an event with these texts, for measuring.
pub fn event_mac(macs: &Macs, position: i64, metadata: &str, data: &str) -> [u8; 16] {
    let row = Row {
        id: &[7; 16],
        stream: "user-01a1ff8f-e438-7fbe-be7e-728b372351ba",
        version: 3,
        name: "SessionRefreshed",
        schema_version: 1,
        at: 1_800_000_000_000_000,
        app_id: "default",
        metadata,
        data,
        person: Some(&[9; 16]),
        personal: None,
    };
    macs.event(position, &row)
}

/// A stream of this name.
pub fn stream(name: &str) -> StreamId {
    StreamId::from_stored(format!("app-{name}"))
}

/// A claim of kind `email`.
pub fn claim(key: &str) -> Claim {
    Claim { kind: "email".to_owned(), key: key.to_owned() }
}

/// An event with an id of its own.
pub fn event() -> NewEvent {
    let id = SystemClock.new_id();
    NewEvent {
        id,
        name: "AppEnabled".into(),
        schema_version: 1,
        data: r#"{"at":"2026-01-01T00:00:00Z"}"#.to_owned(),
        person: None,
        personal: None,
    }
}

/// An empty append, to be filled in.
pub fn nothing() -> Append {
    let metadata = Metadata {
        app_id: AppId::default_app(),
        actor: Actor::system(),
        correlation_id: Uuid::from_u128(1),
        causation_id: None,
        request_id: Some("request".to_owned()),
        traceparent: None,
    };
    let at = SystemClock.now();
    Append {
        writes: vec![],
        guards: vec![],
        taken: vec![],
        released: vec![],
        idempotency: None,
        metadata,
        at,
    }
}

/// An append of some events to one stream.
pub fn append(stream: &StreamId, expected: u64, events: usize) -> Append {
    let events = (0..events).map(|_| event()).collect();
    Append { writes: vec![Write { stream: stream.clone(), expected, events }], ..nothing() }
}
