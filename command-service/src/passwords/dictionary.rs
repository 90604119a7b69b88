//! Passwords that attackers try first, shipped in the binary: packed by `build.rs`, and searched without unpacking.

use std::sync::LazyLock;

use fst::Set;

/// The list in `assets/common-passwords.txt`, in lower case. Its first lines name source and licence.
static COMMON: LazyLock<Set<&'static [u8]>> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/common-passwords.fst"));
    Set::new(bytes).expect("the build has made it")
});

/// Whether the password, in lower case, is on the list.
pub(crate) fn is_common(lower_case: &str) -> bool {
    COMMON.contains(lower_case)
}

#[cfg(test)]
mod tests {
    use fst::Streamer;

    use super::{COMMON, is_common};

    #[test]
    fn knows_the_usual_ones() {
        for common in ["password", "12345678", "qwertyuiop", "trustno1", "iloveyou"] {
            assert!(is_common(common), "{common}");
        }
        for other in ["", "passwor", "password\0", "correct horse battery staple"] {
            assert!(!is_common(other), "{other:?}");
        }
    }

    #[test]
    fn is_large_enough_and_small_enough() {
        assert!(COMMON.len() >= 10_000, "{}", COMMON.len());
        assert!(COMMON.as_fst().size() < 90_000, "{} bytes", COMMON.as_fst().size());
        let mut words = COMMON.stream();
        while let Some(word) = words.next() {
            let word = std::str::from_utf8(word).expect("UTF-8");
            assert_eq!(word.to_lowercase(), word);
        }
    }
}
