//! The personal part of an event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::email::Email;
use crate::password::PasswordHash;
use crate::user::Client;

/// What identifies a person, kept apart from the rest of an event so that it can be sealed with that person's key.
/// Once the key is erased every member reads as absent, and all that is left of the event still makes sense.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Personal {
    /// The address in normal form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// The address before it was changed, or while a change is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_email: Option<Email>,
    /// The name the person goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A telephone number, as the person wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Where the person's picture is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// The address a request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The browser or program a request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Where a request came from that another user of the app made about this person, sealed once more with that user's own
    /// key: both of them can be forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acting: Option<String>,
    /// Why somebody did it, in their own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What an app wants to hear again when a login that it began comes back to it: its own text, which may say anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The argon2id hash. It is no personal data, but it must not lie open on a bus either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<PasswordHash>,
}

impl Personal {
    /// Where a request came from, and nothing else.
    pub fn of(client: Client) -> Self {
        let Client { ip, user_agent } = client;
        Self { ip, user_agent, ..Self::default() }
    }

    /// Whether there is nothing to seal.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
