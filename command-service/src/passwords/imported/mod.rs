//! Password hashes of other systems, in the form those store them. They are only verified, never created: the first matching
//! login replaces an imported hash with one of our own. The cost of a hash is checked before it is accepted, because every
//! login attempt pays it.

mod aspnet_identity;
mod bcrypt;
mod ldap;
mod phpass;

use aspnet_identity::AspNetIdentity;
use bcrypt::Bcrypt;
use ldap::Ldap;
use phpass::Phpass;

/// Longer than any supported hash.
const MAX_LENGTH: usize = 512;

/// A hash of another system.
#[derive(Clone)]
pub(crate) enum ImportedHash {
    /// ASP.NET Core Identity, versions 2 and 3.
    AspNetIdentity(AspNetIdentity),
    /// Plain, or with WordPress' pre-hash.
    Bcrypt(Bcrypt),
    /// `{SSHA}` and `{SSHA512}`.
    Ldap(Ldap),
    /// Used by WordPress up to 6.7.
    Phpass(Phpass),
}

/// Why a hash is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotImported {
    /// In no known format.
    #[error(
        "not a hash of ASP.NET Core Identity (base64), phpass ($P$), WordPress ($wp$2y$), bcrypt ($2a$, $2b$, $2y$) or \
         LDAP ({{SSHA}}, {{SSHA512}}): send it as that system stores it"
    )]
    Unknown,
    /// Incomplete, or with parameters that the format does not allow.
    #[error("it starts like a hash of {0}, but is incomplete or has unsupported parameters")]
    Malformed(&'static str),
    /// Verifying it would take too long.
    #[error(
        "its cost is {cost}, but import.max_hash_cost is {most}: raise the limit, or have the user reset the password"
    )]
    TooCostly {
        /// In PBKDF2 iterations.
        cost: u64,
        /// The limit.
        most: u64,
    },
}

impl ImportedHash {
    /// Parses a hash and refuses one that costs more than `most`.
    pub(crate) fn accept(text: &str, most: u64) -> Result<Self, NotImported> {
        let hash = Self::parse(text)?;
        let cost = hash.cost();
        if cost > most { Err(NotImported::TooCostly { cost, most }) } else { Ok(hash) }
    }

    /// Parses a hash.
    pub(crate) fn parse(text: &str) -> Result<Self, NotImported> {
        let malformed = |format| NotImported::Malformed(format);
        if text.len() > MAX_LENGTH {
            return Err(NotImported::Unknown);
        }
        if let Some(wrapped) = text.strip_prefix(bcrypt::WORDPRESS) {
            let hash = wrapped.starts_with("$2y$").then(|| Bcrypt::parse(wrapped, true)).flatten();
            hash.map(Self::Bcrypt).ok_or(malformed("WordPress"))
        } else if text.starts_with(phpass::PREFIX) {
            Phpass::parse(text).map(Self::Phpass).ok_or(malformed("phpass"))
        } else if text.starts_with("$2") {
            Bcrypt::parse(text, false).map(Self::Bcrypt).ok_or(malformed("bcrypt"))
        } else if text.starts_with('{') {
            Ldap::parse(text).map(Self::Ldap)
        } else {
            AspNetIdentity::parse(text).map(Self::AspNetIdentity)
        }
    }

    /// The cost of verifying it, in PBKDF2 iterations (about half a microsecond each).
    pub(crate) fn cost(&self) -> u64 {
        match self {
            Self::AspNetIdentity(hash) => hash.cost(),
            Self::Bcrypt(hash) => hash.cost(),
            Self::Ldap(_) => 1,
            Self::Phpass(hash) => hash.cost(),
        }
    }

    /// Whether this is the password. The comparison takes constant time.
    pub(crate) fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::AspNetIdentity(hash) => hash.matches(password),
            Self::Bcrypt(hash) => hash.matches(password),
            Self::Ldap(hash) => hash.matches(password),
            Self::Phpass(hash) => hash.matches(password),
        }
    }
}

/// Without what PHP's `trim` removes: WordPress trims every password, both when it is set and at login.
fn trimmed(password: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\0' | b'\x0B');
    let Some(start) = password.iter().position(|byte| !is_blank(byte)) else { return &[] };
    let end = password.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    &password[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, most: u64) -> NotImported {
        ImportedHash::accept(text, most).err().unwrap_or_else(|| panic!("{text} was taken"))
    }

    #[test]
    fn what_is_no_hash_of_theirs_is_refused() {
        for text in [
            "",
            "x",
            "violet-Kettle-93",
            "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA",
            "$1$salt$x",
            "{MD5}x",
        ] {
            assert_eq!(refusal(text, u64::MAX), NotImported::Unknown, "{text}");
        }
        assert_eq!(refusal(&"A".repeat(513), u64::MAX), NotImported::Unknown);
        for (text, format) in
            [("$wp$2b$12$x", "WordPress"), ("$P$B", "phpass"), ("$2y$12$", "bcrypt"), ("{SSHA}x", "LDAP")]
        {
            assert_eq!(refusal(text, u64::MAX), NotImported::Malformed(format), "{text}");
        }
    }

    /// The highest cost that a format allows would occupy a thread for hours.
    #[test]
    fn a_hash_that_costs_too_much_is_refused() {
        let most = 2_097_152;
        let salt_and_hash = "Za6kSf/3fXd.E377205mR.ilN7fYJJYJqvQxxbXS8dZTmpPELisCy";
        let identity = |prf: u8, iterations: u32| {
            use base64::Engine as _;
            let mut blob = vec![1, 0, 0, 0, prf];
            blob.extend(iterations.to_be_bytes());
            blob.extend(16_u32.to_be_bytes());
            blob.extend([7; 48]);
            base64::engine::general_purpose::STANDARD.encode(blob)
        };
        for (text, cost) in [
            (format!("$2b$15${salt_and_hash}"), 128 << 15),
            (format!("$2b$31${salt_and_hash}"), 128 << 31),
            (format!("$wp$2y$31${salt_and_hash}"), 128 << 31),
            // `S` is 30: 2^30 rounds.
            ("$P$S/I/xqto7uh5mAah5Dnd5UqaMl0VVG.".to_owned(), 1 << 30),
            (identity(2, u32::MAX), u64::from(u32::MAX)),
            // 32 bytes of key are two blocks of SHA-1.
            (identity(0, 1_048_577), 2_097_154),
        ] {
            assert_eq!(refusal(&text, most), NotImported::TooCostly { cost, most }, "{text}");
            let told = refusal(&text, most).to_string();
            assert!(told.contains(&cost.to_string()) && told.contains("import.max_hash_cost"), "{told}");
            assert!(ImportedHash::accept(&text, cost).is_ok(), "{text}");
        }
        // Common costs are accepted.
        for text in [format!("$2b$14${salt_and_hash}"), identity(2, 1_000_000), identity(0, 1_000_000)] {
            assert!(ImportedHash::accept(&text, most).is_ok(), "{text}");
        }
    }

    #[test]
    fn trims_as_php_does() {
        assert_eq!(trimmed(b" \t\n\r\0\x0B a b \x0C"), b"a b \x0C");
        assert_eq!(trimmed(b" \0 "), b"");
        assert_eq!(trimmed(b""), b"");
        assert_eq!(trimmed("\u{a0}x\u{a0}".as_bytes()), "\u{a0}x\u{a0}".as_bytes());
    }

    /// Truncated and padded hashes are refused, and nothing panics.
    #[test]
    fn a_broken_hash_is_refused() {
        let whole = [
            "AQAAAAIAAYagAAAAEGtb3qchjOAn+DezQi2ufCJyNP0aiVKF2n3NeFfTvoSkNyNwrXwg/1DOF/J3Ay1qsQ==",
            "APUv3KN2C1SPWfUFRP65/InaNHIZqSNt6tCJeseNiKoH3nKR5PEZuYN9ZvfOC9kfZg==",
            "$wp$2y$06$aHrWZmz8eY6vkLLX8LBXF.fm/YULO/aViet1Uyu46/9mr0Vnw05KS",
            "$2y$06$Za6kSf/3fXd.E377205mR.ilN7fYJJYJqvQxxbXS8dZTmpPELisCy",
            "$P$6/I/xqto7uh5mAah5Dnd5UqaMl0VVG.",
            "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD",
        ];
        for text in whole {
            assert!(ImportedHash::parse(text).is_ok(), "{text}");
            for end in 0..text.len() {
                // Base64 cut at a whole group is valid: only the key or the salt is shorter.
                let cut = &text[..end];
                let shorter = cut.len().is_multiple_of(4) || cut.starts_with("{SSHA}");
                assert!(ImportedHash::parse(cut).is_err() || shorter, "{cut}");
            }
            for junk in ["\0", " ", "é", "$"] {
                assert!(ImportedHash::parse(&format!("{text}{junk}")).is_err(), "{text}{junk}");
                assert!(ImportedHash::parse(&format!("{junk}{text}")).is_err(), "{junk}{text}");
            }
        }
    }
}
