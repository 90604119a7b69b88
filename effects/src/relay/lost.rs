//! What the stream has and the journal has lost.
//!
//! After the journal went back, the stream continues a history that no longer exists. When a node has recorded that in the
//! journal ([`event_store::epoch`]), the relay copies what was lost into another stream, as it may be the only copy, and
//! fills the stream anew. Without a record it stops: the journal may be the wrong one.

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, Info, RawMessageErrorKind};
use event_store::epoch;
use schemas::bus;

use super::Publisher;
use super::error::RelayError;

/// The stream that keeps lost events for the operator.
const LOST: &str = "WATCHWORD-LOST";
/// Before the subject that a lost event had.
const PREFIX: &str = "lost.";
/// How many events the stream may be ahead. Beyond that somebody has to look.
const MOST: usize = 100_000;
/// How many events of the journal are compared at a time.
const PAGE: u64 = 100;

impl Publisher {
    /// Whether a node has recorded in the journal that what the stream has was lost.
    pub(super) async fn is_recorded_loss(&self, error: &RelayError, info: &Info) -> Result<bool, RelayError> {
        if !matches!(error, RelayError::Diverged { .. } | RelayError::Ahead { .. }) {
            return Ok(false);
        }
        // More than any node has seen of it is another instance's with the same keys, such as a copy of this one.
        let losses = epoch::losses(&*self.journal).await?;
        Ok(losses.iter().any(|loss| info.state.last_sequence <= loss.lost))
    }

    /// Copies what the journal has lost. The stream may then be deleted.
    pub(super) async fn keep_lost(&self, info: &Info) -> Result<(), RelayError> {
        let failed = |error: &dyn std::error::Error| RelayError::JetStream(error.to_string());
        let mut lost = self.lost(info).await?;
        tracing::error!(
            events = lost.len(),
            to = LOST,
            "the journal has lost events that the stream has: they are copied, and the stream is filled anew from the \
             journal; consumers must be recreated"
        );
        let config = Config {
            name: LOST.to_owned(),
            description: Some("Events that the journal of Watchword has lost".to_owned()),
            subjects: vec![format!("{PREFIX}{}", bus::SUBJECTS)],
            num_replicas: self.settings.replicas,
            ..Config::default()
        };
        self.jetstream.get_or_create_stream(config).await.map_err(|error| failed(&error))?;
        while let Some(message) = lost.pop() {
            let subject = format!("{PREFIX}{}", message.subject);
            let mut headers = async_nats::HeaderMap::new();
            for (name, values) in message.headers.iter() {
                let name: &str = name.as_ref();
                // What told the stream where the message belongs.
                let is_order = name.starts_with("Nats-") && name != bus::MESSAGE_ID;
                for value in values.iter().filter(|_| !is_order) {
                    headers.append(name, value.clone());
                }
            }
            let sent = self.jetstream.publish_with_headers(subject, headers, message.payload).await;
            sent.map_err(|error| failed(&error))?.await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// The messages whose events the journal does not have, the newest first.
    async fn lost(&self, info: &Info) -> Result<Vec<StreamMessage>, RelayError> {
        let stream = self.jetstream.get_stream_no_info(bus::STREAM).await;
        let stream = stream.map_err(|error| RelayError::JetStream(error.to_string()))?;
        let mut lost = Vec::new();
        let mut end = info.state.last_sequence;
        while end > 0 && end >= info.state.first_sequence {
            let positions: Vec<u64> = (end.saturating_sub(PAGE) + 1..=end).collect();
            let events = self.journal.read_positions(&positions).await?;
            for position in positions.into_iter().rev() {
                let message = match stream.get_raw_message(position).await {
                    Ok(message) => message,
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(lost),
                    Err(error) => return Err(RelayError::JetStream(error.to_string())),
                };
                let id = message.headers.get(bus::MESSAGE_ID).map(|id| id.as_str().to_owned());
                let event = events.iter().find(|event| event.position == position);
                if event.is_some_and(|event| id.as_deref() == Some(&*event.id.to_string())) {
                    return Ok(lost);
                }
                lost.push(message);
                if lost.len() > MOST {
                    return Err(RelayError::JetStream(format!(
                        "the journal has lost more than {MOST} events of the stream: copy what you need of it, then run \
                         `watchword relay --rebuild`"
                    )));
                }
            }
            end = end.saturating_sub(PAGE);
        }
        Ok(lost)
    }
}
