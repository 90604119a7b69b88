//! What the tests of all kinds of hashes share.

use super::ImportedHash;

pub const VIOLET: &str = "violet-Kettle-93";
pub const NFC: &str = "p\u{e4}ssw\u{f6}rter-93";
pub const NFD: &str = "pa\u{308}sswo\u{308}rter-93";

/// Each hash is of that kind, matches its password, and matches no other.
pub fn check(is_kind: impl Fn(&ImportedHash) -> bool, vectors: &[(&str, &str)]) {
    for (hash, password) in vectors {
        let parsed = ImportedHash::parse(hash).unwrap_or_else(|why| panic!("{hash}: {why}"));
        assert!(is_kind(&parsed), "{hash}");
        assert!(parsed.matches(password.as_bytes()), "{hash}");
        for other in ["", "violet-Kettle-94", "violet-Kettle-93 ", "p\u{e4}sswo\u{308}rter-93"] {
            assert!(!parsed.matches(other.as_bytes()), "{hash} {other}");
        }
    }
}
