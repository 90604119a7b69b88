//! What a role allows in the app that the organization belongs to.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A permission of the app's own, such as `billing:read`: `[a-z0-9_-]+(:[a-z0-9_*-]+)*`, at most 64 characters. What it
/// opens, the app decides. Watchword reads `*` at the end as everything below, to keep what is reserved for owners from others.
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

    /// Whether this one may stand for the other: they are the same, or a part `*` stands for any part, and as the last one for
    /// all that follow. That decides only what an admin cannot give; what a permission allows, the app decides.
    pub fn covers(&self, other: &Self) -> bool {
        let (mine, theirs): (Vec<&str>, Vec<&str>) =
            (self.0.split(':').collect(), other.0.split(':').collect());
        let covers_the_rest = mine.last() == Some(&"*") && mine.len() <= theirs.len();
        (mine.len() == theirs.len() || covers_the_rest)
            && mine.iter().zip(&theirs).all(|(mine, theirs)| mine == theirs || *mine == "*")
    }

    /// Whether an app could take something for covered by both. What `*` means within a part is the app's, too: here it may be
    /// anything.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mine, theirs): (Vec<&str>, Vec<&str>) =
            (self.0.split(':').collect(), other.0.split(':').collect());
        let (short, long) = if mine.len() <= theirs.len() { (&mine, &theirs) } else { (&theirs, &mine) };
        let is_pattern = |part: &str| part.contains('*');
        (short.len() == long.len() || short.last().is_some_and(|part| is_pattern(part)))
            && short.iter().zip(long).all(|(one, other)| one == other || is_pattern(one) || is_pattern(other))
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
    fn a_wildcard_covers_a_part_and_at_the_end_the_rest() {
        let covers = |one: &str, other: &str| {
            let parsed = |text: &str| RolePermission::parse(text).expect("valid");
            parsed(one).covers(&parsed(other))
        };
        for (one, other) in [
            ("billing:read", "billing:read"),
            ("billing:*", "billing:read"),
            ("billing:*", "billing:*"),
            ("billing:*", "billing:read:own"),
            ("billing:*:own", "billing:read:own"),
        ] {
            assert!(covers(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("billing:read", "billing:write"),
            ("billing:read", "billing:*"),
            ("billing:*", "billing"),
            ("billing", "billing:read"),
            ("billing:*:own", "billing:read"),
            ("billing:*", "billings:read"),
            ("billing:r*", "billing:read"),
        ] {
            assert!(!covers(one, other), "{one} {other}");
        }
    }

    #[test]
    fn permissions_overlap_where_an_app_could_take_both_for_the_same() {
        let overlap = |one: &str, other: &str| {
            let parsed = |text: &str| RolePermission::parse(text).expect("valid");
            let (one, other) = (parsed(one), parsed(other));
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        for (one, other) in [
            ("billing:read", "billing:read"),
            ("billing:*", "billing:read:own"),
            ("billing:*:own", "billing:read:*"),
            ("billing:r*", "billing:read"),
            ("billing:r*", "billing:read:own"),
        ] {
            assert!(overlap(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("billing:read", "billing:write"),
            ("billing", "billing:read"),
            ("billing:*:own", "billing:read"),
            ("billing:*:own", "billing:read:all"),
            ("billing:*", "billings:read"),
        ] {
            assert!(!overlap(one, other), "{one} {other}");
        }
    }

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
