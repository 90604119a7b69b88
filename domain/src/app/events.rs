//! What happens to an app.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app_id::AppId;
use crate::claims::{ClaimChange, Claimed, Claiming, Holding};
use crate::event::events;
use crate::ids::ApiKeyId;
use crate::permission::Permission;
use crate::settings::AppSettings;
use crate::signing_key::PublicJwk;

/// An app was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppCreated {
    /// Its id.
    pub app_id: AppId,
    /// What people call it.
    pub name: String,
    /// What it chose.
    pub settings: AppSettings,
    /// When.
    pub at: Timestamp,
}

/// An app's name or settings were changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppSettingsChanged {
    /// Its name from now on.
    pub name: String,
    /// Its settings from now on.
    pub settings: AppSettings,
    /// When.
    pub at: Timestamp,
}

/// An app was stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppDisabled {
    /// When.
    pub at: Timestamp,
}

/// An app was started again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppEnabled {
    /// When.
    pub at: Timestamp,
}

/// A signing key was made and published. Its private half is in the key store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SigningKeyCreated {
    /// The public half.
    pub public: PublicJwk,
}

/// A signing key signs from now on, and that before it no more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SigningKeyActivated {
    /// Which.
    pub kid: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A signing key verifies nothing any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SigningKeyRetired {
    /// Which.
    pub kid: String,
}

/// An API key was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKeyIssued {
    /// Its id.
    pub key_id: ApiKeyId,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub permissions: BTreeSet<Permission>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When.
    pub at: Timestamp,
}

/// An API key was ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKeyRevoked {
    /// Which.
    pub key_id: ApiKeyId,
    /// When.
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
    SigningKeyActivated: open,
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
