//! The events of an app.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ApiKeyId;
use crate::app_id::AppId;
use crate::claims::{ClaimChange, Claimed, Claiming, Holding};
use crate::event::events;
use crate::permission::Permission;
use crate::settings::AppSettings;
use crate::signing_key::PublicJwk;

/// An app was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppCreated {
    /// Its id.
    pub app_id: AppId,
    /// The name shown to people.
    pub name: String,
    /// Its settings.
    pub settings: AppSettings,
    /// When it happened.
    pub at: Timestamp,
}

/// An app's name or settings were changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppSettingsChanged {
    /// Its new name.
    pub name: String,
    /// Its new settings.
    pub settings: AppSettings,
    /// When it happened.
    pub at: Timestamp,
}

/// An app was disabled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppDisabled {
    /// When it happened.
    pub at: Timestamp,
}

/// An app was enabled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppEnabled {
    /// When it happened.
    pub at: Timestamp,
}

/// A signing key was generated and published. Its private half is in the key store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SigningKeyCreated {
    /// The public half.
    pub public: PublicJwk,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A signing key is to be the current one from a given moment, when the former one stops signing. No further event follows
/// at that moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SigningKeyActivated {
    /// The id of the key.
    pub kid: String,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// From when on the key signs: later than the event where verifiers must get to know the key first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs_from: Option<Timestamp>,
}

/// A signing key was retired: it no longer verifies tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SigningKeyRetired {
    /// The id of the key.
    pub kid: String,
}

/// An API key was issued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKeyIssued {
    /// Its id.
    pub key_id: ApiKeyId,
    /// The name of the key.
    pub name: String,
    /// Its permissions.
    pub permissions: BTreeSet<Permission>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it happened.
    pub at: Timestamp,
}

/// An API key was revoked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKeyRevoked {
    /// The id of the key.
    pub key_id: ApiKeyId,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of an app.
    pub enum AppEvent of "app", whose |_| None;
    AppCreated: open,
    AppSettingsChanged: open,
    AppDisabled: open,
    AppEnabled: open,
    SigningKeyCreated: open,
    SigningKeyActivated: open 2,
    SigningKeyRetired: open,
    ApiKeyIssued: open,
    ApiKeyRevoked: open,
}

impl Claiming for AppEvent {
    fn claims(&self, _: &Holding) -> Vec<ClaimChange> {
        match self {
            Self::AppCreated(event) => vec![ClaimChange::Take(Claimed::App(event.app_id.clone()))],
            Self::AppSettingsChanged(_)
            | Self::AppDisabled(_)
            | Self::AppEnabled(_)
            | Self::SigningKeyCreated(_)
            | Self::SigningKeyActivated(_)
            | Self::SigningKeyRetired(_)
            | Self::ApiKeyIssued(_)
            | Self::ApiKeyRevoked(_) => vec![],
        }
    }
}
