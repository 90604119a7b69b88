//! The tables of a key store in a file, and how each format became the next.

use crate::key_store::checkpoint::FORMAT_WITH_CHECKPOINTS;
use crate::sqlite::file::Kind;

pub(super) const KIND: Kind = Kind {
    what: "Watchword key store",
    application_id: 0x5741_4b31,
    format: FORMAT_WITH_CHECKPOINTS,
    schema: SCHEMA,
    upgrades: &[FORMAT_2, FORMAT_3, FORMAT_4],
};

// The tables do not change: opening the file puts the instance key into `meta`. The new format number keeps out earlier
// programs, which would take a new master key for a wrong one.
const FORMAT_2: &str = "SELECT 1";

// The tables do not change: the wrapped instance key may include the mark that the journal carries MACs. Earlier
// programs would think that it was wrapped by another master key.
const FORMAT_3: &str = "SELECT 1";

/// The checkpoint that was signed last, in a single row, and the newest signature of each witness.
macro_rules! checkpoints {
    () => {
        "CREATE TABLE checkpoints (
             id INTEGER PRIMARY KEY CHECK (id = 0), size INTEGER NOT NULL, root BLOB NOT NULL, event BLOB NOT NULL,
             note TEXT NOT NULL, epochs BLOB NOT NULL, signed_at INTEGER NOT NULL, mac BLOB NOT NULL
         ) STRICT;
         CREATE TABLE cosignatures (
             witness TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, line TEXT NOT NULL
         ) STRICT, WITHOUT ROWID;"
    };
}

const FORMAT_4: &str = concat!(checkpoints!(), " SELECT 1");

// An erased person's row stays, without a key: no new key must ever be made for them.
const SCHEMA: &str = concat!(
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE data_keys (person BLOB PRIMARY KEY, wrapped BLOB) STRICT, WITHOUT ROWID;
     CREATE TABLE signing_keys (
         app_id TEXT NOT NULL, kid TEXT NOT NULL, alg TEXT NOT NULL, wrapped BLOB NOT NULL, PRIMARY KEY (app_id, kid)
     ) STRICT, WITHOUT ROWID;",
    checkpoints!()
);
