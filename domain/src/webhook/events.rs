//! The events of a webhook.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EventFilter, WebhookId, WebhookUrl};
use crate::app_id::AppId;
use crate::claims::{ClaimChange, ClaimKind, Claimed, Claiming, Holding};
use crate::event::events;

/// A webhook was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookCreated {
    /// Its id.
    pub webhook_id: WebhookId,
    /// The app whose events it is sent.
    pub app_id: AppId,
    /// Where they are sent.
    pub url: WebhookUrl,
    /// Which events are sent.
    pub events: BTreeSet<EventFilter>,
    /// Whether their personal data is sent too.
    pub include_personal: bool,
    /// What it is for, in the words of an admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether anything is sent.
    pub enabled: bool,
    /// When it happened.
    pub at: Timestamp,
}

/// A webhook was changed. If it is enabled by this, it is sent the events from here on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookChanged {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// Where events are sent now.
    pub url: WebhookUrl,
    /// Which events are sent now.
    pub events: BTreeSet<EventFilter>,
    /// Whether their personal data is sent too.
    pub include_personal: bool,
    /// What it is for, in the words of an admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether anything is sent.
    pub enabled: bool,
    /// When it happened.
    pub at: Timestamp,
}

/// A webhook was disabled, as it had accepted nothing for days.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookDisabled {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// Since when it had accepted nothing.
    pub failing_since: Timestamp,
    /// When it happened.
    pub at: Timestamp,
}

/// Somebody asked to send a webhook the events from a position on, again or for the first time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookReplayRequested {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// The position of the first event.
    pub from_position: u64,
    /// When it happened.
    pub at: Timestamp,
}

/// A webhook was deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookDeleted {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of a webhook.
    pub enum WebhookEvent of "webhook", whose |_| None;
    WebhookCreated: open,
    WebhookChanged: open,
    WebhookDisabled: open,
    WebhookReplayRequested: open,
    WebhookDeleted: open,
}

impl Claiming for WebhookEvent {
    /// An app's webhooks are listed until they are deleted.
    fn claims(&self, held: &Holding) -> Vec<ClaimChange> {
        match self {
            Self::WebhookCreated(event) => {
                let (app_id, webhook_id) = (event.app_id.clone(), event.webhook_id);
                vec![ClaimChange::Take(Claimed::Webhook { app_id, webhook_id })]
            }
            Self::WebhookDeleted(_) => {
                held.of(ClaimKind::Webhook).cloned().map(ClaimChange::Release).collect()
            }
            Self::WebhookChanged(_) | Self::WebhookDisabled(_) | Self::WebhookReplayRequested(_) => vec![],
        }
    }
}
