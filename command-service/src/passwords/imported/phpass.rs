//! Portable phpass hashes, used by WordPress up to 6.7: iterated MD5 of a salt and the password.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use md5::{Digest, Md5};

use super::trimmed;

pub(super) const PREFIX: &str = "$P$";
/// Its base-64 digits, least significant first.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Exponents of two.
const ROUNDS: std::ops::RangeInclusive<usize> = 7..=30;
const SALT: usize = 8;
const HASH: usize = 22;

#[derive(Clone)]
pub(crate) struct Phpass {
    rounds: u32,
    salt: [u8; SALT],
    hash: [u8; HASH],
}

impl Phpass {
    /// `$P$<rounds><8 characters of salt><22 of hash>`. The salt is used as text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (rounds, rest) = text.strip_prefix(PREFIX)?.as_bytes().split_first()?;
        let rounds = DIGITS.iter().position(|digit| digit == rounds).filter(|it| ROUNDS.contains(it))?;
        let (salt, rest) = rest.split_first_chunk()?;
        let hash: [u8; HASH] = rest.try_into().ok()?;
        let all_digits = hash.iter().chain(salt).all(|byte| DIGITS.contains(byte));
        all_digits.then_some(Self { rounds: 1 << rounds, salt: *salt, hash })
    }

    /// A PBKDF2 iteration takes at least as long.
    pub(super) fn cost(&self) -> u64 {
        self.rounds.into()
    }

    /// WordPress trims passwords; other users of phpass do not.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let trimmed = trimmed(password);
        self.is_of(password) | (trimmed.len() < password.len() && self.is_of(trimmed))
    }

    fn is_of(&self, password: &[u8]) -> bool {
        let mut state: [u8; 16] = Md5::new().chain_update(self.salt).chain_update(password).finalize().into();
        for _ in 0..self.rounds {
            state = Md5::new().chain_update(state).chain_update(password).finalize().into();
        }
        verify_slices_are_equal(&encode(&state), &self.hash).is_ok()
    }
}

fn encode(bytes: &[u8; 16]) -> Vec<u8> {
    let group = |group: &[u8]| {
        let value = group.iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte));
        (0..=group.len()).map(move |digit| DIGITS[value >> (6 * digit) & 63]).collect::<Vec<_>>()
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ImportedHash;

    /// The first comes from WordPress' documentation, the others from passlib.
    #[test]
    fn verifies_what_phpass_made() {
        for (hash, password) in [
            ("$P$B55D6LjfHDkINU5wF.v2BuuzO0/XPk/", "test"),
            ("$P$6/I/xqto7uh5mAah5Dnd5UqaMl0VVG.", "violet-Kettle-93"),
            ("$P$6/I/xqto7uh5mAah5Dnd5UqaMl0VVG.", " violet-Kettle-93 "),
            ("$P$6hDO49QGph3IqNYIRBBUNG0IlTk4jD/", "pässwörter-93"),
            ("$P$65V8Xk9rEO6Vd/SRduirb4A0pXoZx00", "pa\u{308}sswo\u{308}rter-93"),
        ] {
            let parsed = ImportedHash::parse(hash).unwrap_or_else(|why| panic!("{hash}: {why}"));
            assert!(matches!(parsed, ImportedHash::Phpass(_)));
            assert!(parsed.matches(password.as_bytes()), "{hash}");
            for other in ["", "Test", "violet-Kettle-94", "p\u{e4}sswo\u{308}rter-93"] {
                assert!(!parsed.matches(other.as_bytes()), "{hash} {other}");
            }
        }
    }

    #[test]
    fn other_parameters_are_refused() {
        for text in [
            "$P$4/I/xqto7uh5mAah5Dnd5UqaMl0VVG.",
            "$P$T/I/xqto7uh5mAah5Dnd5UqaMl0VVG.",
            "$P$!/I/xqto7uh5mAah5Dnd5UqaMl0VVG.",
            "$P$6/I/xqt$7uh5mAah5Dnd5UqaMl0VVG.",
            "$P$6/I/xqto7uh5mAah5Dnd5UqaMl0VVGé",
            "$H$6/I/xqto7uh5mAah5Dnd5UqaMl0VVG.",
        ] {
            assert!(ImportedHash::parse(text).is_err(), "{text}");
        }
    }
}
