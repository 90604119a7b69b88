//! The Merkle tree over the canonical bytes of all events: the leaf of the event at position `p` has the index `p - 1`.
//!
//! Its hashes are kept in tiles of 256, as they are published, and a full tile is never written again. Beside them is the
//! *head*: the roots of the complete subtrees, with a MAC that only this instance can make. The tree grows from the head and
//! never from tiles, and what is read from tiles is compared with it ([`MerkleTree::root`]), so write access to these
//! tables is not enough to have anything else proved or signed.

mod looking;
mod projector;
mod queries;

use domain::LogOrigin;
use event_store::{StoreError, TreeKey};
use schemas::RecordedEvent;
use tlog::{Frontier, Hash};
use uuid::Uuid;

pub use looking::look;
pub use projector::MerkleTreeProjector;
pub use queries::{Hashes, MerkleTree};

use crate::rows;
use crate::sql::{Query, Row};

/// The name of the read model.
pub const NAME: &str = "merkle_tree";

/// The query for the head.
const HEAD: &str = "SELECT size, event, hashes, mac FROM merkle_head_v1";

/// The head of the tree, as this instance computed it from its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeHead {
    /// Its size and its complete subtrees.
    pub frontier: Frontier,
    /// The id of its last event; nil before the first.
    pub last: Uuid,
}

impl TreeHead {
    /// Reads the row, if there is one. Refuses any that this instance did not write.
    fn read(rows: &[Row], key: &TreeKey) -> Result<Self, StoreError> {
        let Some(row) = rows.first() else { return Ok(Self::default()) };
        let size = row.get::<i64>("size")?.cast_unsigned();
        let last = rows::id(row.get("event")?)?;
        let hashes: &[u8] = row.get("hashes")?;
        let frontier = Hash::list(hashes).and_then(|roots| Frontier::new(size, roots));
        match frontier {
            Some(frontier) if key.is_genuine(size, last, hashes, row.get("mac")?) => {
                Ok(Self { frontier, last })
            }
            _ => Err(damaged("its head was not written by this instance")),
        }
    }

    fn query() -> Query {
        Query::new(HEAD)
    }
}

/// The leaf of an event.
pub fn leaf(event: &RecordedEvent, origin: &LogOrigin) -> Hash {
    Hash::leaf(event.to_canonical_json(origin).as_bytes())
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("the Merkle tree of the read models is damaged: {what}"))
}
