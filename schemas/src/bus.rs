//! How events travel on NATS JetStream: the name of the stream, the subject and the headers of a message. Its body is
//! the envelope as canonical JSON.

use crate::envelope::RecordedEvent;

/// The JetStream stream with every event; the sequence of a message in it is the event's position.
pub const STREAM: &str = "WATCHWORD";
/// The subjects that the stream captures.
pub const SUBJECTS: &str = "auth.v1.>";
/// The header with the event's id: JetStream drops a message whose id it has seen within its deduplication window.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The header with the event's position.
pub const POSITION: &str = "ce-position";
/// The header with the position of the event before it.
pub const PREVIOUS_POSITION: &str = "ce-prevposition";
/// The header with the id of the event before it; nil before the first.
pub const PREVIOUS_ID: &str = "ww-previd";
/// The header that proves to the nodes of an instance that one of them published the message at this position: an HMAC
/// over position, both ids, subject and body.
pub const MARK: &str = "ww-mac";
/// The header with the W3C trace context of the request that caused the event, if any.
pub const TRACE_PARENT: &str = "traceparent";
/// The header with the media type of the body.
pub const CONTENT_TYPE: &str = "Content-Type";
/// The media type of the body (`CloudEvents` 1.0, JSON format).
pub const CLOUD_EVENT_JSON: &str = "application/cloudevents+json";

impl RecordedEvent {
    /// The subject it is published to: `auth.v1.<app_id>.<aggregate>.<EventName>`. The app id is the only token chosen
    /// by a caller, and its type excludes dots, spaces and wildcards.
    pub fn subject(&self) -> String {
        format!("auth.v1.{}.{}.{}", self.metadata.app_id, self.stream.aggregate(), self.name)
    }
}
