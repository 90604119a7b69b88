//! bcrypt, also of something that is made of the password, so that its length does not matter: WordPress since 6.8 takes an
//! HMAC, and Django can take a SHA-256 hash.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::trimmed;

/// Prefix of a bcrypt hash made by WordPress.
pub(super) const WORDPRESS: &str = "$wp";
/// The HMAC key, a fixed string for domain separation.
const WORDPRESS_KEY: &[u8] = b"wp-sha384";
/// Prefixes of bcrypt hashes in Django.
const DJANGO: [(&str, Input); 2] = [("bcrypt_sha256$", Input::HashedByDjango), ("bcrypt$", Input::Plain)];
/// bcrypt ignores the rest of a longer password.
const MAX_INPUT: usize = 72;
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// About how many PBKDF2 iterations take as long as one round.
const ROUND: u64 = 128;

/// Salt and key do not fill whole groups, and some systems leave bits set in the remainder.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

#[derive(Clone)]
pub(crate) struct Bcrypt {
    cost: u32,
    salt: [u8; 16],
    key: [u8; 23],
    input: Input,
}

/// What is given to bcrypt.
#[derive(Clone, Copy)]
pub(super) enum Input {
    /// The password.
    Plain,
    /// Its HMAC, in base64.
    HashedByWordPress,
    /// Its SHA-256 hash, in hexadecimal digits.
    HashedByDjango,
}

/// Whether a text claims to be a bcrypt hash of Django.
pub(super) fn is_of_django(text: &str) -> bool {
    DJANGO.iter().any(|(prefix, _)| text.starts_with(prefix))
}

impl Bcrypt {
    /// `$2y$<cost>$<22 characters of salt><31 of key>`. `2a` and `2b` differ from it only in bugs of old implementations.
    pub(super) fn parse(text: &str, input: Input) -> Option<Self> {
        let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
        let (cost, rest) = rest.split_once('$')?;
        let digits = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
        let cost = cost.parse().ok().filter(|cost| digits && COSTS.contains(cost))?;
        let (salt, key) = rest.split_at_checked(22)?;
        let decoded = |text| BASE64.decode(text).ok();
        let (salt, key) = (decoded(salt)?.try_into().ok()?, decoded(key)?.try_into().ok()?);
        Some(Self { cost, salt, key, input })
    }

    /// `bcrypt_sha256$$2b$12$…` or `bcrypt$$2b$12$…`.
    pub(super) fn of_django(text: &str) -> Option<Self> {
        let stripped = DJANGO.iter().find_map(|(prefix, input)| Some((text.strip_prefix(prefix)?, *input)));
        let (hash, input) = stripped?;
        Self::parse(hash, input)
    }

    pub(super) fn cost(&self) -> u64 {
        ROUND << self.cost
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        match self.input {
            Input::Plain => self.matches_input(password),
            Input::HashedByWordPress => {
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA384, WORDPRESS_KEY), trimmed(password));
                self.matches_input(Zeroizing::new(STANDARD.encode(tag)).as_bytes())
            }
            Input::HashedByDjango => {
                self.matches_input(Zeroizing::new(hex::encode(digest(&SHA256, password))).as_bytes())
            }
        }
    }

    fn matches_input(&self, input: &[u8]) -> bool {
        // NUL-terminated, if there is room.
        let mut bytes = Zeroizing::new([0; MAX_INPUT]);
        let used = input.len().min(MAX_INPUT);
        bytes[..used].copy_from_slice(&input[..used]);
        let key = bcrypt::bcrypt(self.cost, self.salt, &bytes[..MAX_INPUT.min(used + 1)]);
        verify_slices_are_equal(&key[..self.key.len()], &self.key).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ImportedHash;

    fn check(vectors: &[(&str, &str)]) {
        for (hash, password) in vectors {
            let parsed = ImportedHash::parse(hash).unwrap_or_else(|why| panic!("{hash}: {why}"));
            assert!(matches!(parsed, ImportedHash::Bcrypt(_)));
            assert!(parsed.matches(password.as_bytes()), "{hash}");
            assert!(!parsed.matches(b"violet-Kettle-94"), "{hash}");
            assert!(!parsed.matches("p\u{e4}sswo\u{308}rter-93".as_bytes()), "{hash}");
        }
    }

    /// Made with PHP's `password_hash`, called as WordPress calls it.
    #[test]
    fn verifies_what_wordpress_made() {
        let long = "0123456789".repeat(10);
        check(&[
            ("$wp$2y$10$qeleDSuDaeZO5fBsEqFReeWdlqaDnBDBzB16hFgsFnhN9qFBIihvm", "BigBike@2026"),
            ("$wp$2y$06$aHrWZmz8eY6vkLLX8LBXF.fm/YULO/aViet1Uyu46/9mr0Vnw05KS", "violet-Kettle-93"),
            ("$wp$2y$06$aHrWZmz8eY6vkLLX8LBXF.fm/YULO/aViet1Uyu46/9mr0Vnw05KS", " violet-Kettle-93\n"),
            ("$wp$2y$06$K0VAvShweIO57A4RZp/rwuXJgETnZyztMxmsqL8UhJVMuMgvenxNG", "pässwörter-93"),
            (
                "$wp$2y$06$Aovo.vxJzvpjCl04auQpI.5ISrPYo5hCsNhIebpwg2EdMCj8bZC2q",
                "pa\u{308}sswo\u{308}rter-93",
            ),
            ("$wp$2y$06$cPnh69sl8rE.6fhN7DNJ6uVyjrWHXvecHeqX7jBouKZu2DTkmQqAC", &long),
        ]);
        let parsed = ImportedHash::parse("$wp$2y$06$cPnh69sl8rE.6fhN7DNJ6uVyjrWHXvecHeqX7jBouKZu2DTkmQqAC");
        assert!(!parsed.expect("a hash").matches(&long.as_bytes()[..80]), "all of it counts");
    }

    /// Made with PHP's `password_hash`; the last three are test vectors of jBCrypt.
    #[test]
    fn verifies_what_bcrypt_made() {
        let long = "0123456789".repeat(10);
        check(&[
            ("$2y$06$Za6kSf/3fXd.E377205mR.ilN7fYJJYJqvQxxbXS8dZTmpPELisCy", "violet-Kettle-93"),
            ("$2y$06$i8GWY.B0Z3jy9TEYi4xEuOeM/U2cjhbavCay4IUN4RmJnevnKTFl6", "pässwörter-93"),
            ("$2y$06$Scv5R5BS/h2SMyJeALSqPeRpTWwCoX1.nyOW3s/hZY58EXmsPC4fu", "pa\u{308}sswo\u{308}rter-93"),
            ("$2y$06$Cg5VTyLCBhYK51zXn6C49OsHxu/GWeO7ARnBiGvV3DBWxp6oFfO16", &long),
            ("$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.", ""),
            ("$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe", "a"),
            ("$2b$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe", "a"),
        ]);
    }

    /// Made with Python's bcrypt 4.0.1 and with Django 5.2.19.
    #[test]
    fn verifies_what_python_and_django_made() {
        check(&[
            ("$2a$04$OBmHB5d7Cmp1nY/kvQdOIO3a49QBvqTQrWYQFOWvRRWJWkdhh8PB2", "violet-Kettle-93"),
            ("$2b$04$TY0CPoW8fvFSXaEFQfZSN.nitpquoWoGGeitu3N11rV/6PkD.Qvey", "pässwörter-93"),
            ("$2b$04$I1ukWqUuIQGSI0j4yCm.gewmmYFkXz9Lk.XaJADv77szzC4oiOnFy", "pa\u{308}sswo\u{308}rter-93"),
            (
                "bcrypt_sha256$$2b$04$xFGI4U5FrS2ojMyqaaocautF1eyiPCrHeccFtxUMD7nMzYFxd9u02",
                "violet-Kettle-93",
            ),
            (
                "bcrypt_sha256$$2b$04$6GTJHVloQIOb983jHRT8i.2AugRow.E1A2QOGriGw84zN0lSafGYS",
                "pa\u{308}sswo\u{308}rter-93",
            ),
            ("bcrypt$$2b$04$mPJG98cM3j5pigezegUE1ut0W4.7IEfPFzltz47Em0xAoaxQdML.e", "violet-Kettle-93"),
            ("bcrypt$$2b$04$NMDOsbep.YA3v4XvFdESJupQWVOso.1jnZO4xUcpbRmNgpTqWnHWu", "pässwörter-93"),
        ]);
    }

    #[test]
    fn other_parameters_are_refused() {
        let rest = "Za6kSf/3fXd.E377205mR.ilN7fYJJYJqvQxxbXS8dZTmpPELisCy";
        for start in [
            "$2x$06$",
            "$2$06$",
            "$2y$03$",
            "$2y$32$",
            "$2y$6$",
            "$2y$+6$",
            "$2y$006$",
            "$2y$$",
            "$wp$2a$06$",
        ] {
            assert!(ImportedHash::parse(&format!("{start}{rest}")).is_err(), "{start}");
        }
        assert!(ImportedHash::parse(&format!("$2y$06${}é", &rest[..51])).is_err(), "two bytes at the end");
        assert!(
            ImportedHash::parse(&format!("$2y$06${}é{}", &rest[..21], &rest[23..])).is_err(),
            "across the parts"
        );
    }
}
