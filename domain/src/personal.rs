//! The personal part of an event.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::email::Email;
use crate::password::PasswordHash;
use crate::user::Client;

/// Data that identifies a person, kept apart from the rest of an event so that it can be sealed with that person's key.
/// Once the key is destroyed, every member reads as absent, and the rest of the event still makes sense.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Personal {
    /// The normalized address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// The previous address, or the current one during a pending change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_email: Option<Email>,
    /// The name shown to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A telephone number, as the person wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The URL of the profile picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// What the system that the account was imported from calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// When the account was created in that system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<Timestamp>,
    /// The IP address of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The user agent of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The origin of a request that another user of the app made about this person, sealed once more with that user's own
    /// key, so that either of them can be erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acting: Option<String>,
    /// A free-text reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// An app's `state`, returned to it when the login it started comes back: free text that may contain anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The argon2id hash. Not personal data, but it must not be public on a bus either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<PasswordHash>,
}

impl Personal {
    /// The origin of a request, and nothing else.
    pub fn of(client: Client) -> Self {
        let Client { ip, user_agent } = client;
        Self { ip, user_agent, ..Self::default() }
    }

    /// Whether there is nothing to seal.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
