//! argon2id and argon2i (RFC 9106) of other systems: with parameters that are not ours, or of a password that was not
//! normalized. They are stored as Django writes them, with the prefix `argon2`, which tells them from our own.

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2 as Function, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

/// How every PHC string of the function begins.
pub(super) const PHC: &str = "$argon2";
/// What stands before it in Django, and in our log.
pub(super) const DJANGO: &str = "argon2";
const KEYS: std::ops::RangeInclusive<usize> = 16..=64;
/// About how many PBKDF2 iterations take as long as one pass over a KiB.
const PASS: u64 = 2;

#[derive(Clone)]
pub(crate) struct Argon2 {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    key: Vec<u8>,
}

impl Argon2 {
    /// `$argon2id$v=19$m=65536,t=3,p=4$<salt>$<key>`. Hashes without `v` are of version 16.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let hash = phc::PasswordHash::new(text).ok()?;
        let algorithm = match hash.algorithm.as_str() {
            "argon2id" => Algorithm::Argon2id,
            "argon2i" => Algorithm::Argon2i,
            _ => return None,
        };
        let version = Version::try_from(hash.version.unwrap_or(Version::V0x10.into())).ok()?;
        // `keyid` and `data` name secrets that are not in the hash.
        if hash.params.iter().any(|(name, _)| !["m", "t", "p"].contains(&name.as_str())) {
            return None;
        }
        let params = Params::try_from(&hash).ok()?;
        let (salt, key) = (hash.salt?.to_vec(), hash.hash?.as_bytes().to_vec());
        (!salt.is_empty() && KEYS.contains(&key.len())).then_some(Self {
            algorithm,
            version,
            params,
            salt,
            key,
        })
    }

    pub(super) fn cost(&self) -> u64 {
        (PASS * u64::from(self.params.m_cost())).saturating_mul(self.params.t_cost().into())
    }

    /// In bytes.
    pub(super) fn memory(&self) -> u64 {
        u64::from(self.params.m_cost()) << 10
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let function = Function::new(self.algorithm, self.version, self.params.clone());
        let mut key = Zeroizing::new(vec![0; self.key.len()]);
        function.hash_password_into(password, &self.salt, &mut key).is_ok()
            && verify_slices_are_equal(&key, &self.key).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NFC, NFD, VIOLET, check};
    use super::super::{ImportedHash, NotImported};

    fn is_argon2(hash: &ImportedHash) -> bool {
        matches!(hash, ImportedHash::Argon2(_))
    }

    /// Made with argon2-cffi 25.1.0.
    #[test]
    fn verifies_what_argon2_cffi_made() {
        check(
            is_argon2,
            &[
                (
                    "$argon2id$v=19$m=256,t=2,p=1$S3sNRDr/yu8i3yFLiQwuDQ$fG/BKOW5LT8TcMRxta/UYey/9PItEc9+gh6PlWEcaH8",
                    VIOLET,
                ),
                ("$argon2i$v=19$m=256,t=2,p=2$mtk6TskCVzPOjvNGDPmvpw$0TR8LvRitQSl6871W7D0QA", VIOLET),
                (
                    "$argon2id$v=19$m=256,t=2,p=1$YEtP6sX2EIWcOiJTQut2Uw$pen5kWauBOggcO2Y0K/sj353uNt+C7jxqRppc0maC0M",
                    NFC,
                ),
                ("$argon2i$v=19$m=256,t=2,p=2$fFh0prweFrDiMMKMe7qBcg$8xYsjQauWzPH/cQzQKxmwA", NFC),
                (
                    "$argon2id$v=19$m=256,t=2,p=1$282bUVymYhHPkZuInC0NAA$GgJDM1UPq6DX0cyVb2jisE+OvYQ1mibKV+K13kOrDPo",
                    NFD,
                ),
            ],
        );
    }

    /// Made with Django 5.2.19.
    #[test]
    fn verifies_what_django_made() {
        check(
            is_argon2,
            &[
                (
                    "argon2$argon2id$v=19$m=256,t=1,p=1$QWtNMFliYmp1WHM0WGkxZHJxUDdyVA$DSedjM592ClD1Ps3ECjvTB0PNAm0keK1CcMj6cYkCjA",
                    VIOLET,
                ),
                (
                    "argon2$argon2id$v=19$m=256,t=1,p=1$N1lDU3R5THQxRk9rWW1XOGpqY1dBMg$9GACjdWtw5gPxNC51LqAyE17j5Hhp6pL4fsneNt/+xk",
                    NFD,
                ),
            ],
        );
    }

    #[test]
    fn is_never_taken_for_one_of_ours() {
        let text =
            "$argon2id$v=19$m=256,t=2,p=1$S3sNRDr/yu8i3yFLiQwuDQ$fG/BKOW5LT8TcMRxta/UYey/9PItEc9+gh6PlWEcaH8";
        let stored = ImportedHash::accept(text, u64::MAX).expect("a hash");
        assert_eq!(stored.0, format!("argon2{text}"));
        assert_eq!(ImportedHash::accept(&stored.0, u64::MAX).expect("a hash"), stored);
    }

    #[test]
    fn other_parameters_are_refused() {
        let rest = "S3sNRDr/yu8i3yFLiQwuDQ$fG/BKOW5LT8TcMRxta/UYey/9PItEc9+gh6PlWEcaH8";
        for (text, why) in [
            (format!("$argon2d$v=19$m=256,t=2,p=1${rest}"), "its timing depends on the password"),
            (format!("$argon2id$v=18$m=256,t=2,p=1${rest}"), "no such version"),
            (format!("$argon2id$v=19$m=256,t=0,p=1${rest}"), "no passes"),
            (format!("$argon2id$v=19$m=1,t=1,p=1${rest}"), "too little memory"),
            (format!("$argon2id$v=19$m=256,t=2,p=1,keyid=AAAA${rest}"), "with a key that is not there"),
            (format!("$argon2id$v=19$m=256,t=2,p=1,data=AAAA${rest}"), "with data that is not there"),
            ("$argon2id$v=19$m=256,t=2,p=1$S3sNRDr/yu8i3yFLiQwuDQ".to_owned(), "without a key"),
            ("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo".to_owned(), "with a short key"),
            (format!("argon2$argon2$v=19$m=256,t=2,p=1${rest}"), "no such function"),
        ] {
            assert_eq!(ImportedHash::parse(&text).err(), Some(NotImported::Malformed("argon2")), "{why}");
        }
    }
}
