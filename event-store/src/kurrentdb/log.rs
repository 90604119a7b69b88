//! The server's stream: appends at a revision and reads from one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eventstore::Endpoint;
use prost::Message;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::entry::Entry;
use super::link::{Answers, Link, Target, Trouble, code};
use super::protocol::{
    self, AppendOptions, AppendReq, AppendResp, ControlOption, Empty, Proposed, ReadOptions, ReadReq,
    ReadResp, StreamIdentifier, StreamOptions, UuidOption,
};
use crate::journal::StoreError;

/// A stream of a server.
pub(super) struct Log {
    target: Arc<Target>,
    stream: String,
    answer_timeout: Duration,
    /// `None` before the first use and after a failure.
    link: Option<Link>,
    /// The leader, if a node has named one.
    leader: Option<Endpoint>,
}

/// Where reading begins.
enum Place {
    Start,
    From(u64),
    End,
}

/// The outcome of an append that the server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is written.
    Written,
    /// The stream does not end at the expected revision. Nothing was written.
    Overtaken,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No server is listening. Nothing was sent.
    Away(String),
    /// Refused for a reason that retrying does not change. Nothing was done.
    Denied(String),
    /// It was not sent.
    NotSent(String),
    /// The server will never accept it.
    Refused(String),
    /// It was sent, and no answer came: an append may have been written, or may still be.
    Lost(String),
    /// The stream is not what it was.
    Damaged(String),
}

impl Failure {
    /// Whether a retry can help.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::Lost(_))
    }

    pub(super) fn text(&self) -> &str {
        let (Self::Away(text)
        | Self::Denied(text)
        | Self::NotSent(text)
        | Self::Refused(text)
        | Self::Lost(text)
        | Self::Damaged(text)) = self;
        text
    }
}

/// Of the replica.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(what) => Self::Damaged(what),
            other => Self::NotSent(other.to_string()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Damaged(what) => Self::Damaged(what),
            other => Self::Unavailable(other.text().into()),
        }
    }
}

impl Log {
    /// The same stream, by a connection of its own.
    pub(super) fn again(&self) -> Self {
        Self::new(&self.target, &self.stream, self.answer_timeout)
    }

    pub(super) fn new(target: &Arc<Target>, stream: &str, answer_timeout: Duration) -> Self {
        let (target, stream) = (Arc::clone(target), stream.to_owned());
        Self { target, stream, answer_timeout, link: None, leader: None }
    }

    /// The same stream, on a connection of its own.
    pub(super) fn beside(&self) -> Self {
        Self::new(&self.target, &self.stream, self.answer_timeout)
    }

    /// Writes all of these events after the first `length` of the stream, or none. Sending the same again is harmless.
    pub(super) async fn append(&mut self, length: u64, entries: &[Entry]) -> Result<Sent, Failure> {
        let revision = length.checked_sub(1);
        let no_stream = revision.is_none().then_some(Empty {});
        let options = AppendOptions { stream: Some(self.identifier()), revision, no_stream };
        let mut messages = vec![AppendReq { options: Some(options), proposed: None }];
        for entry in entries {
            let proposed = proposed(entry)
                .map_err(|error| Failure::Refused(format!("an event is not JSON: {error}")))?;
            messages.push(AppendReq { options: None, proposed: Some(proposed) });
        }
        let messages = messages.into_iter().map(|message| message.encode_to_vec());
        let begun = Instant::now();
        let mut link = self.link().await?;
        let asking = async {
            let mut answers = link.call(protocol::APPEND, messages).await?;
            let answer = answers.next().await?;
            while answers.next().await?.is_some() {}
            answer.ok_or_else(|| Trouble::Lost("the server's answer is empty".to_owned()))
        };
        let asked = timeout(self.answer_timeout.saturating_sub(begun.elapsed()), asking).await;
        let answer = match asked {
            Ok(Ok(answer)) => AppendResp::decode(answer),
            Ok(Err(trouble)) => {
                let failure = self.failure(trouble, "write to");
                if matches!(failure, Failure::Refused(_) | Failure::Denied(_)) {
                    self.link = Some(link);
                }
                return Err(failure);
            }
            Err(_) => return Err(Failure::Lost("the server does not answer".to_owned())),
        };
        let sent = match answer {
            Ok(AppendResp { success: Some(_), .. }) => Sent::Written,
            Ok(AppendResp { wrong_expected_version: Some(_), .. }) => Sent::Overtaken,
            _ => return Err(Failure::Lost("the server's answer makes no sense".to_owned())),
        };
        self.link = Some(link);
        Ok(sent)
    }

    /// The events of the stream from this revision to its current end.
    pub(super) async fn read(&mut self, revision: u64) -> Result<Reading<'_>, Failure> {
        self.begin(Place::From(revision), Some(u64::MAX)).await
    }

    /// The events of the stream after this revision, including future ones.
    pub(super) async fn follow(&mut self, after: Option<u64>) -> Result<Reading<'_>, Failure> {
        // A subscription begins after the revision that it names.
        self.begin(after.map_or(Place::Start, Place::From), None).await
    }

    /// The last event of the stream, with its revision; `None` if there is no stream.
    pub(super) async fn last(&mut self) -> Result<Option<(u64, Entry)>, Failure> {
        let mut reading = self.begin(Place::End, Some(1)).await?;
        let last = reading.next().await?;
        if last.is_some() {
            // Only one event was requested, so this reaches the end.
            reading.next().await?;
        }
        Ok(last)
    }

    /// Reads `count` events, or subscribes. From the end it reads backwards.
    async fn begin(&mut self, place: Place, count: Option<u64>) -> Result<Reading<'_>, Failure> {
        let stream = Some(self.identifier());
        let (mut revision, mut start, mut end) = (None, None, None);
        match place {
            Place::Start => start = Some(Empty {}),
            Place::From(number) => revision = Some(number),
            Place::End => end = Some(Empty {}),
        }
        let options = ReadOptions {
            stream: Some(StreamOptions { stream, revision, start, end }),
            direction: i32::from(end.is_some()),
            resolve_links: false,
            count,
            subscription: count.is_none().then_some(Empty {}),
            no_filter: Some(Empty {}),
            uuids: Some(UuidOption { as_text: Some(Empty {}) }),
            control: Some(ControlOption { compatibility: 1 }),
        };
        let message = ReadReq { options: Some(options) }.encode_to_vec();
        let begun = Instant::now();
        let mut link = self.link().await?;
        let asking = link.call(protocol::READ, [message].into_iter());
        let answers = match timeout(self.answer_timeout.saturating_sub(begun.elapsed()), asking).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(trouble)) => return Err(self.failure(trouble, "read")),
            Err(_) => return Err(Failure::NotSent("the server does not answer".to_owned())),
        };
        Ok(Reading { log: self, link: Some(link), answers })
    }

    fn identifier(&self) -> StreamIdentifier {
        StreamIdentifier { name: self.stream.clone().into_bytes() }
    }

    /// Takes the link, which is put back when the call has succeeded.
    async fn link(&mut self) -> Result<Link, Failure> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        // The node named as leader may be gone or no longer lead.
        let leader = self.leader.take();
        let connected = timeout(self.answer_timeout, Link::connect(&self.target, leader.as_ref())).await;
        connected.unwrap_or_else(|_| Err(Trouble::NotSent("the server does not answer".to_owned()))).map_err(
            |trouble| match trouble {
                Trouble::Away(text) => Failure::Away(text),
                Trouble::Denied(text) => Failure::Denied(text),
                Trouble::NotSent(text) | Trouble::Lost(text) => Failure::NotSent(text),
                Trouble::Status(status) => Failure::NotSent(status.text),
            },
        )
    }

    fn failure(&mut self, trouble: Trouble, what: &str) -> Failure {
        let status = match trouble {
            Trouble::Away(text) => return Failure::Away(text),
            Trouble::Denied(text) => return Failure::Denied(text),
            Trouble::NotSent(text) => return Failure::NotSent(text),
            Trouble::Lost(text) => return Failure::Lost(text),
            Trouble::Status(status) => status,
        };
        match (status.exception.as_deref(), status.code) {
            (Some("not-leader"), _) => {
                self.leader = status.leader;
                Failure::NotSent("it no longer leads the cluster".to_owned())
            }
            (Some("stream-deleted"), _) => Failure::Damaged("the stream was deleted".to_owned()),
            (_, code::PERMISSION_DENIED) => Failure::Denied(format!(
                "{} may not {what} the stream {}: have an administrator of the server allow it in the stream's $acl, or log \
                 in as the user that made it",
                self.target.user(),
                self.stream
            )),
            (_, code::INVALID_ARGUMENT | code::FAILED_PRECONDITION | code::UNIMPLEMENTED) => {
                Failure::Refused(status.text)
            }
            _ => Failure::Lost(status.text),
        }
    }
}

/// A read in progress.
pub(super) struct Reading<'a> {
    log: &'a mut Log,
    link: Option<Link>,
    answers: Answers,
}

impl Reading<'_> {
    /// The next event, with its revision; `None` at the end of the stream, or if there is no stream.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Entry)>, Failure> {
        let answer_timeout = self.log.answer_timeout;
        let next = timeout(answer_timeout, self.next_whenever()).await;
        next.unwrap_or_else(|_| Err(Failure::Lost("the server does not answer".to_owned())))
    }

    /// The same without a time limit.
    pub(super) async fn next_whenever(&mut self) -> Result<Option<(u64, Entry)>, Failure> {
        loop {
            let message = match self.answers.next().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(self.end()),
                Err(Trouble::Status(status))
                    if status.code == code::NOT_FOUND && status.exception.is_none() =>
                {
                    return Ok(self.end());
                }
                Err(trouble) => return Err(self.log.failure(trouble, "read")),
            };
            let nonsense = || Failure::Lost("the server's answer makes no sense".to_owned());
            let answer = ReadResp::decode(message).map_err(|_| nonsense())?;
            // Any other message is about the stream as a whole, and not needed.
            let Some(event) = answer.event else { continue };
            let event =
                event.event.ok_or_else(|| Failure::Damaged("the stream holds a dead link".to_owned()))?;
            let id = event.id.and_then(|id| id.read()).ok_or_else(nonsense)?;
            let name = event.metadata.get("type").cloned().unwrap_or_default();
            // What is not text is not an event of a journal; then its MAC does not match.
            let data = String::from_utf8_lossy(&event.data).into_owned();
            return Ok(Some((event.revision, Entry { id, name, data, metadata: event.custom_metadata })));
        }
    }

    /// The read succeeded: the connection is reused.
    fn end(&mut self) -> Option<(u64, Entry)> {
        self.log.link = self.link.take();
        None
    }
}

/// The data is sent unchanged, byte for byte, and declared as JSON.
fn proposed(entry: &Entry) -> Result<Proposed, serde_json::Error> {
    let _: &RawValue = serde_json::from_str(&entry.data)?;
    let metadata = [("type", entry.name.as_str()), ("content-type", "application/json")];
    Ok(Proposed {
        id: Some(protocol::Uuid::new(entry.id)),
        metadata: metadata
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<HashMap<_, _>>(),
        custom_metadata: entry.metadata.clone(),
        data: entry.data.clone().into_bytes(),
    })
}
