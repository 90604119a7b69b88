//! What a role allows in the app that the organization belongs to.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A permission of the app's own, such as `billing:read`: `[a-z0-9_-]+(:[a-z0-9_*-]+)*`, at most 64 characters. Watchword hands
/// it on and compares nothing with it: what `billing:*` covers, the app decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct RolePermission(
    #[schemars(regex(pattern = r"^[a-z0-9_-]+(:[a-z0-9_*-]+)*$"), length(min = 1, max = 64))] String,
);

/// The text is not a permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a permission is 1 to 64 lower-case letters, digits, '_' and '-', with parts after ':' that may also have '*', such as \
     billing:read"
)]
pub struct InvalidRolePermission;

impl RolePermission {
    /// The most bytes of one.
    pub const MAX: usize = 64;

    /// Parses a permission.
    ///
    /// # Errors
    /// [`InvalidRolePermission`].
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidRolePermission> {
        let text = text.into();
        let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        let mut parts = text.split(':');
        let is_name = |part: &str| !part.is_empty() && part.bytes().all(is_letter);
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| is_letter(b) || b == b'*');
        let well_formed = text.len() <= Self::MAX && parts.next().is_some_and(is_name) && parts.all(is_part);
        if well_formed { Ok(Self(text)) } else { Err(InvalidRolePermission) }
    }

    /// The permission as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RolePermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RolePermission {
    type Error = InvalidRolePermission;
    fn try_from(text: String) -> Result<Self, InvalidRolePermission> {
        Self::parse(text)
    }
}

impl From<RolePermission> for String {
    fn from(permission: RolePermission) -> Self {
        permission.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parts_and_wildcards() {
        let long = "a".repeat(RolePermission::MAX);
        for text in ["billing", "billing:read", "billing:*", "a_b-1:c:*-d", "0", &long] {
            assert_eq!(RolePermission::parse(text).expect("valid").as_str(), text);
        }
        let longer = format!("{long}a");
        for text in [
            "",
            "*",
            "*:read",
            ":read",
            "billing:",
            "billing::read",
            "Billing:read",
            "a b",
            "é",
            "a.b",
            &longer,
        ] {
            assert_eq!(RolePermission::parse(text), Err(InvalidRolePermission), "{text}");
        }
    }
}
