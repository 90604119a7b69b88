//! The stream itself: whether its end matches the journal, and how it is created, configured and rebuilt.

use async_nats::HeaderValue;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, Info, LastRawMessageErrorKind, State as StreamState, StorageType,
};
use event_store::{Mark, StoreError};
use schemas::{RecordedEvent, bus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::RelayError;
use super::message::says_the_same;
use super::{OLDEST_SERVER, Publisher, RelaySettings};

/// In the stream's metadata: the id of the journal's first event, which distinguishes journals.
pub(super) const FIRST_EVENT: &str = "watchword_first_event";

impl Publisher {
    /// Checks the stream again, which was last seen to end at `end`.
    pub(super) async fn look_behind(&self, end: u64) -> Result<u64, RelayError> {
        let seen = self.look().await?;
        if seen < end {
            tracing::warn!(seen, end, "the stream has lost its tail: publishing it again");
            metrics::counter!("watchword_relay_repairs_total").increment(1);
        }
        Ok(seen)
    }

    /// The end of the stream, after making sure that it exists, is configured correctly, and ends with the journal's
    /// event at that position.
    pub(super) async fn look(&self) -> Result<u64, RelayError> {
        let Some(server) = self.nats.try_server_info() else {
            return Err(RelayError::Unreachable("it has not answered yet".to_owned()));
        };
        let (major, minor, patch) = OLDEST_SERVER;
        if !self.nats.is_server_compatible(major, minor, patch) {
            return Err(RelayError::TooOld(server.version));
        }
        let first = self.journal.read_all(0, 1).await?;
        let first = first.first().ok_or_else(|| StoreError::Damaged("it has no event 1".to_owned()))?;
        let info: Option<Info> = self.ask("STREAM.INFO", &json!({})).await?;
        let Some(info) = info else { return self.create(first).await };
        let first_id = first.id.to_string();
        if info.config.metadata.get(FIRST_EVENT).is_some_and(|found| *found != first_id) {
            return Err(RelayError::Foreign);
        }
        if let Err(error) = self.compare(&info).await {
            if self.is_recorded_loss(&error, &info).await? {
                self.keep_lost(&info).await?;
            } else if self.may_rebuild(&error) {
                tracing::error!(%error, "rebuilding the stream, as nats.rebuild_interval allows; consumers must be recreated");
            } else {
                return Err(error);
            }
            metrics::counter!("watchword_relay_rebuilds_total").increment(1);
            self.ask::<Value>("STREAM.DELETE", &json!({})).await?;
            return self.create(first).await;
        }
        if self.has_lost(&info.state, first.position) {
            tracing::warn!(
                messages = info.state.messages,
                end = info.state.last_sequence,
                "the stream has lost messages that cannot be put back: filling a new one; consumers must be recreated"
            );
            metrics::counter!("watchword_relay_repairs_total").increment(1);
            self.ask::<Value>("STREAM.DELETE", &json!({})).await?;
            return self.create(first).await;
        }
        self.configure(info.config, first_id).await?;
        Ok(info.state.last_sequence)
    }

    /// Whether the operator lets the relay rebuild the stream. Only a stream that cannot be this instance's is discarded
    /// like this: if it has more than its own journal, the rest may still be wanted. And not repeatedly: anybody who can
    /// write to the stream could keep the relay refilling it.
    fn may_rebuild(&self, error: &RelayError) -> bool {
        let (RelayError::Forged { .. }, Some(interval)) = (error, self.settings.rebuild_interval) else {
            return false;
        };
        let mut rebuilt = self.rebuilt.lock().expect("no holder panics");
        let may = rebuilt.is_none_or(|last| last.elapsed() >= interval);
        if may {
            *rebuilt = Some(Instant::now());
        }
        may
    }

    /// Checks that the stream's last message is the journal's event, and that the journal is as long.
    pub(super) async fn compare(&self, info: &Info) -> Result<(), RelayError> {
        let stream = self.jetstream.get_stream_no_info(bus::STREAM).await;
        let stream = stream.map_err(|error| RelayError::JetStream(error.to_string()))?;
        let last = match stream.get_last_raw_message_by_subject(bus::SUBJECTS).await {
            Ok(message) => Some(message),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
            Err(error) => return Err(RelayError::JetStream(error.to_string())),
        };
        let end =
            last.as_ref().map_or(info.state.last_sequence, |it| it.sequence.max(info.state.last_sequence));
        let journal = self.journal.head().await?;
        let Some(message) = last else {
            return if end > journal { Err(RelayError::Ahead { stream: end, journal }) } else { Ok(()) };
        };
        let recorded = self.journal.read_positions(&[message.sequence]).await?;
        self.judge(&message, end, journal, recorded.first())?;
        if end > journal { Err(RelayError::Ahead { stream: end, journal }) } else { Ok(()) }
    }

    /// Compares the stream's last message with the journal's event at that position.
    fn judge(
        &self,
        message: &StreamMessage,
        stream: u64,
        journal: u64,
        event: Option<&RecordedEvent>,
    ) -> Result<(), RelayError> {
        let position = message.sequence;
        let header = |name: &str| message.headers.get(name).map(HeaderValue::as_str);
        let found = header(bus::MESSAGE_ID).unwrap_or("a message without id").to_owned();
        let forged = |why| Err(RelayError::Forged { position, stream, journal, found: found.clone(), why });
        match (self.key.read(position, &message.subject, header, &message.payload), event) {
            (Mark::Genuine { id, .. }, Some(event)) if id == event.id => Ok(()),
            // It was published from this instance's journal, which must have been different then.
            (Mark::Genuine { .. }, Some(event)) => {
                Err(RelayError::Diverged { position, found, expected: event.id.to_string() })
            }
            (Mark::Genuine { .. }, None) => Err(RelayError::Ahead { stream, journal }),
            (Mark::Absent, Some(event)) if says_the_same(message, event) => Ok(()),
            (Mark::Absent, _) => forged("it has no mark (ww-mac), and is not the journal's event"),
            (Mark::Wrong, _) => forged("its mark (ww-mac) is wrong"),
        }
    }

    /// Whether messages are missing that no limit removed: limits only remove at the front. It happens if a file is
    /// damaged, but not the one that records the stream's end, from which the server continues.
    pub(super) fn has_lost(&self, state: &StreamState, first: u64) -> bool {
        let limited = self.settings.max_age.is_some() || self.settings.max_bytes.is_some();
        match state.messages {
            0 => state.last_sequence >= first && !limited,
            messages => messages <= state.last_sequence.saturating_sub(state.first_sequence),
        }
    }

    async fn create(&self, first: &RecordedEvent) -> Result<u64, RelayError> {
        let mut config = Config {
            name: bus::STREAM.to_owned(),
            description: Some("Every event of Watchword; the sequence is the position".to_owned()),
            storage: if self.settings.in_memory { StorageType::Memory } else { StorageType::File },
            first_sequence: Some(first.position),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            ..Config::default()
        };
        self.apply_settings(&mut config, first.id.to_string());
        match self.ask::<Info>("STREAM.CREATE", &config).await {
            Ok(_) => tracing::info!(stream = bus::STREAM, first = first.position, "created the stream"),
            // Another relay was faster.
            Err(RelayError::JetStream(reason)) => {
                let made: Option<Info> = self.ask("STREAM.INFO", &json!({})).await?;
                made.ok_or(RelayError::JetStream(reason))?;
            }
            Err(error) => return Err(error),
        }
        Ok(first.position.saturating_sub(1))
    }

    /// Updates the stream's configuration where it differs from the settings.
    async fn configure(&self, found: Config, first_id: String) -> Result<(), RelayError> {
        let mut wanted = found.clone();
        self.apply_settings(&mut wanted, first_id);
        if wanted != found {
            tracing::info!(stream = bus::STREAM, "changing the stream's configuration to the settings");
            self.ask::<Info>("STREAM.UPDATE", &wanted).await?;
        }
        Ok(())
    }

    fn apply_settings(&self, config: &mut Config, first_id: String) {
        let RelaySettings { replicas, max_age, max_bytes, duplicate_window, .. } = &self.settings;
        config.subjects = vec![bus::SUBJECTS.to_owned()];
        config.num_replicas = *replicas;
        config.max_age = max_age.unwrap_or_default();
        config.max_bytes = max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        // JetStream refuses to remember ids for longer than messages.
        config.duplicate_window = max_age.map_or(*duplicate_window, |age| age.min(*duplicate_window));
        config.allow_atomic_publish = true;
        // So a missing message was always lost, never deleted; deleting the whole stream stays possible.
        config.deny_delete = true;
        config.deny_purge = true;
        config.metadata.insert(FIRST_EVENT.to_owned(), first_id);
    }

    /// A request to the JetStream API. None: the stream does not exist.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        what: &str,
        payload: &impl Serialize,
    ) -> Result<Option<T>, RelayError> {
        let answer = self.jetstream.request(format!("{what}.{}", bus::STREAM), payload).await?;
        match answer {
            Response::Ok(answer) => Ok(Some(answer)),
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            Response::Err { error } => Err(RelayError::JetStream(error.to_string())),
        }
    }
}
