//! Roles of a user within an app.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[a-z][a-z0-9_-]*`, 1 to 40 characters. Apps choose their own; only `admin` means something to Watchword.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Role(#[schemars(regex(pattern = r"^[a-z][a-z0-9_-]{0,39}$"))] String);

/// The text is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a role is a lower-case letter followed by at most 39 lower-case letters, digits, '-' or '_'")]
pub struct InvalidRole;

impl Role {
    /// Parses a role.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidRole> {
        let text = text.into();
        let bytes = text.as_bytes();
        let well_formed = (1..=40).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(b));
        if well_formed { Ok(Self(text)) } else { Err(InvalidRole) }
    }

    /// The role that may use its app's admin routes.
    pub fn admin() -> Self {
        Self("admin".to_owned())
    }

    /// The role as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Role {
    type Error = InvalidRole;
    fn try_from(text: String) -> Result<Self, InvalidRole> {
        Self::parse(text)
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.0
    }
}
