//! What tests of this room share: keys, and a history that nobody changed.

use std::path::{Path, PathBuf};

use domain::journal::{JournalCreated, JournalEvent, JournalId};
use domain::user::{ProfileUpdated, UserEvent};
use domain::{AppId, Event, LogOrigin, Personal, Stream, StreamId, Timestamp, UserId};
use schemas::{Actor, Metadata, RecordedEvent};
use tlog::note::{Kind, Note, Signer};
use tlog::{Checkpoint, Frontier, Hash};
use uuid::Uuid;

/// A key that follows from its seed.
pub fn signer(name: &str, kind: Kind, seed: u8) -> Signer {
    let form = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    Signer::new(name, kind, &[form.as_slice(), &[seed; 32]].concat()).expect("a key")
}

pub fn origin() -> LogOrigin {
    LogOrigin::parse("https://log.example").expect("an origin")
}

/// The lines of an export: the first says where the journal comes from, the others are of ten people in turns.
pub fn lines(events: u64) -> Vec<String> {
    let created = JournalEvent::JournalCreated(JournalCreated {
        journal_id: JournalId(Uuid::from_u128(7)),
        origin: origin(),
        at: time(0),
    });
    let stream = StreamId::from_stored("journal-00000000-0000-0000-0000-000000000007".to_owned());
    let first = line(1, stream, 1, &Event::Journal(created), None);
    let others = (2..=events).map(|position| {
        let user_id = UserId(Uuid::from_u128(u128::from(position % 10) + 1));
        let personal = Personal::default();
        let cleared = std::collections::BTreeSet::new();
        let event =
            UserEvent::ProfileUpdated(ProfileUpdated { user_id, cleared, at: time(position), personal });
        let stream = domain::user::User::stream(&user_id);
        line(position, stream, (position - 2) / 10 + 1, &Event::User(event), Some([1; 60].to_vec()))
    });
    std::iter::once(first).chain(others).collect()
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds.cast_signed()).expect("in range")
}

pub fn line(
    position: u64,
    stream: StreamId,
    version: u64,
    event: &Event,
    personal: Option<Vec<u8>>,
) -> String {
    let encoded = schemas::encode(event);
    let metadata = Metadata {
        app_id: AppId::default_app(),
        actor: Actor::system(),
        correlation_id: Uuid::from_u128(9),
        causation_id: None,
        request_id: None,
        traceparent: None,
    };
    let recorded = RecordedEvent {
        position,
        id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(position)),
        stream,
        version,
        name: encoded.name.to_owned(),
        schema_version: encoded.schema_version,
        at: time(position),
        metadata,
        data: encoded.data,
        person: encoded.person,
        personal,
    };
    recorded.to_canonical_json(&origin())
}

/// The tree of the first lines, and the hashes of its leaves.
pub fn tree(lines: &[String]) -> (Frontier, Vec<Hash>) {
    let leaves: Vec<Hash> = lines.iter().map(|line| Hash::leaf(line.as_bytes())).collect();
    let mut tree = Frontier::default();
    for leaf in &leaves {
        tree.push(*leaf, |_, _| ());
    }
    (tree, leaves)
}

/// A note about the tree of these lines.
pub fn checkpoint(lines: &[String], signers: &[&Signer]) -> String {
    let (tree, _) = tree(lines);
    let checkpoint = Checkpoint { origin: origin().log_name(), size: tree.size(), root: tree.root() };
    let text = checkpoint.to_string();
    let signatures = signers.iter().map(|signer| signer.sign(&text, 1_700_000_000)).collect();
    Note { text, signatures }.to_string()
}

pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

/// The lines as a file has them.
pub fn file(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}
