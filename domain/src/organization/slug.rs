//! The name of an organization in URLs.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use crate::app_id::is_segment;

/// `[a-z0-9](-?[a-z0-9])*`, 1 to 40 characters: a path segment. Within an app, it belongs to one organization.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(#[schemars(regex(pattern = r"^[a-z0-9](-?[a-z0-9])*$"), length(min = 1, max = 40))] String);

/// The text is not a slug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a slug is 1 to 40 lower-case letters and digits, with single hyphens between them")]
pub struct InvalidSlug;

/// How many characters of a derived slug are kept when it gets an ending.
const BEFORE_ENDING: usize = 27;

impl Slug {
    /// Parses a slug.
    ///
    /// # Errors
    /// [`InvalidSlug`].
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidSlug> {
        let text = text.into();
        if is_segment(&text) { Ok(Self(text)) } else { Err(InvalidSlug) }
    }

    /// A slug made of a name: its letters and digits without marks, as far as they are ASCII. A name without any is
    /// `org`.
    pub fn of_name(name: &str) -> Self {
        let mut text = String::new();
        let mut is_apart = false;
        for c in name.nfkd().flat_map(char::to_lowercase) {
            if c.is_ascii_alphanumeric() {
                if is_apart && !text.is_empty() {
                    text.push('-');
                }
                is_apart = false;
                text.push(c);
            } else if c.is_whitespace() || c.is_ascii_punctuation() {
                is_apart = true;
            }
        }
        text.truncate(40);
        Self::parse(text.trim_end_matches('-')).unwrap_or_else(|_| Self("org".to_owned()))
    }

    /// The same with an ending made of an id, for a name that others have too.
    #[must_use]
    pub fn with_ending(&self, id: Uuid) -> Self {
        let mut text = self.0.clone();
        text.truncate(BEFORE_ENDING);
        // The last characters of a UUID of version 7 are random.
        let id = id.simple().to_string();
        Self(format!("{}-{}", text.trim_end_matches('-'), &id[id.len() - 12..]))
    }

    /// The slug as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Slug {
    type Error = InvalidSlug;
    fn try_from(text: String) -> Result<Self, InvalidSlug> {
        Self::parse(text)
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Slug;

    #[test]
    fn is_made_of_a_name() {
        for (name, slug) in [
            ("Analytical Engines", "analytical-engines"),
            ("  Zoë & Söhne, Ltd. ", "zoe-sohne-ltd"),
            ("R2--D2", "r2-d2"),
            ("李小龍", "org"),
            ("-", "org"),
            (&"x".repeat(60), &"x".repeat(40)),
        ] {
            assert_eq!(Slug::of_name(name).as_str(), slug, "{name}");
        }
        let long = Slug::of_name(&format!("{} {}", "x".repeat(26), "y".repeat(20)));
        let ending = long.with_ending(uuid::Uuid::from_u128(0xabc));
        assert_eq!(ending.as_str(), format!("{}-000000000abc", "x".repeat(26)));
    }

    proptest! {
        #[test]
        fn whatever_the_name_is_it_is_valid(name in any::<String>(), id in any::<u128>()) {
            let slug = Slug::of_name(&name);
            prop_assert_eq!(Slug::parse(slug.as_str()), Ok(slug.clone()));
            let ending = slug.with_ending(uuid::Uuid::from_u128(id));
            prop_assert_eq!(Slug::parse(ending.as_str()), Ok(ending));
        }
    }
}
