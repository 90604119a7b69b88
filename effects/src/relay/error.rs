//! Why the relay is stopped or retries.

use async_nats::jetstream;
use event_store::StoreError;
use schemas::bus;

/// Why events are currently not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RelayError {
    #[error("NATS cannot be reached: {0}")]
    Unreachable(String),
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] StoreError),
    #[error("JetStream refuses: {0}")]
    JetStream(String),
    #[error("nats-server {0} has no atomic batches: 2.12 or later is needed")]
    TooOld(String),
    #[error(
        "the stream {name} belongs to another journal. Use another NATS account, or run `watchword relay --rebuild`: it \
         is then filled from this journal",
        name = bus::STREAM
    )]
    Foreign,
    #[error(
        "message {position} of the stream {name} is {found}, but event {position} of the journal is {expected}. If the \
         journal was restored from a backup, run `watchword relay --rebuild`: the stream is then filled from this journal",
        name = bus::STREAM
    )]
    Diverged { position: u64, found: String, expected: String },
    #[error(
        "the stream {name} ends at {stream}, but the journal at {journal}: it has lost events. If it was restored from \
         a backup on purpose, run `watchword relay --rebuild`: the stream is then filled from this journal",
        name = bus::STREAM
    )]
    Ahead { stream: u64, journal: u64 },
    #[error(
        "message {position} of the stream {name}, which ends at {stream}, but the journal at {journal}, is {found}, which \
         this instance did not publish there: {why}. Find out who can write to the stream and stop them, then run \
         `watchword relay --rebuild`: it is then filled from the journal",
        name = bus::STREAM
    )]
    Forged { position: u64, stream: u64, journal: u64, found: String, why: &'static str },
    #[error(
        "event {position} makes a message of {size} bytes, but the server takes {limit}: raise max_payload there"
    )]
    Oversized { position: u64, size: usize, limit: usize },
    #[error(
        "the journal has event {found} where {expected} comes next: only a journal without gaps has a stream"
    )]
    Gap { expected: u64, found: u64 },
    #[error(
        "publishing the events after {after} panicked: the log of the process has the message. None of them is passed over"
    )]
    Panicked { after: u64 },
}

impl RelayError {
    /// Whether it needs an operator.
    pub(super) fn needs_somebody(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Journal(_) | Self::JetStream(_) => false,
            Self::TooOld(_)
            | Self::Foreign
            | Self::Diverged { .. }
            | Self::Ahead { .. }
            | Self::Forged { .. }
            | Self::Oversized { .. }
            | Self::Gap { .. }
            | Self::Panicked { .. } => true,
        }
    }
}

impl From<jetstream::context::RequestError> for RelayError {
    fn from(error: jetstream::context::RequestError) -> Self {
        Self::Unreachable(error.to_string())
    }
}
