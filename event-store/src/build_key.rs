//! Marks that prove that this instance filled a new build of a read model as far as its checkpoint says.
//!
//! An interrupted build is continued later. Whoever can write to the read models could prepare one, and have the operator who
//! rebuilds a model put it in place. So a build's checkpoint has such a mark, and one without it is begun anew.

use aws_lc_rs::hmac;
use uuid::Uuid;

use crate::instance_key::InstanceKey;

/// The key of all these marks of an instance.
#[derive(Clone, Debug)]
pub struct BuildKey(hmac::Key);

impl BuildKey {
    /// Derives the key.
    pub fn new(instance: &InstanceKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*instance.derive("watchword/v1/read-model-build")))
    }

    /// The mark of a checkpoint: the key of the build, and the position and id of the last event that it has.
    pub fn mark(&self, build: &str, position: u64, event: Uuid) -> Vec<u8> {
        hmac::sign(&self.0, &covered(build, position, event)).as_ref().to_vec()
    }

    /// Whether this instance made the mark for this checkpoint.
    pub fn is_genuine(&self, build: &str, position: u64, event: Uuid, mark: &[u8]) -> bool {
        // In constant time, and only at full length.
        hmac::verify(&self.0, &covered(build, position, event), mark).is_ok()
    }
}

/// No two checkpoints give the same bytes: only the last part has a variable length.
fn covered(build: &str, position: u64, event: Uuid) -> Vec<u8> {
    let position = position.to_be_bytes();
    [b"watchword read-model build 1\0".as_slice(), &position, event.as_bytes(), build.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_for_one_checkpoint_of_one_instance() {
        let (key, other) = (BuildKey::new(&InstanceKey::generate()), BuildKey::new(&InstanceKey::generate()));
        let event = Uuid::from_u128(7);
        let mark = key.mark("users_v1", 5, event);
        assert!(key.is_genuine("users_v1", 5, event, &mark));
        assert!(!other.is_genuine("users_v1", 5, event, &mark), "another instance's");
        assert!(!key.is_genuine("users_v2", 5, event, &mark));
        assert!(!key.is_genuine("users_v1", 6, event, &mark));
        assert!(!key.is_genuine("users_v1", 5, Uuid::nil(), &mark));
        for wrong in [&[][..], &mark[..31], &[0; 32]] {
            assert!(!key.is_genuine("users_v1", 5, event, wrong));
        }
    }
}
