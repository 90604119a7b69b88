//! ASP.NET Core Identity: PBKDF2 (RFC 8018) in a base64 blob.

use aws_lc_rs::pbkdf2::{PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::NotImported;
use super::pbkdf2::Pbkdf2;

/// Version 2 had no parameters.
const ROUNDS_OF_2: u32 = 1000;
const SALT_OF_2: usize = 16;
const KEY: usize = 32;
/// Identity's own hasher accepts no shorter salts and keys.
const SIZES: std::ops::RangeInclusive<usize> = 16..=64;

#[derive(Clone)]
pub(crate) struct AspNetIdentity(Pbkdf2);

impl AspNetIdentity {
    pub(super) fn parse(text: &str) -> Result<Self, NotImported> {
        let blob = STANDARD.decode(text).map_err(|_| NotImported::Unknown)?;
        let hash = match blob.split_first() {
            Some((0, rest)) => Self::version_2(rest),
            Some((1, rest)) => Self::version_3(rest),
            _ => return Err(NotImported::Unknown),
        };
        hash.map(Self).ok_or(NotImported::Malformed("ASP.NET Core Identity"))
    }

    /// The salt and the key.
    fn version_2(rest: &[u8]) -> Option<Pbkdf2> {
        let (salt, key) = rest.split_at_checked(SALT_OF_2)?;
        if key.len() == KEY { Pbkdf2::new(PBKDF2_HMAC_SHA1, ROUNDS_OF_2, salt, key) } else { None }
    }

    /// Function, iterations and salt length as big-endian u32, then the salt and the key.
    fn version_3(rest: &[u8]) -> Option<Pbkdf2> {
        let (function, rest) = rest.split_first_chunk()?;
        let (iterations, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let algorithm = match u32::from_be_bytes(*function) {
            0 => PBKDF2_HMAC_SHA1,
            1 => PBKDF2_HMAC_SHA256,
            2 => PBKDF2_HMAC_SHA512,
            _ => return None,
        };
        let (salt, key) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*salt)).ok()?)?;
        let sizes_are_right = SIZES.contains(&salt.len()) && SIZES.contains(&key.len());
        if sizes_are_right {
            Pbkdf2::new(algorithm, u32::from_be_bytes(*iterations), salt, key)
        } else {
            None
        }
    }

    pub(super) fn cost(&self) -> u64 {
        self.0.cost()
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        self.0.matches(password)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ImportedHash;
    use super::*;

    /// The first three come from Identity's own hasher, the others from PHP's `hash_pbkdf2`.
    #[test]
    fn verifies_what_identity_made() {
        const VIOLET: &str = "violet-Kettle-93";
        for (hash, password) in [
            ("AQAAAAIAAYagAAAAEGtb3qchjOAn+DezQi2ufCJyNP0aiVKF2n3NeFfTvoSkNyNwrXwg/1DOF/J3Ay1qsQ==", VIOLET),
            ("APUv3KN2C1SPWfUFRP65/InaNHIZqSNt6tCJeseNiKoH3nKR5PEZuYN9ZvfOC9kfZg==", VIOLET),
            ("AQAAAAEAACcQAAAAEAABAgMEBQYHCAkKCwwNDg8mVR3M2Nxb56pbH9WmomOCsrKqOOHaxFfh/EniLwQoTg==", VIOLET),
            ("AQAAAAAAAAPoAAAAEEXFKFKXu/ZlMxv34ZTXxvD2bxu/P87vwfmXYP8Q5OTv7GG38fS6OacCwG3480Ucwg==", VIOLET),
            (
                "AQAAAAEAAAPoAAAAELXOF59qwe5DTg1tCyjJE6JJVyeg1sPgFaM1wnbVf9Gl7bRSZyRN6W7jpu8wifsJ7A==",
                "pässwörter-93",
            ),
            ("ALXOF59qwe5DTg1tCyjJE6LmjZhHjzRd0YP2CXlPH0dEkOTe/BIMS5gi4WBIHiMNvQ==", "pässwörter-93"),
            (
                "AQAAAAIAAAPoAAAAEBevifUDBBNwY8LfSPl4Q97weiIROPPdHatL2zTLynerzr4LyuqxynPEHo9ZZUlzxw==",
                "pa\u{308}sswo\u{308}rter-93",
            ),
            (
                "ABevifUDBBNwY8LfSPl4Q97Fw1KTa/ENUtbN8Jo1RgTy3pd371bb2IoV1gxPEhOW8w==",
                "pa\u{308}sswo\u{308}rter-93",
            ),
        ] {
            let parsed = ImportedHash::parse(hash).unwrap_or_else(|why| panic!("{hash}: {why}"));
            assert!(matches!(parsed, ImportedHash::AspNetIdentity(_)));
            assert!(parsed.matches(password.as_bytes()), "{hash}");
            for other in ["", "violet-Kettle-94", "violet-Kettle-93 ", "p\u{e4}sswo\u{308}rter-93"] {
                assert!(!parsed.matches(other.as_bytes()), "{hash} {other}");
            }
        }
    }

    #[test]
    fn other_parameters_are_refused() {
        let blob = |function: u32, iterations: u32, salt_length: u32, rest: usize| {
            let mut blob = vec![1];
            for number in [function, iterations, salt_length] {
                blob.extend(number.to_be_bytes());
            }
            blob.extend(vec![0; rest]);
            STANDARD.encode(blob)
        };
        assert!(AspNetIdentity::parse(&blob(1, 1, 16, 48)).is_ok());
        for (text, why) in [
            (blob(3, 1, 16, 48), "another function"),
            (blob(1, 0, 16, 48), "no iterations"),
            (blob(1, 1, 8, 48), "a short salt"),
            (blob(1, 1, 16, 31), "a short key"),
            (blob(1, 1, 16, 81), "a long key"),
            (blob(1, 1, 49, 48), "a salt beyond the end"),
            (blob(1, 1, u32::MAX, 48), "a salt far beyond the end"),
            (STANDARD.encode([0; 48]), "version 2, too short"),
            (STANDARD.encode([0; 50]), "version 2, too long"),
        ] {
            let refused = AspNetIdentity::parse(&text).err();
            assert_eq!(refused, Some(NotImported::Malformed("ASP.NET Core Identity")), "{why}");
        }
        assert_eq!(AspNetIdentity::parse(&STANDARD.encode([2; 49])).err(), Some(NotImported::Unknown));
    }
}
