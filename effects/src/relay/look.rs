//! Compares the stream with the journal without changing either.

use std::sync::Arc;

use async_nats::Client;
use async_nats::jetstream::stream::Info;
use event_store::{Journal, MessageKey, StoreError};
use serde_json::json;
use tokio::sync::watch;

use super::error::RelayError;
use super::stream::FIRST_EVENT;
use super::{OLDEST_SERVER, PATIENCE, Publisher, RelaySettings, Standing, State};

/// The stream as a relay starting now would find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStanding {
    /// The version of nats-server.
    pub server: String,
    /// The position of its last event; none if there is no stream.
    pub end: Option<u64>,
    /// The position of the journal's last event.
    pub journal: u64,
    /// The number of its replicas.
    pub replicas: usize,
    /// The number of its consumers.
    pub consumers: usize,
    /// Whether it lacks events that no limit removed: the relay rebuilds it, and its consumers must be recreated.
    pub has_holes: bool,
    /// A fault that no relay can repair.
    pub fault: Option<String>,
}

/// Compares them. The client need not be connected yet. An error says why the state is unknown.
pub async fn look(
    nats: Client,
    journal: Arc<dyn Journal>,
    key: MessageKey,
    settings: RelaySettings,
) -> Result<StreamStanding, String> {
    let connected = tokio::time::timeout(PATIENCE, nats.flush()).await;
    if !matches!(connected, Ok(Ok(()))) {
        return Err("NATS does not answer".to_owned());
    }
    let (standing, _) = watch::channel(Standing { position: 0, state: State::Starting });
    let publisher = Publisher::new(nats, journal, key, settings, standing);
    publisher.standing().await.map_err(|error| error.to_string())
}

impl Publisher {
    async fn standing(&self) -> Result<StreamStanding, RelayError> {
        let server = self.nats.server_info().version;
        let journal = self.journal.head().await?;
        let nothing = StreamStanding {
            server: server.clone(),
            end: None,
            journal,
            replicas: 0,
            consumers: 0,
            has_holes: false,
            fault: None,
        };
        let (major, minor, patch) = OLDEST_SERVER;
        if !self.nats.is_server_compatible(major, minor, patch) {
            return Ok(StreamStanding { fault: Some(RelayError::TooOld(server).to_string()), ..nothing });
        }
        let info: Option<Info> = self.ask("STREAM.INFO", &json!({})).await?;
        let Some(info) = info else { return Ok(nothing) };
        let first = self.journal.read_all(0, 1).await?;
        let first = first.first().ok_or_else(|| StoreError::Damaged("it has no event 1".to_owned()))?;
        let first_id = first.id.to_string();
        let compared = if info.config.metadata.get(FIRST_EVENT).is_some_and(|found| *found != first_id) {
            Err(RelayError::Foreign)
        } else {
            self.compare(&info).await
        };
        let fault = match compared {
            Ok(()) => None,
            Err(error) if error.needs_somebody() => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        Ok(StreamStanding {
            end: Some(info.state.last_sequence),
            replicas: info.config.num_replicas,
            consumers: info.state.consumer_count,
            has_holes: self.has_lost(&info.state, first.position),
            fault,
            ..nothing
        })
    }
}
