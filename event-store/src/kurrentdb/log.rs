//! The server's stream: appending at a revision, and reading from one.

use std::time::Duration;

use eventstore::{
    AppendToStreamOptions, Client, ClientSettings, Error, EventData, ReadStream, ReadStreamOptions,
    StreamPosition, StreamState,
};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::KurrentSettings;
use super::entry::Entry;
use crate::journal::StoreError;

/// A stream of a server.
pub(super) struct Log {
    settings: ClientSettings,
    stream: String,
    answer_timeout: Duration,
    /// None before the first use, and after a failure: the client keeps to a node that is gone, and does not come back
    /// from a connection that could not be made.
    client: Option<Client>,
}

/// What became of an append that the server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is written.
    Written,
    /// The stream does not end where it was to be written. Nothing is.
    Overtaken,
}

/// Why an append has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent.
    NotSent(String),
    /// The server wants none of it, and never will.
    Refused(String),
    /// It was sent, and no answer came: it may be written, now or later.
    Lost(String),
}

impl Log {
    pub(super) fn new(settings: ClientSettings, journal: &KurrentSettings) -> Self {
        let KurrentSettings { stream, answer_timeout, .. } = journal;
        Self { settings, stream: stream.clone(), answer_timeout: *answer_timeout, client: None }
    }

    /// Writes these events behind the first `length` of the stream, or nothing. To send the same again does no harm.
    pub(super) async fn append(&mut self, length: u64, entries: &[Entry]) -> Result<Sent, Failure> {
        let events: Vec<EventData> = entries
            .iter()
            .map(event_data)
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::Refused(format!("an event is no JSON: {error}")))?;
        let state = length.checked_sub(1).map_or(StreamState::NoStream, StreamState::StreamRevision);
        let options = AppendToStreamOptions::default()
            .stream_state(state)
            .requires_leader(true)
            .deadline(self.answer_timeout);
        let client = self.client().map_err(Failure::NotSent)?;
        let sent =
            timeout(self.answer_timeout, client.append_to_stream(self.stream.as_str(), &options, events));
        let answer = match sent.await {
            Ok(Ok(_)) => Ok(Sent::Written),
            Ok(Err(Error::WrongExpectedVersion { .. })) => Ok(Sent::Overtaken),
            Ok(Err(error)) => {
                // The client has heard who leads now.
                if matches!(error, Error::NotLeaderException(_)) {
                    self.client = Some(client.clone());
                }
                Err(failure(&error))
            }
            Err(_) => Err(Failure::Lost("the server does not answer".to_owned())),
        };
        if matches!(answer, Ok(_) | Err(Failure::Refused(_))) {
            self.client = Some(client);
        }
        answer
    }

    /// The events of the stream from this revision on, to its present end.
    pub(super) async fn read(&mut self, revision: u64) -> Result<Reading<'_>, StoreError> {
        self.begin(ReadStreamOptions::default().position(StreamPosition::Position(revision))).await
    }

    /// The last event of the stream, with its revision; nothing where there is no stream.
    pub(super) async fn last(&mut self) -> Result<Option<(u64, Entry)>, StoreError> {
        let mut reading = self
            .begin(ReadStreamOptions::default().backwards().position(StreamPosition::End).max_count(1))
            .await?;
        let last = reading.next().await?;
        if last.is_some() {
            // Nothing comes before it, as no more was asked for.
            reading.next().await?;
        }
        Ok(last)
    }

    async fn begin(&mut self, options: ReadStreamOptions) -> Result<Reading<'_>, StoreError> {
        let options = options.requires_leader(true);
        let client = self.client().map_err(StoreError::Unavailable)?;
        let begun = timeout(self.answer_timeout, client.read_stream(self.stream.as_str(), &options));
        let events = match begun.await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => {
                // The client has heard who leads now.
                if matches!(error, Error::NotLeaderException(_)) {
                    self.client = Some(client);
                }
                return Err(unreadable(&error));
            }
            Err(_) => return Err(StoreError::Unavailable("the server does not answer".to_owned())),
        };
        Ok(Reading { log: self, client: Some(client), events })
    }

    /// Taken away until it is known to have worked.
    fn client(&mut self) -> Result<Client, String> {
        match self.client.take() {
            Some(client) => Ok(client),
            None => Client::new(self.settings.clone()).map_err(|error| error.to_string()),
        }
    }
}

/// Events that are being read.
pub(super) struct Reading<'a> {
    log: &'a mut Log,
    client: Option<Client>,
    events: ReadStream,
}

impl Reading<'_> {
    /// The next one, with its revision; nothing at the end of the stream, or where there is no stream.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Entry)>, StoreError> {
        let next = timeout(self.log.answer_timeout, self.events.next()).await;
        let event = match next {
            Ok(Ok(Some(event))) => event,
            Ok(Ok(None) | Err(Error::ResourceNotFound)) => {
                // All went well: the connection is used again.
                self.log.client = self.client.take();
                return Ok(None);
            }
            Ok(Err(error)) => return Err(unreadable(&error)),
            Err(_) => return Err(StoreError::Unavailable("the server does not answer".to_owned())),
        };
        let event =
            event.event.ok_or_else(|| StoreError::Damaged("the stream holds a dead link".to_owned()))?;
        let revision = event.revision;
        let data = String::from_utf8(event.data.into())
            .map_err(|_| StoreError::Damaged(format!("the event at revision {revision} is no text")))?;
        let entry =
            Entry { id: event.id, name: event.event_type, data, metadata: event.custom_metadata.into() };
        Ok(Some((revision, entry)))
    }
}

/// The data goes as it is, byte for byte, and the server knows it as JSON.
fn event_data(entry: &Entry) -> Result<EventData, serde_json::Error> {
    let data: &RawValue = serde_json::from_str(&entry.data)?;
    Ok(EventData::json(&entry.name, &data)?.id(entry.id).metadata(entry.metadata.clone().into()))
}

fn failure(error: &Error) -> Failure {
    let text = error.to_string();
    match error {
        Error::ConnectionClosed
        | Error::GrpcConnectionError(_)
        | Error::InitializationError(_)
        | Error::NotLeaderException(_) => Failure::NotSent(text),
        Error::AccessDenied | Error::ResourceDeleted | Error::UnsupportedFeature => Failure::Refused(text),
        // Among them: the append is too great. 3 and 9 are the numbers of these codes in gRPC.
        Error::Grpc { code, .. } if matches!(i32::from(*code), 3 | 9) => Failure::Refused(text),
        _ => Failure::Lost(text),
    }
}

fn unreadable(error: &Error) -> StoreError {
    match error {
        Error::ResourceDeleted => StoreError::Damaged("the stream was deleted".to_owned()),
        other => StoreError::Unavailable(other.to_string()),
    }
}
