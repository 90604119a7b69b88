//! Rebuilding the stream on request: it is deleted with all its content and refilled from the journal.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, ErrorCode};
use domain::LogOrigin;
use event_store::{Journal, MessageKey, StoreError};
use schemas::bus;

use super::{PATIENCE, QUESTION, Relay, RelaySettings};

/// The pause between two checks of the progress.
const LOOK: Duration = Duration::from_millis(50);

/// Why the rebuild failed.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// There is no connection.
    #[error("NATS does not answer. Check nats_url, and that the server runs")]
    Away,
    /// The server refuses.
    #[error("NATS refuses to delete the stream")]
    Refused(#[source] async_nats::Error),
    /// The relay cannot fill it.
    #[error("the stream was deleted, but is not filled: {0}")]
    Stopped(String),
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[from] StoreError),
}

/// Deletes the stream with its consumers. False if there was none.
pub async fn delete_stream(nats: &Client) -> Result<bool, RebuildError> {
    if !matches!(tokio::time::timeout(PATIENCE, nats.flush()).await, Ok(Ok(()))) {
        return Err(RebuildError::Away);
    }
    let mut jetstream = jetstream::new(nats.clone());
    jetstream.set_timeout(QUESTION);
    match jetstream.delete_stream(bus::STREAM).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            jetstream::context::DeleteStreamErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(false)
            }
            _ => Err(RebuildError::Refused(error.into())),
        },
    }
}

/// Fills the stream up to the journal's current end, and returns that position. Relays of other nodes help.
pub async fn fill(
    nats: Client,
    journal: Arc<dyn Journal>,
    origin: LogOrigin,
    key: MessageKey,
    settings: RelaySettings,
    at: impl Fn(u64, u64),
) -> Result<u64, RebuildError> {
    let head = journal.head().await?;
    if head == 0 {
        return Ok(0);
    }
    let relay = Relay::start(nats, journal, origin, key, settings);
    let filled = loop {
        let status = relay.status();
        at(status.position.min(head), head);
        match (status.state, status.error) {
            ("running", _) if status.position >= head => break Ok(head),
            ("stopped", Some(error)) => break Err(RebuildError::Stopped(error)),
            _ => tokio::time::sleep(LOOK).await,
        }
    };
    relay.shutdown().await;
    filled
}
