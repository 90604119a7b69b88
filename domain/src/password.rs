//! Passwords as a person typed them, and their hashes.

use std::fmt;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// The longest password, in bytes of its NFC form. Nothing is cut off: a longer one is refused.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// A password in NFC (RFC 8265 section 4.2), so that the same letters typed on two keyboards are one password. It is
/// otherwise compared exactly as received. It cannot be logged, and its memory is cleared when it is dropped.
#[derive(Clone, Debug)]
pub struct Password {
    nfc: SecretString,
    /// As received, if that differs.
    typed: Option<SecretString>,
}

/// Why a password may not be chosen. A password that is merely *tried* at a login is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// Fewer characters than the app asks for.
    #[error("the password is too short: it needs at least {0} characters")]
    TooShort(u32),
    /// More than [`MAX_PASSWORD_BYTES`].
    #[error("the password is too long: at most 1024 bytes")]
    TooLong,
    /// On the list of passwords that attackers try first.
    #[error("the password is too common: it is among those that attackers try first")]
    TooCommon,
}

impl Password {
    /// Takes a password as received. Its length is not limited here, as the request body's is.
    pub fn new(received: &str) -> Self {
        let nfc = received.nfc().collect::<String>();
        let typed = (nfc != received).then(|| SecretString::from(received));
        Self { nfc: SecretString::from(nfc), typed }
    }

    /// Judges a new password: `min_length` counts characters, `is_common` is given the password in lower case.
    pub fn check(&self, min_length: u32, is_common: impl Fn(&str) -> bool) -> Result<(), WeakPassword> {
        let text = self.nfc.expose_secret();
        if text.len() > MAX_PASSWORD_BYTES {
            return Err(WeakPassword::TooLong);
        }
        if text.chars().count() < min_length as usize {
            return Err(WeakPassword::TooShort(min_length));
        }
        if is_common(&text.to_lowercase()) {
            return Err(WeakPassword::TooCommon);
        }
        Ok(())
    }

    /// The bytes to hash, or `None` for more than [`MAX_PASSWORD_BYTES`], which no account can have.
    pub fn bytes(&self) -> Option<&[u8]> {
        possible(&self.nfc)
    }

    /// The forms that another system, which does not normalize, may have hashed: NFC and, if that differs, as received.
    /// Forms longer than [`MAX_PASSWORD_BYTES`] are left out.
    pub fn forms(&self) -> impl Iterator<Item = &[u8]> {
        [Some(&self.nfc), self.typed.as_ref()].into_iter().flatten().filter_map(possible)
    }
}

fn possible(text: &SecretString) -> Option<&[u8]> {
    let bytes = text.expose_secret().as_bytes();
    (bytes.len() <= MAX_PASSWORD_BYTES).then_some(bytes)
}

/// An argon2id hash in PHC string format, with its salt and parameters; until the first login of somebody who came from
/// another system, what that system had made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::{Password, WeakPassword};

    #[test]
    fn nfc_and_nfd_are_one_password() {
        assert_eq!(Password::new("pässwörter").bytes(), Password::new("pa\u{308}sswo\u{308}rter").bytes());
    }

    #[test]
    fn the_form_it_was_typed_in_is_kept_beside_nfc() {
        let forms = |text: &str| Password::new(text).forms().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (nfc, nfd) = ("pässwörter", "pa\u{308}sswo\u{308}rter");
        assert_eq!(forms(nfc), [nfc.as_bytes()]);
        assert_eq!(forms(nfd), [nfc.as_bytes(), nfd.as_bytes()]);
        assert_eq!(forms(&"a\u{308}".repeat(500)), ["ä".repeat(500).as_bytes()], "the other is too long");
        assert_eq!(forms(&"x".repeat(1025)), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn case_blanks_and_nul_count() {
        for other in ["Correct horse ", "correct horse", "Correct horse\0"] {
            assert_ne!(Password::new("Correct horse").bytes(), Password::new(other).bytes());
        }
    }

    #[test]
    fn judges_length_in_characters_and_bytes() {
        let common = |text: &str| text == "letmein123";
        assert_eq!(Password::new("kürzer").check(8, common), Err(WeakPassword::TooShort(8)));
        assert_eq!(Password::new(&"é".repeat(513)).check(8, common), Err(WeakPassword::TooLong));
        assert_eq!(Password::new("LetMeIn123").check(8, common), Err(WeakPassword::TooCommon));
        assert_eq!(Password::new(&"é".repeat(512)).check(8, common), Ok(()));
    }

    #[test]
    fn is_never_shown() {
        assert!(!format!("{:?}", Password::new("hunter2hunter2")).contains("hunter2"));
    }
}
