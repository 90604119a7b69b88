//! The only secret that a deployment keeps: it wraps the instance key, which all other keys are derived from. So it can
//! be replaced without changing anything else.

use std::fmt;

use aws_lc_rs::constant_time;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::cipher::Cipher;
use crate::clock::random;
use crate::instance_key::{self, InstanceKey};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a wrapped instance key is bound to.
const NAME: &[u8] = b"instance key";

/// The same for an instance whose journal carries MACs.
const MARKED_NAME: &[u8] = b"instance key, journal with MACs";

/// 32 random bytes.
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&*self.0, &*other.0).is_ok()
    }
}

impl Eq for MasterKey {}

/// States that every event of an instance's journal carries a MAC. It is sealed together with the instance key, so that
/// it cannot be revoked without the master key: an instance created with it has no other form of its key anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalMark {
    /// The position up to which events carry no MAC, because nothing is ever rewritten where they are stored: only in
    /// KurrentDB.
    pub unkeyed: u64,
    /// The digest of those events.
    pub digest: [u8; 32],
}

/// The text is not a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a master key is 32 random bytes in base64 (44 characters), such as the output of `openssl rand -base64 32`"
)]
pub struct InvalidMasterKey;

impl MasterKey {
    /// Reads it from base64, ignoring surrounding white space.
    pub fn from_base64(text: &str) -> Result<Self, InvalidMasterKey> {
        let bytes = Zeroizing::new(LENIENT.decode(text.trim()).map_err(|_| InvalidMasterKey)?);
        let bytes = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| InvalidMasterKey)?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// Generates a new key.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// The form that [`MasterKey::from_base64`] reads.
    pub fn to_base64(&self) -> SecretString {
        SecretString::from(LENIENT.encode(*self.0))
    }

    /// An instance key and the mark of its journal, sealed for the key store.
    pub(crate) fn wrap(&self, instance: &InstanceKey, mark: Option<&JournalMark>) -> Vec<u8> {
        let Some(JournalMark { unkeyed, digest }) = mark else {
            return self.wrapping_key().seal(NAME, instance.bytes());
        };
        let bytes = [instance.bytes().as_slice(), &unkeyed.to_be_bytes(), digest].concat();
        self.wrapping_key().seal(MARKED_NAME, &Zeroizing::new(bytes))
    }

    /// What [`MasterKey::wrap`] sealed; `None` if another key did.
    pub(crate) fn unwrap(&self, wrapped: &[u8]) -> Option<(InstanceKey, Option<JournalMark>)> {
        let key = self.wrapping_key();
        if let Some(bytes) = key.open(NAME, wrapped).map(Zeroizing::new) {
            return Some((InstanceKey::from_bytes(bytes.as_slice().try_into().ok()?), None));
        }
        let bytes = Zeroizing::new(key.open(MARKED_NAME, wrapped)?);
        let (instance, rest) = bytes.split_first_chunk::<32>()?;
        let (unkeyed, digest) = rest.split_first_chunk::<8>()?;
        let mark = JournalMark { unkeyed: u64::from_be_bytes(*unkeyed), digest: digest.try_into().ok()? };
        Some((InstanceKey::from_bytes(*instance), Some(mark)))
    }

    /// The instance key of instances whose key store has format 1: all their keys stay the same.
    pub(crate) fn as_instance_key(&self) -> InstanceKey {
        InstanceKey::from_bytes(*self.0)
    }

    fn wrapping_key(&self) -> Cipher {
        Cipher::new(&instance_key::derive(&self.0, "watchword/v1/instance-key"))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn goes_through_base64() {
        let key = MasterKey::generate();
        let text = key.to_base64();
        let again = MasterKey::from_base64(&format!(" {}\n", text.expose_secret())).expect("reads its own");
        assert_eq!(again, key);
        assert_ne!(key, MasterKey::generate());
        assert!(!format!("{key:?}").contains(text.expose_secret()));
    }

    #[test]
    fn unwraps_what_it_wrapped() {
        let (key, instance) = (MasterKey::generate(), InstanceKey::generate());
        for mark in [None, Some(JournalMark::default()), Some(JournalMark { unkeyed: 7, digest: [9; 32] })] {
            let wrapped = key.wrap(&instance, mark.as_ref());
            let (unwrapped, found) = key.unwrap(&wrapped).expect("unwraps");
            assert_eq!((unwrapped.bytes(), found), (instance.bytes(), mark));
            assert!(MasterKey::generate().unwrap(&wrapped).is_none());
            assert!(key.unwrap(&wrapped[1..]).is_none());
        }
    }

    #[test]
    fn refuses_other_lengths_and_letters() {
        for text in ["", "AAAA", "not base64 at all!", &"A".repeat(44), &"A".repeat(88)] {
            assert_eq!(MasterKey::from_base64(text).err(), Some(InvalidMasterKey), "{text:?}");
        }
    }
}
