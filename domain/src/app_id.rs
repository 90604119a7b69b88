//! The name of an app: a path segment, a NATS subject token and the audience of its tokens.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// `[a-z0-9](-?[a-z0-9])*`, 1 to 40 characters: it can hold nothing that means something in a NATS subject, a
/// URL or a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct AppId(
    #[schemars(with = "String", regex(pattern = r"^[a-z0-9](-?[a-z0-9])*$"), length(min = 1, max = 40))]
    SmolStr,
);

/// Whether a text is 1 to 40 lower-case letters and digits, with single hyphens between them.
pub(crate) fn is_segment(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=40).contains(&bytes.len())
        && alphanumeric(bytes[0])
        && alphanumeric(bytes[bytes.len() - 1])
        && bytes.iter().all(|&b| alphanumeric(b) || b == b'-')
        && !text.contains("--")
}

/// The text is not an app id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an app id is 1 to 40 lower-case letters and digits, with single hyphens between them")]
pub struct InvalidAppId;

impl AppId {
    /// Parses an app id.
    pub fn parse(text: impl Into<SmolStr>) -> Result<Self, InvalidAppId> {
        let text = text.into();
        if is_segment(&text) { Ok(Self(text)) } else { Err(InvalidAppId) }
    }

    /// The app that a fresh embedded start makes, and whose routes also answer under `/auth`.
    pub fn default_app() -> Self {
        Self(SmolStr::new_static("default"))
    }

    /// The app that holds the platform's own API keys. It has no users and is in no list.
    pub fn platform() -> Self {
        Self(SmolStr::new_static("platform"))
    }

    /// Whether this is [`AppId::platform`].
    pub fn is_platform(&self) -> bool {
        self.0 == "platform"
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AppId {
    type Error = InvalidAppId;
    fn try_from(text: String) -> Result<Self, InvalidAppId> {
        Self::parse(text)
    }
}

impl From<AppId> for String {
    fn from(id: AppId) -> Self {
        id.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::AppId;

    #[test]
    fn takes_what_the_contract_allows() {
        for text in ["a", "0", "acme", "acme-2", "a-b-c", &"a".repeat(40)] {
            assert_eq!(AppId::parse(text).expect(text).as_str(), text);
        }
    }

    #[test]
    fn refuses_what_would_mean_something_elsewhere() {
        for text in
            ["", "-a", "a-", "a--b", "A", "a.b", "a*", "a>", "a b", "a/b", "ä", "a_b", &"a".repeat(41)]
        {
            assert!(AppId::parse(text).is_err(), "{text:?}");
        }
    }
}
