//! The one secret a deployment keeps: every other key is derived from it or wrapped by a key derived from it.

use std::fmt;

use aws_lc_rs::hkdf;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::clock::random;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// 32 random bytes.
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// The text is not a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 32 random bytes in base64 (44 characters), as `openssl rand -base64 32` makes them")]
pub struct InvalidMasterKey;

impl MasterKey {
    /// Reads it from base64; white space around it does not matter.
    pub fn from_base64(text: &str) -> Result<Self, InvalidMasterKey> {
        let bytes = Zeroizing::new(LENIENT.decode(text.trim()).map_err(|_| InvalidMasterKey)?);
        let bytes = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| InvalidMasterKey)?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// A new one.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// What [`MasterKey::from_base64`] reads.
    pub fn to_base64(&self) -> SecretString {
        SecretString::from(LENIENT.encode(*self.0))
    }

    /// Names the key without telling anything about it: tokens carry it, so that a token of an old key is told
    /// from a forgery.
    pub fn id(&self) -> [u8; 4] {
        let derived = self.derive("watchword/v1/key-id");
        [derived[0], derived[1], derived[2], derived[3]]
    }

    /// A key for one purpose: HKDF-SHA-256 (RFC 5869) with the purpose as `info`.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"watchword")
            .extract(&*self.0)
            .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|output| output.fill(&mut *key))
            .expect("32 bytes are well within what HKDF-SHA-256 gives");
        key
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
        assert_eq!(again.id(), key.id());
        assert_eq!(again.derive("a"), key.derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert!(!format!("{key:?}").contains(text.expose_secret()));
    }

    #[test]
    fn refuses_other_lengths_and_letters() {
        for text in ["", "AAAA", "not base64 at all!", &"A".repeat(44), &"A".repeat(88)] {
            assert_eq!(MasterKey::from_base64(text).err(), Some(InvalidMasterKey), "{text:?}");
        }
    }
}
