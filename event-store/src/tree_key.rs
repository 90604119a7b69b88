//! Marks that prove that this instance computed the head of the Merkle tree over its events.
//!
//! The tree is kept in the read models, which more people can write to than have the instance key. A checkpoint is signed
//! only for a head with such a mark: otherwise whoever can write there could have any history signed. The mark names the
//! last event as well, so that the head of a history that the journal has lost ([`crate::seen`]) is recognized as such.

use aws_lc_rs::hmac;
use uuid::Uuid;

use crate::instance_key::InstanceKey;

/// The key of all these marks of an instance.
#[derive(Clone, Debug)]
pub struct TreeKey(hmac::Key);

impl TreeKey {
    /// Derives the key.
    pub fn new(instance: &InstanceKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*instance.derive("watchword/v1/merkle-tree")))
    }

    /// The mark of a head: the number of events, the id of the last one, and the hashes of the complete subtrees.
    pub fn mark(&self, size: u64, last: Uuid, hashes: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, &covered(size, last, hashes)).as_ref().to_vec()
    }

    /// Whether this instance made the mark for this head.
    pub fn is_genuine(&self, size: u64, last: Uuid, hashes: &[u8], mark: &[u8]) -> bool {
        // In constant time, and only at full length.
        hmac::verify(&self.0, &covered(size, last, hashes), mark).is_ok()
    }
}

/// No two heads give the same bytes: only the last part has a variable length.
fn covered(size: u64, last: Uuid, hashes: &[u8]) -> Vec<u8> {
    [b"watchword merkle tree 1\0".as_slice(), &size.to_be_bytes(), last.as_bytes(), hashes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_for_one_head_of_one_instance() {
        let (key, other) = (TreeKey::new(&InstanceKey::generate()), TreeKey::new(&InstanceKey::generate()));
        let last = Uuid::from_u128(7);
        let mark = key.mark(5, last, &[1; 64]);
        assert!(key.is_genuine(5, last, &[1; 64], &mark));
        assert!(!other.is_genuine(5, last, &[1; 64], &mark), "another instance's");
        assert!(!key.is_genuine(6, last, &[1; 64], &mark));
        assert!(!key.is_genuine(5, Uuid::nil(), &[1; 64], &mark));
        assert!(!key.is_genuine(5, last, &[1; 63], &mark));
        for wrong in [&[][..], &mark[..31], &[0; 32]] {
            assert!(!key.is_genuine(5, last, &[1; 64], wrong));
        }
    }
}
