//! Proof Key for Code Exchange (RFC 7636), by the method S256 only: an intercepted code is useless without the secret
//! that the app has kept.

use std::fmt;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// A code challenge of the method S256: the SHA-256 hash of the verifier, in base64url without padding (RFC 7636 section
/// 4.2). It is no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct CodeChallenge(#[schemars(regex(pattern = r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"))] String);

/// The text is not the base64url form of 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a code challenge is a SHA-256 hash in base64url without padding: 43 characters")]
pub struct InvalidCodeChallenge;

/// A code verifier: 43 to 128 letters, digits and `-._~` (RFC 7636 section 4.1). It cannot be logged.
#[derive(Clone, Debug)]
pub struct CodeVerifier(SecretString);

/// The text is not a code verifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a code verifier is 43 to 128 characters: letters, digits and `-._~`")]
pub struct InvalidCodeVerifier;

impl CodeChallenge {
    /// The length of the base64url form of a SHA-256 hash.
    const LENGTH: usize = 43;

    /// Parses a challenge.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidCodeChallenge> {
        let text = text.into();
        let bytes = text.as_bytes();
        let base64url = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        // The last character holds four bits of the hash and two zero bits; otherwise two texts would mean the same
        // hash.
        let ends_well = bytes.last().is_some_and(|last| b"AEIMQUYcgkosw048".contains(last));
        if bytes.len() == Self::LENGTH && bytes.iter().all(base64url) && ends_well {
            Ok(Self(text))
        } else {
            Err(InvalidCodeChallenge)
        }
    }

    /// The challenge as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both are equal, compared in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        let difference = self.0.bytes().zip(other.0.bytes()).fold(0, |found, (a, b)| found | (a ^ b));
        difference == 0
    }
}

impl CodeVerifier {
    /// Parses a verifier as received.
    pub fn parse(text: &str) -> Result<Self, InvalidCodeVerifier> {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        if (43..=128).contains(&text.len()) && text.bytes().all(unreserved) {
            Ok(Self(SecretString::from(text)))
        } else {
            Err(InvalidCodeVerifier)
        }
    }

    /// The bytes to hash.
    pub fn bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

impl fmt::Display for CodeChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CodeChallenge {
    type Error = InvalidCodeChallenge;
    fn try_from(text: String) -> Result<Self, InvalidCodeChallenge> {
        Self::parse(text)
    }
}

impl From<CodeChallenge> for String {
    fn from(challenge: CodeChallenge) -> Self {
        challenge.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636 appendix B.
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    #[test]
    fn takes_the_example_of_the_rfc() {
        assert_eq!(CodeChallenge::parse(CHALLENGE).expect("valid").as_str(), CHALLENGE);
        assert_eq!(CodeVerifier::parse(VERIFIER).expect("valid").bytes(), VERIFIER.as_bytes());
        assert!(CodeVerifier::parse(&"~".repeat(128)).is_ok());
    }

    #[test]
    fn refuses_what_is_no_hash() {
        let (short, long) = (&CHALLENGE[1..], format!("A{CHALLENGE}"));
        let (padded, not_canonical) = (format!("{CHALLENGE}="), CHALLENGE.replace("-cM", "-cN"));
        let (plus, blank) = (CHALLENGE.replace('-', "+"), CHALLENGE.replace('-', " "));
        for text in ["", short, &long, &padded, &not_canonical, &plus, &blank, &"é".repeat(21)] {
            assert!(CodeChallenge::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_verifier() {
        let wide = "é".repeat(30);
        for text in ["", &VERIFIER[1..], &"a".repeat(129), &VERIFIER.replace('-', "+"), &wide] {
            assert!(CodeVerifier::parse(text).is_err(), "{text:?}");
        }
        let shown = format!("{:?}", CodeVerifier::parse(VERIFIER));
        assert!(!shown.contains(VERIFIER), "{shown}");
    }

    #[test]
    fn one_character_makes_another_challenge() {
        let challenge = CodeChallenge::parse(CHALLENGE).expect("valid");
        assert!(challenge.matches(&challenge.clone()));
        for index in 0..CHALLENGE.len() - 1 {
            let mut other = CHALLENGE.to_owned().into_bytes();
            other[index] = if other[index] == b'x' { b'y' } else { b'x' };
            let other = CodeChallenge::parse(String::from_utf8(other).expect("ASCII")).expect("valid");
            assert!(!challenge.matches(&other), "{index}");
        }
    }
}
