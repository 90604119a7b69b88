//! The messages of a batch.

use async_nats::jetstream::message::StreamMessage;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use domain::LogOrigin;
use event_store::{Marked, MessageKey};
use schemas::{RecordedEvent, bus};
use serde_json::Value;
use uuid::Uuid;

/// Whether a message without a mark, from an earlier version, has the same content as the journal's event. Its bytes may
/// differ, because versions differ in the envelope.
pub(super) fn says_the_same(message: &StreamMessage, event: &RecordedEvent) -> bool {
    const MEMBERS: [&str; 10] = [
        "id",
        "type",
        "time",
        "subject",
        "position",
        "prevposition",
        "streamversion",
        "appid",
        "data",
        "personal",
    ];
    let Ok(found) = serde_json::from_slice::<Value>(&message.payload) else { return false };
    let expected = event.members();
    message.subject.as_str() == event.subject()
        && message.headers.get(bus::MESSAGE_ID).is_some_and(|id| id.as_str() == event.id.to_string())
        && MEMBERS.iter().all(|member| found.get(*member) == expected.get(*member))
}

/// A unique name for a batch, across all relays.
pub(super) fn batch_id() -> String {
    uuid::Builder::from_random_bytes(event_store::clock::random()).into_uuid().simple().to_string()
}

/// One message of a batch.
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Message {
    pub(super) fn new(
        event: &RecordedEvent,
        previous: Uuid,
        origin: &LogOrigin,
        key: &MessageKey,
        batch: &str,
        sequence: usize,
    ) -> Self {
        let (subject, body) = (event.subject(), event.to_canonical_json(origin));
        let mark = key.mark(&Marked {
            position: event.position,
            id: event.id,
            previous,
            subject: &subject,
            body: body.as_bytes(),
        });
        let mut headers = HeaderMap::new();
        headers.insert(bus::PREVIOUS_ID, previous.to_string());
        headers.insert(bus::MARK, mark);
        headers.insert(bus::MESSAGE_ID, event.id.to_string());
        headers.insert(bus::POSITION, event.position.to_string());
        headers.insert(bus::PREVIOUS_POSITION, event.position.saturating_sub(1).to_string());
        headers.insert(bus::CONTENT_TYPE, bus::CLOUD_EVENT_JSON);
        let traceparent = event.metadata.traceparent.as_ref().map(|value| value.parse::<HeaderValue>());
        if let Some(Ok(traceparent)) = traceparent {
            headers.insert(bus::TRACE_PARENT, traceparent);
        }
        headers.insert("Nats-Batch-Id", batch);
        headers.insert("Nats-Batch-Sequence", sequence.to_string());
        Self { subject, headers, body }
    }

    /// The size the server counts: headers as sent, including the two optional ones, and body.
    pub(super) fn size(&self) -> usize {
        const OTHERS: usize =
            "NATS/1.0\r\n\r\nNats-Expected-Last-Sequence: 18446744073709551615\r\nNats-Batch-Commit: 1\r\n"
                .len();
        let line = |(name, values): (&HeaderName, &Vec<HeaderValue>)| {
            let name: &str = name.as_ref();
            values.iter().map(|value| name.len() + value.as_str().len() + ": \r\n".len()).sum::<usize>()
        };
        self.headers.iter().map(line).sum::<usize>() + OTHERS + self.body.len()
    }
}
