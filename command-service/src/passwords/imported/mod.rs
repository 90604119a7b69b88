//! Password hashes of other systems, in the form those store them. They are only verified, never created: the first matching
//! login replaces an imported hash with one of our own. The cost of a hash is checked before it is accepted, because every
//! login attempt pays it.

mod argon2;
mod aspnet_identity;
mod bcrypt;
mod ldap;
mod pbkdf2;
mod phpass;
mod scrypt;
mod sha_crypt;
#[cfg(test)]
mod testing;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use domain::password::PasswordHash;

use argon2::Argon2;
use aspnet_identity::AspNetIdentity;
use bcrypt::{Bcrypt, Input};
use ldap::Ldap;
use pbkdf2::Pbkdf2;
use phpass::Phpass;
use scrypt::Scrypt;
use sha_crypt::ShaCrypt;

/// Longer than any supported hash.
const MAX_LENGTH: usize = 512;
/// No hash may use more memory, in bytes, whatever costs the operator allows: each thread that hashes may need it at once.
const MAX_MEMORY: u64 = 256 << 20;

/// A hash of another system.
#[derive(Clone)]
pub(crate) enum ImportedHash {
    /// argon2id and argon2i.
    Argon2(Argon2),
    /// ASP.NET Core Identity, versions 2 and 3.
    AspNetIdentity(AspNetIdentity),
    /// Plain, or with the pre-hash of WordPress or Django.
    Bcrypt(Bcrypt),
    /// `{SSHA}` and `{SSHA512}`.
    Ldap(Ldap),
    /// As a PHC string, or as passlib or Django writes it.
    Pbkdf2(Pbkdf2),
    /// Used by WordPress up to 6.7.
    Phpass(Phpass),
    /// Of Firebase and better-auth too.
    Scrypt(Scrypt),
    /// `$5$` and `$6$`.
    ShaCrypt(ShaCrypt),
}

/// Why a hash is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotImported {
    /// In no known format.
    #[error(
        "not a hash of argon2 ($argon2id$, $argon2i$), bcrypt ($2a$, $2b$, $2y$), scrypt ($scrypt$), PBKDF2 ($pbkdf2-sha256$), \
         SHA-2 crypt ($5$, $6$), Django, Firebase ($fbscrypt$), better-auth, ASP.NET Core Identity (base64), phpass ($P$), \
         WordPress ($wp$2y$) or LDAP ({{SSHA}}, {{SSHA512}}): send it as that system stores it"
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
    /// Verifying it would take too much memory.
    #[error("it needs {mib} MiB of memory, and at most {most} are allowed: have the user reset the password")]
    TooLarge {
        /// In MiB.
        mib: u64,
        /// The limit.
        most: u64,
    },
}

impl ImportedHash {
    /// Parses a hash and refuses one that costs more than `most`: what is stored of it.
    pub(crate) fn accept(text: &str, most: u64) -> Result<PasswordHash, NotImported> {
        let hash = Self::parse(text)?;
        let (cost, memory) = (hash.cost(), hash.memory());
        if cost > most {
            return Err(NotImported::TooCostly { cost, most });
        }
        if memory > MAX_MEMORY {
            return Err(NotImported::TooLarge { mib: memory >> 20, most: MAX_MEMORY >> 20 });
        }
        // A hash of our own is of a password in NFC, and is not replaced.
        let is_like_ours = text.starts_with(argon2::PHC);
        Ok(PasswordHash(if is_like_ours { format!("{}{text}", argon2::DJANGO) } else { text.to_owned() }))
    }

    /// Parses a hash.
    pub(crate) fn parse(text: &str) -> Result<Self, NotImported> {
        let malformed = |format| NotImported::Malformed(format);
        if text.len() > MAX_LENGTH {
            return Err(NotImported::Unknown);
        }
        if let Some(wrapped) = text.strip_prefix(bcrypt::WORDPRESS) {
            let hash = wrapped
                .starts_with("$2y$")
                .then(|| Bcrypt::parse(wrapped, Input::HashedByWordPress))
                .flatten();
            hash.map(Self::Bcrypt).ok_or(malformed("WordPress"))
        } else if text.starts_with(phpass::PREFIX) {
            Phpass::parse(text).map(Self::Phpass).ok_or(malformed("phpass"))
        } else if text.starts_with("$2") {
            Bcrypt::parse(text, Input::Plain).map(Self::Bcrypt).ok_or(malformed("bcrypt"))
        } else if text.starts_with('{') {
            Ldap::parse(text).map(Self::Ldap)
        } else if let Some(hash) = phc_of_argon2(text) {
            Argon2::parse(hash).map(Self::Argon2).ok_or(malformed("argon2"))
        } else if bcrypt::is_of_django(text) {
            Bcrypt::of_django(text).map(Self::Bcrypt).ok_or(malformed("bcrypt"))
        } else if Pbkdf2::is_meant(text) {
            Pbkdf2::parse(text).map(Self::Pbkdf2).ok_or(malformed("PBKDF2"))
        } else if ShaCrypt::is_meant(text) {
            ShaCrypt::parse(text).map(Self::ShaCrypt).ok_or(malformed("SHA-2 crypt"))
        } else if Scrypt::is_meant(text) {
            Scrypt::parse(text).map(Self::Scrypt).ok_or(malformed("scrypt"))
        } else {
            AspNetIdentity::parse(text).map(Self::AspNetIdentity)
        }
    }

    /// The cost of verifying it, in PBKDF2 iterations (about half a microsecond each).
    pub(crate) fn cost(&self) -> u64 {
        match self {
            Self::Argon2(hash) => hash.cost(),
            Self::AspNetIdentity(hash) => hash.cost(),
            Self::Bcrypt(hash) => hash.cost(),
            Self::Ldap(_) => 1,
            Self::Pbkdf2(hash) => hash.cost(),
            Self::Phpass(hash) => hash.cost(),
            Self::Scrypt(hash) => hash.cost(),
            Self::ShaCrypt(hash) => hash.cost(),
        }
    }

    /// The bytes of memory that verifying it takes, if they are many.
    fn memory(&self) -> u64 {
        match self {
            Self::Argon2(hash) => hash.memory(),
            Self::Scrypt(hash) => hash.memory(),
            Self::AspNetIdentity(_)
            | Self::Bcrypt(_)
            | Self::Ldap(_)
            | Self::Pbkdf2(_)
            | Self::Phpass(_)
            | Self::ShaCrypt(_) => 0,
        }
    }

    /// Whether this is the password. The comparison takes constant time.
    pub(crate) fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2(hash) => hash.matches(password),
            Self::AspNetIdentity(hash) => hash.matches(password),
            Self::Bcrypt(hash) => hash.matches(password),
            Self::Ldap(hash) => hash.matches(password),
            Self::Pbkdf2(hash) => hash.matches(password),
            Self::Phpass(hash) => hash.matches(password),
            Self::Scrypt(hash) => hash.matches(password),
            Self::ShaCrypt(hash) => hash.matches(password),
        }
    }
}

/// The PHC string of argon2, which Django puts a prefix before.
fn phc_of_argon2(text: &str) -> Option<&str> {
    let phc = text.strip_prefix(argon2::DJANGO).filter(|rest| rest.starts_with('$')).unwrap_or(text);
    phc.starts_with(argon2::PHC).then_some(phc)
}

fn unpadded(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok()
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
        for text in ["", "x", "violet-Kettle-93", "$1$salt$x", "$7$x", "argon2", "md5$salt$x", "{MD5}x"] {
            assert_eq!(refusal(text, u64::MAX), NotImported::Unknown, "{text}");
        }
        assert_eq!(refusal(&"A".repeat(513), u64::MAX), NotImported::Unknown);
        for (text, format) in [
            ("$wp$2b$12$x", "WordPress"),
            ("$P$B", "phpass"),
            ("$2y$12$", "bcrypt"),
            ("{SSHA}x", "LDAP"),
            ("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA", "argon2"),
            ("$pbkdf2-sha256$x", "PBKDF2"),
            ("pbkdf2_sha256$x", "PBKDF2"),
            ("$6$x", "SHA-2 crypt"),
            ("$scrypt$x", "scrypt"),
            ("bcrypt_sha256$x", "bcrypt"),
        ] {
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
        let argon2 = |costs: &str| {
            format!(
                "$argon2id$v=19${costs},p=1$S3sNRDr/yu8i3yFLiQwuDQ$fG/BKOW5LT8TcMRxta/UYey/9PItEc9+gh6PlWEcaH8"
            )
        };
        let scrypt = |costs: &str| {
            format!("$scrypt${costs}$4ZwzxhgDgHDu/f+fsxZiLA$e5K/+hHySFyL9TLJVEoyIJx1pAiytT7hXBGt6sOVkOA")
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
            (argon2("m=1048576,t=2"), 4 << 20),
            (argon2("m=4294967295,t=4294967295"), u64::MAX),
            (scrypt("ln=31,r=8,p=1"), 8 << 31),
            (scrypt("ln=1,r=1,p=1073741823"), 2 * 1_073_741_823),
            (
                "pbkdf2_sha256$4294967295$salt$RtN3UULge9xcN+tq0PWeisQphsKfg+XdSNqJxssLEaE=".to_owned(),
                4_294_967_295,
            ),
            (format!("$5$rounds=999999999$salt${}", "x".repeat(43)), 4 * 999_999_999),
            ("scrypt$1073741824$salt$8$1$Zqa7YkuFLooBPtoRmzSVcg==".to_owned(), 8 << 30),
        ] {
            assert_eq!(refusal(&text, most), NotImported::TooCostly { cost, most }, "{text}");
            let told = refusal(&text, most).to_string();
            assert!(told.contains(&cost.to_string()) && told.contains("import.max_hash_cost"), "{told}");
            // Memory has a limit of its own.
            let is_limited = ImportedHash::parse(&text).expect("a hash").memory() > MAX_MEMORY;
            assert_eq!(ImportedHash::accept(&text, cost).is_err(), is_limited, "{text}");
        }
        // Common costs are accepted.
        for text in [
            format!("$2b$14${salt_and_hash}"),
            identity(2, 1_000_000),
            identity(0, 1_000_000),
            argon2("m=65536,t=3"),
            argon2("m=262144,t=3"),
            scrypt("ln=17,r=8,p=1"),
            "pbkdf2_sha256$1000000$salt$RtN3UULge9xcN+tq0PWeisQphsKfg+XdSNqJxssLEaE=".to_owned(),
            format!("$6$rounds=500000$salt${}", "x".repeat(86)),
        ] {
            assert!(ImportedHash::accept(&text, most).is_ok(), "{text}");
        }
    }

    /// An operator may allow any cost; memory that is not there would end the process.
    #[test]
    fn a_hash_that_needs_too_much_memory_is_refused() {
        let rest = "4ZwzxhgDgHDu/f+fsxZiLA$e5K/+hHySFyL9TLJVEoyIJx1pAiytT7hXBGt6sOVkOA";
        for (text, mib) in [
            (format!("$argon2id$v=19$m=262145,t=1,p=1${rest}"), 256),
            (format!("$argon2i$v=19$m=4194304,t=1,p=1${rest}"), 4096),
            (format!("$scrypt$ln=18,r=8,p=2${rest}"), 256),
            (format!("$scrypt$ln=31,r=8,p=1${rest}"), 2_097_152),
            (format!("$scrypt$ln=1,r=1,p=1073741823${rest}"), 131_072),
        ] {
            assert_eq!(refusal(&text, u64::MAX), NotImported::TooLarge { mib, most: 256 }, "{text}");
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
            "$argon2id$v=19$m=256,t=2,p=1$S3sNRDr/yu8i3yFLiQwuDQ$fG/BKOW5LT8TcMRxta/UYey/9PItEc9+gh6PlWEcaH8",
            "$pbkdf2-sha256$i=1000,l=64$HhQX5PxhI2JHFpg281VhaA$OcpPMixGLzsW3j470UByAqjSeNX2Ze37ANw9wanHOI4zuiPIihKERenst4ko2U+WcGoqOGheCX1aJPD2BvzaJg",
            "$5$9e1WTMbZRHkbRKud$.GVL2zL61I3xDvwqsioRN4/jRMzQI8qk9gDWXHya9P8",
            "419ba91c661e18dbcb26b4c35692c101:192b49b7daa90e8c7fcbf4d362f50425549931d2be9b5118f1cd71f932e19b17cbe2adf302b03f166dce7fb5be42d02c512ab268887eed6ad0d07b0abb9a905b",
            "bcrypt_sha256$$2b$04$xFGI4U5FrS2ojMyqaaocautF1eyiPCrHeccFtxUMD7nMzYFxd9u02",
        ];
        for text in whole {
            assert!(ImportedHash::parse(text).is_ok(), "{text}");
            for end in 0..text.len() {
                // Base64 cut at a whole group is valid: only the key or the salt is shorter.
                let cut = &text[..end];
                let shorter = cut.len().is_multiple_of(4)
                    || cut.starts_with("{SSHA}")
                    || (cut.starts_with("$argon2") && text.len() - end < 28);
                assert!(ImportedHash::parse(cut).is_err() || shorter, "{cut}");
            }
            for junk in ["\0", " ", "é", "$"] {
                assert!(ImportedHash::parse(&format!("{text}{junk}")).is_err(), "{text}{junk}");
                assert!(ImportedHash::parse(&format!("{junk}{text}")).is_err(), "{junk}{text}");
            }
        }
    }
}
