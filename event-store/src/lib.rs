//! The journal of events, the keys that seal the personal parts, and aggregates loaded from both.
//!
//! The [`journal::Journal`] is the only source of truth: one total order of events with gapless positions. The
//! [`key_store::KeyStore`] is a separate file, so that erasing a person's key erases the person from every copy of the
//! log. [`repository::Repository`] turns streams into aggregates.
#![deny(missing_docs)]

mod build_key;
pub mod checkpoint_keys;
mod checksum;
pub mod cipher;
pub mod clock;
#[cfg(feature = "contract")]
pub mod contract;
pub mod cqrs;
pub mod durable;
pub mod epoch;
pub mod erase;
pub mod instance_key;
pub mod journal;
pub mod key_store;
#[cfg(feature = "kurrentdb")]
pub mod kurrentdb;
pub mod location;
pub mod lookup;
mod mac;
pub mod master_key;
pub mod measure;
pub mod message_key;
pub mod origin;
mod pauses;
pub mod personal;
pub mod pools;
pub mod postgres;
pub mod repository;
mod requests;
pub mod sealing;
pub mod seen;
pub mod sqlite;
pub mod storage;
mod tree_key;
mod upgrade;

pub use build_key::BuildKey;
pub use cipher::Cipher;
pub use clock::{Clock, FixedClock, SystemClock};
pub use instance_key::InstanceKey;
pub use journal::{
    Append, AppendError, Appended, Claim, Cursor, Idempotency, Journal, LONGEST_HOLD, NewEvent, OpenError,
    Snapshot, StoreError, StoredIdempotency, Write,
};
pub use key_store::{KeptCheckpoint, KeyStore, SignedCheckpoint};
#[cfg(feature = "kurrentdb")]
pub use kurrentdb::{KurrentJournal, KurrentRights, KurrentSettings, KurrentUrl};
pub use location::Location;
pub use lookup::LookupKey;
pub use mac::{ForgedTail, Macs, Unproven};
pub use master_key::{JournalMark, MasterKey};
pub use message_key::{Mark, Marked, MessageKey};
pub use personal::Requested;
pub use postgres::{PostgresJournal, PostgresSettings, PostgresUrl};
pub use repository::{Fetched, Loaded, Reads, Repository, Tail};
pub use sealing::Sealer;
pub use seen::Lost;
pub use sqlite::{JournalLock, SqliteJournal};
pub use storage::{Cause, Why};
pub use tree_key::TreeKey;
