//! The tables of a journal file, and what each earlier format lacks.

use super::file::Kind;

pub(super) const KIND: Kind = Kind {
    what: "Watchword journal",
    application_id: 0x5741_4a31,
    format: 4,
    schema: SCHEMA,
    upgrades: &["ALTER TABLE events ADD COLUMN checksum BLOB", EFFECTS, MACS],
};

/// The format since which events carry MACs.
pub(super) const FORMAT_WITH_MACS: u32 = 4;

/// The tables of a journal.
pub(crate) const SCHEMA: &str = "
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    at INTEGER NOT NULL, -- microseconds since 1970
    app_id TEXT NOT NULL,
    metadata TEXT NOT NULL,
    data TEXT NOT NULL,
    person BLOB,
    personal BLOB,
    mac BLOB, -- of all of this, by a key that is not here
    UNIQUE (stream, version)
) STRICT;
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
CREATE TRIGGER events_have_no_gaps BEFORE INSERT ON events
    WHEN NEW.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM events)
    BEGIN SELECT RAISE(ABORT, 'positions have no gaps'); END;
CREATE TABLE claims (kind TEXT NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (kind, key))
    STRICT, WITHOUT ROWID;
CREATE TABLE idempotency (
    key BLOB PRIMARY KEY, fingerprint BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    at INTEGER NOT NULL, mac BLOB
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (stream TEXT PRIMARY KEY, version INTEGER NOT NULL, state BLOB NOT NULL) STRICT;
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('recoveries', 0);
CREATE TABLE effects (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Added in format 3.
const EFFECTS: &str =
    "CREATE TABLE effects (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID";

/// Added in format 4. The columns are filled when the file is opened, as that needs a key.
const MACS: &str =
    "ALTER TABLE events RENAME COLUMN checksum TO mac; ALTER TABLE idempotency ADD COLUMN mac BLOB";
