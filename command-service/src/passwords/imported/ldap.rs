//! Salted LDAP hashes, as in `userPassword` (RFC 2307): base64 of a hash over password and salt, followed by the salt.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA512};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::NotImported;

const SCHEMES: [(&str, &Algorithm); 2] = [("SSHA", &SHA1_FOR_LEGACY_USE_ONLY), ("SSHA512", &SHA512)];
const SALTS: std::ops::RangeInclusive<usize> = 4..=64;

#[derive(Clone)]
pub(crate) struct Ldap {
    algorithm: &'static Algorithm,
    hash: Vec<u8>,
    salt: Vec<u8>,
}

impl Ldap {
    /// `{SSHA}…` or `{SSHA512}…`; the scheme is case-insensitive.
    pub(super) fn parse(text: &str) -> Result<Self, NotImported> {
        let (scheme, rest) =
            text.strip_prefix('{').and_then(|text| text.split_once('}')).ok_or(NotImported::Unknown)?;
        let known = SCHEMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(scheme));
        let (_, algorithm) = *known.ok_or(NotImported::Unknown)?;
        let decoded = STANDARD.decode(rest).ok();
        let parts = decoded.as_ref().and_then(|bytes| bytes.split_at_checked(algorithm.output_len()));
        let (hash, salt) =
            parts.filter(|(_, salt)| SALTS.contains(&salt.len())).ok_or(NotImported::Malformed("LDAP"))?;
        Ok(Self { algorithm, hash: hash.to_vec(), salt: salt.to_vec() })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let mut context = Context::new(self.algorithm);
        context.update(password);
        context.update(&self.salt);
        verify_slices_are_equal(context.finish().as_ref(), &self.hash).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ImportedHash, NotImported};

    /// Made with passlib; those with an 8-byte salt with PHP.
    #[test]
    fn verifies_what_directories_have() {
        for (hash, password) in [
            ("{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD", "violet-Kettle-93"),
            ("{ssha}phUNY9SCQBZmysPjF/e+NgGKe0055xzD", "violet-Kettle-93"),
            ("{SSHA}lHA8Y/yGeKwj70qCW4sDKB9CuLZl0U3Z72ERew==", "violet-Kettle-93"),
            (
                "{SSHA512}n+rYR2JjBDatqVjS2QLrRyQH9JbqzJWoA/Kbv+j2Zakj+6RmTwKvBhonoWiHRZcdHJA+HQiIJMKLm5LSIllQEsnZO8fY+3/P",
                "violet-Kettle-93",
            ),
            (
                "{SSHA512}H5CWfTKu4Mkd+JIOPjwMAKuaKSN89Zw0xMN95HlfAflDBfpBxeF6RUaI85Qmrzeo5quQivBpwSzMQlMk3/NWjWXRTdnvYRF7",
                "violet-Kettle-93",
            ),
            ("{SSHA}oejEBAErvA53yxmnngBw/XR9yEa6V+od", "pässwörter-93"),
            (
                "{SSHA512}k7pmIG0XY1uPZNdasanFR4jDHS+SYBE13dgY4jB9zNrYuxN0RjL+d7pK855/aHYijQcR7yisS7T2bEShRK36e/5fay2l1Hpv",
                "pässwörter-93",
            ),
            ("{SSHA}FIy9s7DFBwijZH9Wk/giLC72ColWam1t", "pa\u{308}sswo\u{308}rter-93"),
            (
                "{SSHA512}Li94HhJrGX0rU80mce7gXrj62+aLWg574yUSe4n0cgyQuQyTk+fa7c2Dbcsq4WeabrcofZjnHiHZ/qnIvJjLAbV2jrFWSqk1",
                "pa\u{308}sswo\u{308}rter-93",
            ),
        ] {
            let parsed = ImportedHash::parse(hash).unwrap_or_else(|why| panic!("{hash}: {why}"));
            assert!(matches!(parsed, ImportedHash::Ldap(_)));
            assert!(parsed.matches(password.as_bytes()), "{hash}");
            for other in ["", "violet-Kettle-94", "violet-Kettle-93 ", "p\u{e4}sswo\u{308}rter-93"] {
                assert!(!parsed.matches(other.as_bytes()), "{hash} {other}");
            }
        }
    }

    #[test]
    fn other_schemes_and_salts_are_refused() {
        for text in ["{SHA}x", "{SSHA256}x", "{MD5}x", "{CRYPT}$6$x", "{CLEARTEXT}x", "{", "{}", "{SSHA"] {
            assert_eq!(ImportedHash::parse(text).err(), Some(NotImported::Unknown), "{text}");
        }
        // No salt, one of three bytes, one of 65, and no base64.
        let none = format!("{{SSHA}}{}=", "A".repeat(27));
        let long = format!("{{SSHA}}{}=", "A".repeat(115));
        for text in [&none, "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xw=", &long, "{SSHA}*", "{SSHA}"] {
            assert_eq!(ImportedHash::parse(text).err(), Some(NotImported::Malformed("LDAP")), "{text}");
        }
    }
}
