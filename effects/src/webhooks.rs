//! Webhooks: sends each event of an app to those of its webhooks that want it, signed (Standard Webhooks), in order within a
//! stream, at least once.
//!
//! It is an effect, not a projection. Its cursor is held by one node at a time, and each webhook has a
//! cursor of its own, which starts at the event that created or enabled it. So neither a replay nor a rebuild sends anything
//! again, and a webhook that falls behind reads on from the journal, not from a queue in memory.
//!
//! Each webhook is served by a task of its own, with few requests at a time, so that one that hangs delays nobody else's. An
//! event that is not accepted is recorded (`WebhookFailed`), waits for its retry with the later events of its stream, and
//! others go on. A webhook that accepts nothing at all is asked with growing pauses, one request at a time, and nothing more
//! is recorded of it. What was accepted is recorded too, many messages at a time (`WebhookDelivered`): between two such
//! records, a crash repeats the messages since the cursor was last stored.

mod admins;
mod endpoint;
mod feed;
mod health;
mod message;
mod parked;
mod recording;
mod runner;
mod sending;
mod window;

use std::sync::Arc;
use std::time::Duration;

use dispatcher::Dispatcher;
pub use domain::delivery::WebhookPolicy;
use domain::{LogOrigin, WebhookId};
use event_store::{Clock, Journal, Repository, StoreError};

pub use self::admins::{ADMINS_TOLD, FindByRole};
pub use self::message::{Messages, NotAccepted};
use self::runner::Runner;
use crate::handle::{self, Effect};

/// The name of its cursor. It never changes.
const EFFECT: &str = "webhooks";
/// How long the last messages may take at shutdown.
const LAST_MESSAGES: Duration = Duration::from_secs(3);

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct WebhookSenderSettings {
    /// The unique name of this node.
    pub node: String,
    /// After how long another node takes over from a silent one.
    pub lease: Duration,
    /// How long events are sent again, and the pauses in between.
    pub policy: WebhookPolicy,
}

/// What the sender needs.
pub struct WebhookSenderParts {
    /// Aggregates and events.
    pub repository: Arc<Repository>,
    /// Records the outcome.
    pub dispatcher: Dispatcher,
    /// The current time.
    pub clock: Arc<dyn Clock>,
    /// The origin of events: a part of their bytes.
    pub origin: LogOrigin,
    /// Sends the messages.
    pub messages: Arc<Messages>,
    /// Finds the admins of an app.
    pub admins: Arc<dyn FindByRole>,
    pub settings: WebhookSenderSettings,
}

/// Starts sending.
pub fn start(parts: WebhookSenderParts) -> Effect {
    Effect::start(|status, ending| Runner::new(parts, status, ending))
}

/// Makes sure that webhooks created from now on are served.
pub async fn begin(journal: &dyn Journal) -> Result<(), StoreError> {
    handle::begin(journal, EFFECT).await
}

/// The name of a webhook's cursor.
fn cursor_of(webhook_id: WebhookId) -> String {
    format!("webhook-{webhook_id}")
}
