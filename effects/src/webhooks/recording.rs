//! What is recorded of the messages to a webhook.

use std::time::Duration;

use dispatcher::{Context, DispatchError, Reads, Work};
use domain::delivery::{Attempted, Delivery, DeliveryCommand, DeliveryError};
use domain::user::Client;
use domain::{EventId, Timestamp, WebhookId};
use event_store::StoreError;
use schemas::RecordedEvent;
use schemas::envelope::Metadata;

use super::runner::Shared;
use crate::cursor::{Stop, because_of};

/// The first and the longest pause before a record is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const TRIES: u32 = 6;

impl Shared {
    /// Records the outcome of a message, and returns what is recorded of it by now.
    pub(super) async fn record(
        &self,
        because: &RecordedEvent,
        event_id: EventId,
        webhook_id: WebhookId,
        command: DeliveryCommand,
        at: Timestamp,
    ) -> Result<Option<Attempted>, Stop> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..TRIES {
            let (reads, delivery) = Reads::one::<Delivery>(&event_id);
            let command = command.clone();
            let decide = move |work: &mut Work| {
                work.execute(delivery, command.clone())?;
                Ok::<_, DeliveryError>(work.get(delivery).webhooks.get(&webhook_id).copied())
            };
            match self.dispatcher.run(context(because_of(because), at), reads, decide).await {
                Ok(committed) => return Ok(committed.value.flatten()),
                Err(DispatchError::Refused(error)) => {
                    tracing::warn!(webhook = %webhook_id, %error, "the outcome of a message was not recorded");
                    return Ok(None);
                }
                Err(DispatchError::Contended) => {}
                Err(error) => {
                    tracing::warn!(webhook = %webhook_id, %error, "the outcome of a message is not recorded yet");
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(Stop::Store(StoreError::Unavailable("the outcome of a message cannot be recorded".into())))
    }
}

pub(super) fn context(metadata: Metadata, at: Timestamp) -> Context {
    Context { metadata, client: Client::default(), at, idempotency: None, is_first: false }
}
