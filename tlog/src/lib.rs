//! A transparency log: the Merkle tree of RFC 9162 over a growing list of entries, and what convinces somebody who has only
//! a few hashes of it.
//!
//! - [`Frontier`] is what a writer keeps of the tree: enough to append, and to know the root.
//! - [`proof`] says which hashes prove that an entry is in the tree, or that one tree begins another, and checks such proofs.
//! - [`tile`] groups the hashes as [C2SP tlog-tiles] does, which is also how they are stored.
//! - [`checkpoint`] and [`note`] are the signed statement about a tree that auditors compare: [C2SP tlog-checkpoint] and
//!   [C2SP signed-note].
//!
//! Nothing here does I/O, and nothing here is about events: an entry is bytes.
//!
//! [C2SP tlog-tiles]: https://c2sp.org/tlog-tiles
//! [C2SP tlog-checkpoint]: https://c2sp.org/tlog-checkpoint
//! [C2SP signed-note]: https://c2sp.org/signed-note
#![deny(missing_docs)]

pub mod checkpoint;
mod frontier;
mod hash;
pub mod note;
pub mod proof;
pub mod tile;

pub use checkpoint::Checkpoint;
pub use frontier::Frontier;
pub use hash::{Hash, Node};
pub use note::{Note, Signer, VerifierKey};
