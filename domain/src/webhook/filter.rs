//! Which events a webhook is sent.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Event;

/// Some of an app's events: `*` for all, `user.*` for those of an aggregate, or the name of one, such as `UserRegistered`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct EventFilter(String);

/// The text is not a filter of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`*`, an aggregate with `.*` such as `user.*`, or the name of an event such as `UserRegistered`")]
pub struct InvalidEventFilter;

impl EventFilter {
    /// Parses a filter. Whether there are such events is [`EventFilter::is_known`]: what was stored is not refused because
    /// another version knows other events.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidEventFilter> {
        let text = text.into();
        let is_name = |text: &str| {
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let valid = text == "*" || is_name(text.strip_suffix(".*").unwrap_or(&text));
        if valid { Ok(Self(text)) } else { Err(InvalidEventFilter) }
    }

    /// Whether there are events that it matches.
    pub fn is_known(&self) -> bool {
        Event::KINDS
            .iter()
            .any(|(aggregate, kinds)| kinds.iter().any(|kind| self.matches(aggregate, kind.name)))
    }

    /// Whether it matches the events of this aggregate and name.
    pub fn matches(&self, aggregate: &str, name: &str) -> bool {
        match self.0.strip_suffix(".*") {
            Some(of) => of == aggregate,
            None => self.0 == "*" || self.0 == name,
        }
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EventFilter {
    type Error = InvalidEventFilter;
    fn try_from(text: String) -> Result<Self, InvalidEventFilter> {
        Self::parse(text)
    }
}

impl From<EventFilter> for String {
    fn from(filter: EventFilter) -> Self {
        filter.0
    }
}

impl fmt::Display for EventFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
