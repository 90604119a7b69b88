//! The journal's own events: what holds for every event in it, whatever the configuration says later.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::claims::{ClaimChange, Claimed, Claiming, Holding};
use crate::event::{EventInfo as _, StreamId, events};
use crate::ids::{EventId, id};

id!(
    /// A journal: the log of one instance.
    JournalId
);
id!(
    /// A key that signs checkpoints of the journal.
    CheckpointKeyId
);

/// The longest text of an origin: every event carries it.
const MAX_LENGTH: usize = 255;

/// Where the events of a journal come from: an absolute URL without a slash at its end, such as
/// `https://login.example.com`. Below it are the schemas that events name, so it is part of the bytes of every event and
/// never changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct LogOrigin(String);

/// A text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give https:// or http://, a host and nothing else but a path, such as https://login.example.com")]
pub struct InvalidOrigin;

impl LogOrigin {
    /// Reads an `http` or `https` URL with a host, and with neither user, query nor fragment. A host alone is taken for
    /// `https://<host>`.
    pub fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        // URL parsers are lenient about slashes.
        if text.starts_with('/') {
            return Err(InvalidOrigin);
        }
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&with_scheme).map_err(|_| InvalidOrigin)?;
        let plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let is_web = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
        let text = url.as_str().trim_end_matches('/');
        if is_web && plain && text.len() <= MAX_LENGTH {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidOrigin)
        }
    }

    /// The name of the log of a journal with this origin, as checkpoints and keys carry it: the URL without its scheme, such
    /// as `login.example.com`. A name has no plus sign.
    pub fn log_name(&self) -> String {
        let (_, name) = self.0.split_once("://").unwrap_or_default();
        name.replace('+', "%2B")
    }

    /// The URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogOrigin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        Self::parse(text)
    }
}

impl TryFrom<String> for LogOrigin {
    type Error = InvalidOrigin;

    fn try_from(text: String) -> Result<Self, InvalidOrigin> {
        Self::parse(&text)
    }
}

impl From<LogOrigin> for String {
    fn from(origin: LogOrigin) -> Self {
        origin.0
    }
}

/// The journal was created. This is its first event; a journal from before this event existed gets it at its next
/// start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JournalCreated {
    /// Its id.
    pub journal_id: JournalId,
    /// The origin of its events. A later change of the configuration does not affect it.
    pub origin: LogOrigin,
    /// When it happened.
    pub at: Timestamp,
}

/// The journal went back: it lost events that had been given out, as after the promotion of a replica that lacked them, or
/// the restore of a backup. What was acknowledged in them is lost, and their positions belong to other events. Whoever keeps
/// what they read compares it with the journal, from `lost` backwards, until both have the same event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JournalWentBack {
    /// The journal's id.
    pub journal_id: JournalId,
    /// The position of the newest lost event that was seen.
    pub lost: u64,
    /// That event's id.
    pub lost_event: EventId,
    /// Where the journal ended when that was noticed.
    pub head: u64,
    /// When it was noticed.
    pub at: Timestamp,
}

/// A key signs checkpoints of the journal from now on. Its private half follows from the instance key and its id, and is
/// stored nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointKeyAdded {
    /// The journal's id.
    pub journal_id: JournalId,
    /// The key's id.
    pub key_id: CheckpointKeyId,
    /// Its public half, as auditors know it: a vkey of a signed note (C2SP).
    pub key: String,
    /// A signed note by the key before it, with the text `watchword checkpoint key` and this key, each in a line: whoever
    /// trusts that one can trust this one. The first key has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsement: Option<String>,
    /// When it happened.
    pub at: Timestamp,
}

/// A key no longer signs checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointKeyRetired {
    /// The journal's id.
    pub journal_id: JournalId,
    /// The key's id.
    pub key_id: CheckpointKeyId,
    /// Its public half.
    pub key: String,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of the journal itself.
    pub enum JournalEvent of "journal", whose |_| None;
    JournalCreated: open,
    JournalWentBack: open,
    CheckpointKeyAdded: open,
    CheckpointKeyRetired: open,
}

impl Claiming for JournalEvent {
    fn claims(&self, _: &Holding) -> Vec<ClaimChange> {
        match self {
            // Only one stream can have it, so the event exists once.
            Self::JournalCreated(_) => vec![ClaimChange::Take(Claimed::Origin)],
            Self::JournalWentBack(_) | Self::CheckpointKeyAdded(_) | Self::CheckpointKeyRetired(_) => vec![],
        }
    }
}

impl StreamId {
    /// The stream of the journal's own events.
    pub fn journal(id: JournalId) -> Self {
        Self::new(JournalEvent::AGGREGATE, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_an_absolute_url_without_anything_else() {
        for (text, origin) in [
            ("https://login.example.com", "https://login.example.com"),
            ("https://login.example.com/", "https://login.example.com"),
            ("https://Login.Example.com:443/auth/", "https://login.example.com/auth"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("login.example.com", "https://login.example.com"),
        ] {
            assert_eq!(LogOrigin::parse(text).map(String::from), Ok(origin.to_owned()), "{text}");
        }
        let long = format!("https://{}.example", "a.".repeat(130));
        for text in [
            "",
            "/schemas",
            "ftp://login.example.com",
            "https://",
            "https://user@login.example.com",
            "https://login.example.com?x",
            "https://login.example.com#x",
            "two words",
            &long,
        ] {
            assert_eq!(LogOrigin::parse(text), Err(InvalidOrigin), "{text}");
        }
    }
}
