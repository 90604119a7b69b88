//! A webhook: an address of an app's own program that is sent the app's events.

mod events;
mod filter;
mod url;

use std::collections::BTreeSet;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::events::{
    WebhookChanged, WebhookCreated, WebhookDeleted, WebhookDisabled, WebhookEvent, WebhookReplayRequested,
};
pub use self::filter::{EventFilter, InvalidEventFilter};
pub use self::url::{InvalidWebhookUrl, WebhookUrl};
use crate::app_id::AppId;
use crate::claims::{Claimed, Holding};
use crate::event::{EventInfo as _, Stream, StreamId};
use crate::ids::id;

id!(
    /// A webhook. Its secret follows from the id, and is stored nowhere.
    WebhookId
);

/// The maximum number of filters of a webhook.
pub const MAX_FILTERS: usize = 100;

/// What an admin sets of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookSettings {
    /// Where events are sent.
    pub url: WebhookUrl,
    /// Which events are sent: those that one of these matches.
    pub events: BTreeSet<EventFilter>,
    /// Whether their personal data is sent too.
    pub include_personal: bool,
    /// What it is for, in the words of an admin.
    pub description: Option<String>,
    /// Whether anything is sent.
    pub enabled: bool,
}

impl WebhookSettings {
    /// Whether events of this aggregate and name are sent. What records deliveries to webhooks never is: each delivery
    /// would cause the next one.
    pub fn want(&self, aggregate: &str, name: &str) -> bool {
        let is_own = name == "WebhookDelivered" || name == "WebhookFailed";
        !is_own && self.events.iter().any(|filter| filter.matches(aggregate, name))
    }
}

/// The commands of a webhook.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum WebhookCommand {
    /// Create it.
    Create { webhook_id: WebhookId, app_id: AppId, settings: WebhookSettings, at: Timestamp },
    /// Replace its settings.
    Change { settings: WebhookSettings, at: Timestamp },
    /// Stop sending to it, as it has accepted nothing since `failing_since`.
    Disable { failing_since: Timestamp, at: Timestamp },
    /// Send all events from a position on, again or for the first time.
    Replay { from_position: u64, at: Timestamp },
    /// Delete it for good.
    Delete { at: Timestamp },
}

/// Why a webhook refused a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// There is no such webhook, or none any more.
    #[error("there is no such webhook")]
    Absent,
    /// The id is taken.
    #[error("there is a webhook of this id")]
    Exists,
    /// Nothing is sent to it.
    #[error("the webhook is disabled")]
    Disabled,
}

/// A webhook.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Webhook {
    /// Its id; absent before [`WebhookCreated`].
    pub id: Option<WebhookId>,
    /// Whose it is.
    pub app_id: Option<AppId>,
    /// What it is set to; absent once it is deleted.
    pub settings: Option<WebhookSettings>,
    /// Since when it had accepted nothing, if that is why it is disabled.
    pub failing_since: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Webhook {
    /// Its settings, if it exists and belongs to this app.
    pub fn of(&self, app_id: &AppId) -> Option<&WebhookSettings> {
        self.settings.as_ref().filter(|_| self.app_id.as_ref() == Some(app_id))
    }

    fn decide(&self, command: WebhookCommand) -> Result<Vec<WebhookEvent>, WebhookError> {
        if let WebhookCommand::Create { webhook_id, app_id, settings, at } = command {
            if self.id.is_some() {
                return Err(WebhookError::Exists);
            }
            let WebhookSettings { url, events, include_personal, description, enabled } = settings;
            return Ok(vec![WebhookEvent::WebhookCreated(WebhookCreated {
                webhook_id,
                app_id,
                url,
                events,
                include_personal,
                description,
                enabled,
                at,
            })]);
        }
        let (Some(webhook_id), Some(now)) = (self.id, &self.settings) else {
            return Err(WebhookError::Absent);
        };
        Ok(match command {
            WebhookCommand::Create { .. } => unreachable!("handled above"),
            WebhookCommand::Change { settings, .. } if settings == *now => vec![],
            WebhookCommand::Change { settings, at } => {
                let WebhookSettings { url, events, include_personal, description, enabled } = settings;
                vec![WebhookEvent::WebhookChanged(WebhookChanged {
                    webhook_id,
                    url,
                    events,
                    include_personal,
                    description,
                    enabled,
                    at,
                })]
            }
            WebhookCommand::Disable { .. } if !now.enabled => vec![],
            WebhookCommand::Disable { failing_since, at } => {
                vec![WebhookEvent::WebhookDisabled(WebhookDisabled { webhook_id, failing_since, at })]
            }
            WebhookCommand::Replay { .. } if !now.enabled => return Err(WebhookError::Disabled),
            WebhookCommand::Replay { from_position, at } => {
                let requested = WebhookReplayRequested { webhook_id, from_position, at };
                vec![WebhookEvent::WebhookReplayRequested(requested)]
            }
            WebhookCommand::Delete { at } => {
                vec![WebhookEvent::WebhookDeleted(WebhookDeleted { webhook_id, at })]
            }
        })
    }
}

impl StreamId {
    /// The stream of a webhook.
    pub fn webhook(id: WebhookId) -> Self {
        Self::new(WebhookEvent::AGGREGATE, id)
    }
}

impl Stream for Webhook {
    type Id = WebhookId;

    fn stream(id: &WebhookId) -> StreamId {
        StreamId::webhook(*id)
    }

    fn held(&self) -> Holding {
        let claimed = match (&self.app_id, self.id, &self.settings) {
            (Some(app_id), Some(webhook_id), Some(_)) => {
                Some(Claimed::Webhook { app_id: app_id.clone(), webhook_id })
            }
            _ => None,
        };
        claimed.into_iter().collect()
    }
}

impl Aggregate for Webhook {
    const TYPE: &'static str = "webhook";
    type Command = WebhookCommand;
    type Event = WebhookEvent;
    type Error = WebhookError;
    type Services = ();

    async fn handle(
        &mut self,
        command: WebhookCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), WebhookError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: WebhookEvent) {
        match event {
            WebhookEvent::WebhookCreated(event) => {
                let WebhookCreated {
                    webhook_id,
                    app_id,
                    url,
                    events,
                    include_personal,
                    description,
                    enabled,
                    at,
                } = event;
                self.id = Some(webhook_id);
                self.app_id = Some(app_id);
                self.settings = Some(WebhookSettings { url, events, include_personal, description, enabled });
                self.created_at = at;
                self.updated_at = at;
            }
            WebhookEvent::WebhookChanged(event) => {
                let WebhookChanged { url, events, include_personal, description, enabled, at, .. } = event;
                self.settings = Some(WebhookSettings { url, events, include_personal, description, enabled });
                self.failing_since = self.failing_since.filter(|_| !enabled);
                self.updated_at = at;
            }
            WebhookEvent::WebhookDisabled(WebhookDisabled { failing_since, at, .. }) => {
                if let Some(settings) = &mut self.settings {
                    settings.enabled = false;
                }
                self.failing_since = Some(failing_since);
                self.updated_at = at;
            }
            // It says where to go on, and changes nothing of the webhook.
            WebhookEvent::WebhookReplayRequested(_) => {}
            WebhookEvent::WebhookDeleted(WebhookDeleted { at, .. }) => {
                self.settings = None;
                self.updated_at = at;
            }
        }
    }
}

#[cfg(test)]
mod tests;
