//! Publishing events as one atomic batch.

use async_nats::Request;
use async_nats::connection::State as Connection;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use domain::LogOrigin;
use event_store::StoreError;
use schemas::RecordedEvent;
use uuid::Uuid;

use super::error::RelayError;
use super::message::{Message, batch_id};
use super::{PATIENCE, Publisher};

/// The maximum size of a batch in bytes, so that a server can hold the batches of several relays.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The outcome of a batch.
pub(super) enum Outcome {
    /// It was published, and the stream now ends here.
    Published(u64),
    /// It was refused, or the answer was unexpected: the stream must be checked.
    Refused(String),
}

impl Publisher {
    /// Publishes events as one atomic batch: all of them directly after `end`, or none.
    pub(super) async fn publish(
        &self,
        origin: &LogOrigin,
        end: u64,
        previous: Uuid,
        events: &[RecordedEvent],
    ) -> Result<Outcome, RelayError> {
        let messages = self.messages(origin, end, previous, events)?;
        // Without a connection, messages would be buffered and sent much later, which is harmless but useless.
        if self.nats.connection_state() != Connection::Connected {
            return Err(RelayError::Unreachable("the connection is lost".to_owned()));
        }
        let Some(last) = messages.len().checked_sub(1).map(|more| end + 1 + more as u64) else {
            return Err(StoreError::Damaged(format!("it says there is an event after {end}")).into());
        };
        let sent = tokio::time::timeout(PATIENCE, self.send(messages)).await;
        match sent.unwrap_or_else(|_| Err(RelayError::Unreachable("a batch took too long".to_owned())))? {
            Response::Ok(ack) if ack.sequence == last && !ack.duplicate => Ok(Outcome::Published(last)),
            Response::Ok(ack) => Ok(Outcome::Refused(format!(
                "message {last} came to {}, duplicate: {}",
                ack.sequence, ack.duplicate
            ))),
            Response::Err { error } => Ok(Outcome::Refused(error.to_string())),
        }
    }

    /// Sends a batch and waits for the answer to its last message; the others get none.
    async fn send(&self, mut messages: Vec<Message>) -> Result<Response<PublishAck>, RelayError> {
        let unreachable = |error: &dyn std::error::Error| RelayError::Unreachable(error.to_string());
        let last = messages.pop().expect("a batch has a message");
        fail::fail_point!("before-publish", |_| std::process::abort());
        for Message { subject, headers, body } in messages {
            let sent = self.nats.publish_with_headers(subject, headers, body.into()).await;
            sent.map_err(|error| unreachable(&error))?;
        }
        let request = Request::new().headers(last.headers).payload(last.body.into()).timeout(Some(PATIENCE));
        let answer = self.nats.send_request(last.subject, request).await;
        let answer = answer.map_err(|error| unreachable(&error))?;
        fail::fail_point!("after-publish", |_| std::process::abort());
        serde_json::from_slice(&answer.payload).map_err(|error| RelayError::JetStream(error.to_string()))
    }

    /// The messages of a batch: as many of the events as fit.
    fn messages(
        &self,
        origin: &LogOrigin,
        end: u64,
        mut previous: Uuid,
        events: &[RecordedEvent],
    ) -> Result<Vec<Message>, RelayError> {
        let limit = self.nats.max_payload();
        let mut messages: Vec<Message> = Vec::with_capacity(events.len());
        let (batch, mut bytes) = (batch_id(), 0);
        for (event, expected) in events.iter().zip(end + 1..) {
            if event.position != expected {
                return Err(RelayError::Gap { expected, found: event.position });
            }
            if fail::has_failpoints() {
                let point = format!("publish-{}", event.name);
                fail::fail_point!(&point, |_| panic!("a test made it fail"));
                // Without the feature, nothing uses it.
                let _ = point;
            }
            let message = Message::new(event, previous, origin, &self.key, &batch, messages.len() + 1);
            previous = event.id;
            let size = message.size();
            bytes += size;
            // Everything before it goes out first, so that the error names the event at fault.
            let last = size > limit || bytes > MAX_BATCH_BYTES;
            if last && !messages.is_empty() {
                break;
            }
            if size > limit {
                return Err(RelayError::Oversized { position: event.position, size, limit });
            }
            messages.push(message);
        }
        if let Some(first) = messages.first_mut() {
            first.headers.insert("Nats-Expected-Last-Sequence", end.to_string());
        }
        if let Some(last) = messages.last_mut() {
            last.headers.insert("Nats-Batch-Commit", "1");
        }
        Ok(messages)
    }
}
