//! Roles of a user within an app.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A letter and up to 63 letters, digits, `.`, `_`, `:` and `-`, compared exactly: `Admin` is not `admin`. Apps choose their
/// own; only the one that the setting `admin_role` names means something to Watchword.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Role(#[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9._:-]{0,63}$"))] String);

/// The text is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a role is a letter followed by at most 63 letters, digits, '.', '_', ':' or '-', without blanks")]
pub struct InvalidRole;

impl Role {
    /// Parses a role.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidRole> {
        let text = text.into();
        let bytes = text.as_bytes();
        let well_formed = (1..=64).contains(&bytes.len())
            && bytes[0].is_ascii_alphabetic()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(b));
        if well_formed { Ok(Self(text)) } else { Err(InvalidRole) }
    }

    /// The role that may use its app's admin routes, unless the app chose another or none.
    pub fn admin() -> Self {
        Self("admin".to_owned())
    }

    /// The highest role of an organization.
    pub fn owner() -> Self {
        Self("owner".to_owned())
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
