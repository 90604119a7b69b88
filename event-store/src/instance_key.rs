//! The secret of an instance: every other key is derived from it or wrapped by a key derived from it.

use std::fmt;

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::clock::random;

/// The purposes that keys are derived for. Each key has one use; a new purpose gets a name of its own.
pub mod purpose {
    /// The MACs of events.
    pub(crate) const EVENTS: &str = "watchword/v1/mac/events";
    /// The MACs of what an append contains besides its events.
    #[cfg(feature = "kurrentdb")]
    pub(crate) const APPENDS: &str = "watchword/v1/mac/appends";
    /// The MACs of rows of idempotency keys.
    pub(crate) const IDEMPOTENCY: &str = "watchword/v1/mac/idempotency";
    /// The MACs of snapshots.
    pub(crate) const SNAPSHOTS: &str = "watchword/v1/mac/snapshots";
}

/// 32 random bytes, generated once for an instance and kept in its key store, wrapped by the master key. It never
/// changes, so a new master key leaves tokens, claims and sealed parts valid.
pub struct InstanceKey(Zeroizing<[u8; 32]>);

impl InstanceKey {
    /// Generates a new key.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Identifies the key without revealing anything about it. Tokens carry it, which distinguishes a token of another
    /// instance from a forgery.
    pub fn id(&self) -> [u8; 4] {
        let derived = self.derive("watchword/v1/key-id");
        [derived[0], derived[1], derived[2], derived[3]]
    }

    /// Identifies the instance to people and programs that compare two; it reveals nothing about the key.
    pub fn public_id(&self) -> String {
        hex::encode(&self.derive("watchword/v1/instance-id")[..16])
    }

    /// A key for one purpose: HKDF-SHA-256 (RFC 5869) with the purpose as `info`.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        derive(&self.0, purpose)
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceKey(…)")
    }
}

pub(crate) fn derive(key: &[u8; 32], purpose: &str) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"watchword")
        .extract(key)
        .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|output| output.fill(&mut *derived))
        .expect("HKDF-SHA-256 can output far more than 32 bytes");
    derived
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_has_a_key_of_its_own() {
        let key = InstanceKey::generate();
        assert_eq!(key.derive("a"), key.derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(key.derive("a"), InstanceKey::generate().derive("a"));
    }
}
