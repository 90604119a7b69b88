//! What an auditor can check of signed checkpoints, with other implementations than the server's.

use std::collections::HashMap;

use serde_json::Value;
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::tlog::{self, Hash, HashReader};

/// A signed checkpoint whose signatures were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The name of the log.
    pub origin: String,
    /// The number of events.
    pub size: u64,
    /// The root of the tree.
    pub root: [u8; 32],
    /// How many of the keys have signed it.
    pub signatures: usize,
}

/// Reads a note if at least one of these keys has signed it, and no signature by their names is wrong.
pub fn verified(note: &str, keys: &[&str]) -> Option<Signed> {
    let verifier = |key: &&str| -> Box<dyn signed_note::Verifier> {
        Box::new(StandardVerifier::new(key).expect("a vkey"))
    };
    let known = VerifierList::new(keys.iter().map(verifier).collect());
    let note = Note::from_bytes(note.as_bytes()).expect("a note");
    let (signatures, _) = note.verify(&known).ok()?;
    let read = tlog_tiles::checkpoint::Checkpoint::from_bytes(note.text()).expect("a checkpoint");
    Some(Signed {
        origin: read.origin().to_owned(),
        size: read.size(),
        root: read.hash().0,
        signatures: signatures.len(),
    })
}

/// Whether a note with any text was signed by this key. Returns the text.
pub fn signed_text(note: &str, key: &str) -> Option<String> {
    let verifier: Box<dyn signed_note::Verifier> = Box::new(StandardVerifier::new(key).expect("a vkey"));
    let note = Note::from_bytes(note.as_bytes()).expect("a note");
    note.verify(&VerifierList::new(vec![verifier])).ok()?;
    String::from_utf8(note.text().to_vec()).ok()
}

/// The keys of an answer, one a line.
pub fn keys_of(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// The canonical form of an event (RFC 8785): its members are sorted, and their names are ASCII.
pub fn canonical(event: &Value) -> String {
    event.to_string()
}

/// A tree that another implementation makes of events.
#[derive(Default)]
pub struct Tree {
    stored: HashMap<u64, Hash>,
    size: u64,
}

impl HashReader for Tree {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        Ok(indexes.iter().map(|index| self.stored[index]).collect())
    }
}

impl Tree {
    /// The tree over these events.
    pub fn of(events: &[Value]) -> Self {
        let mut tree = Self::default();
        for event in events {
            let hashes =
                tlog::stored_hashes(tree.size, canonical(event).as_bytes(), &tree).expect("it is whole");
            let first = tlog::stored_hash_index(0, tree.size);
            tree.stored.extend((first..).zip(hashes));
            tree.size += 1;
        }
        tree
    }

    /// The hash of an event.
    pub fn leaf(&self, index: u64) -> [u8; 32] {
        self.stored[&tlog::stored_hash_index(0, index)].0
    }

    /// The proof that an event is in the tree of the first `size`.
    pub fn inclusion(&self, index: u64, size: u64) -> Vec<[u8; 32]> {
        let proof = tlog::prove_record(size, index, self).expect("it is in the tree");
        proof.into_iter().map(|hash| hash.0).collect()
    }

    /// The root of the tree of the first events.
    pub fn root(&self, size: u64) -> [u8; 32] {
        tlog::tree_hash(size, self).expect("it is whole").0
    }
}
