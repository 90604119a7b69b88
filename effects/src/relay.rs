//! The relay: publishes every event of the journal, in order, to the JetStream stream [`bus::STREAM`].
//!
//! The journal is the truth and the stream is derived from it, so the relay keeps no state of its own: where it has
//! to go on is where the stream ends. The sequence of a message is the position of its event, which JetStream itself
//! enforces, because the first message of each batch names the sequence that must come before it. So any number of
//! relays can run: one of them wins each batch, and the others look where the stream ends by then.
//!
//! Nothing that JetStream says is taken for "that is fine": an error, a duplicate, a sequence that is not the
//! expected one, a new connection, and the timer all lead to the same look at the stream's last message, which must
//! be the journal's event of that position, with the mark of this instance ([`MessageKey`]). A stream that is shorter
//! than the journal (it lost its tail with a power loss, or is gone) is filled again. One that has other events, or more
//! than the journal, is left alone, and the relay stands still and says so: somebody has to decide which of the two is
//! right. Only where the message cannot be this instance's may the operator leave that to the relay.
//! Longer than most, as the publisher is one loop, whose steps all judge the same stand of stream and journal.

mod error;
mod look;
mod message;
mod rebuild;

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::connection::State as Connection;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, Info, LastRawMessageErrorKind, State as StreamState, StorageType,
};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, HeaderValue, Request};
use domain::LogOrigin;
use event_store::{Journal, Mark, MessageKey, StoreError};
use http_kit::trace::{self, Step};
pub use look::{StreamStanding, look};
pub use rebuild::{RebuildError, delete_stream, fill};
use schemas::{RecordedEvent, bus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use self::error::RelayError;
use self::message::{Message, batch_id, says_the_same};

/// The most messages that JetStream takes in one atomic batch.
pub const MAX_BATCH: usize = 1000;
/// The most bytes that are put into one batch, so that a server can hold the batches of several relays.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The oldest version with atomic batches.
const OLDEST_SERVER: (i64, i64, i64) = (2, 12, 0);
/// In the stream's metadata: the id of the journal's first event, which tells two journals apart.
const FIRST_EVENT: &str = "watchword_first_event";
/// How long a batch may take, and how long a question: what is asked of a cluster that elects a leader is lost.
const PATIENCE: Duration = Duration::from_secs(5);
const QUESTION: Duration = Duration::from_secs(2);
/// How often an idle relay asks itself whether the connection is a new one.
const TICK: Duration = Duration::from_millis(250);
/// How long a relay that lost a race lets the winner go first.
const STAND_BACK: Duration = Duration::from_millis(250);
/// A batch this small is followed by a short rest: under load the next is larger then, and each costs two round trips and
/// the server a sync of its files.
const SMALL_BATCH: u64 = 64;
const REST: Duration = Duration::from_millis(5);
/// How long a connection may take at first before anybody is told that there is none.
const TIME_TO_CONNECT: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// What the operator chose for the stream and the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// How many servers of a cluster keep the stream: 1, 3 or 5.
    pub replicas: usize,
    /// Whether the stream is kept in memory: a server that restarts has none of it, and it is filled again.
    pub in_memory: bool,
    /// How long messages are kept. None: for ever.
    pub max_age: Option<Duration>,
    /// How many bytes of messages are kept. None: all.
    pub max_bytes: Option<u64>,
    /// How long JetStream remembers message ids.
    pub duplicate_window: Duration,
    /// The most events that are published together, up to [`MAX_BATCH`].
    pub batch: usize,
    /// How often an idle relay compares the stream's end with the journal.
    pub check_interval: Duration,
    /// How much time must lie between two times that the relay makes anew, by itself, a stream whose end is not of this
    /// instance. None: never, somebody has to.
    pub rebuild_interval: Option<Duration>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            replicas: 1,
            in_memory: false,
            max_age: None,
            max_bytes: None,
            duplicate_window: Duration::from_mins(2),
            batch: 500,
            check_interval: Duration::from_secs(30),
            rebuild_interval: None,
        }
    }
}

/// Where the relay stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayStatus {
    /// `starting`, `running`, `interrupted` (it tries again by itself) or `stopped` (somebody has to do something).
    pub state: &'static str,
    /// The position of the last event that is known to be in the stream.
    pub position: u64,
    /// How many events are not in the stream yet.
    pub lag: u64,
    /// What is wrong.
    pub error: Option<String>,
}

/// Publishes until it is shut down.
pub struct Relay {
    standing: watch::Receiver<Standing>,
    head: watch::Receiver<u64>,
    ending: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    /// The stream's end as it was last seen.
    position: u64,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Running,
    Failed(RelayError),
}

impl Relay {
    /// Starts publishing, as soon as NATS can be reached. The client should reconnect by itself, for ever.
    pub fn start(
        nats: Client,
        journal: Arc<dyn Journal>,
        origin: LogOrigin,
        key: MessageKey,
        settings: RelaySettings,
    ) -> Self {
        let (standing, seen) = watch::channel(Standing { position: 0, state: State::Starting });
        let ending = watch::Sender::new(false);
        let head = journal.watch_head();
        let publisher = Publisher::new(nats, journal, key, settings, standing);
        let task = tokio::spawn(publisher.run(origin, ending.subscribe()));
        Self { standing: seen, head, ending, task: Mutex::new(Some(task)) }
    }

    /// Where it stands.
    pub fn status(&self) -> RelayStatus {
        let Standing { position, state } = self.standing.borrow().clone();
        let lag = self.head.borrow().saturating_sub(position);
        let (state, error) = match state {
            State::Starting => ("starting", None),
            State::Running => ("running", None),
            State::Failed(error) => {
                let state = if error.needs_somebody() { "stopped" } else { "interrupted" };
                (state, Some(error.to_string()))
            }
        };
        RelayStatus { state, position, lag, error }
    }

    /// Stops it. What is not published yet is published by another relay, or after the next start.
    pub async fn shutdown(&self) {
        self.ending.send_replace(true);
        let task = self.task.lock().expect("no holder panics").take();
        if let Some(task) = task {
            // A relay that panicked has nothing left to finish.
            let _ = task.await;
        }
    }
}

struct Publisher {
    nats: Client,
    jetstream: jetstream::Context,
    journal: Arc<dyn Journal>,
    key: MessageKey,
    settings: RelaySettings,
    standing: watch::Sender<Standing>,
    /// When this relay last made the stream anew by itself.
    rebuilt: Mutex<Option<Instant>>,
}

/// How a batch went.
enum Outcome {
    /// It is in the stream, which now ends here.
    Published(u64),
    /// It is not, or not as expected: the stream must be looked at.
    Refused(String),
}

impl Publisher {
    fn new(
        nats: Client,
        journal: Arc<dyn Journal>,
        key: MessageKey,
        settings: RelaySettings,
        standing: watch::Sender<Standing>,
    ) -> Self {
        let mut jetstream = jetstream::new(nats.clone());
        jetstream.set_timeout(QUESTION);
        Self { nats, jetstream, journal, key, settings, standing, rebuilt: Mutex::default() }
    }

    async fn run(self, origin: LogOrigin, mut ending: watch::Receiver<bool>) {
        let mut retry = FIRST_RETRY;
        loop {
            // Whatever is cut off here is a batch without its last message, of which JetStream keeps nothing.
            let error = tokio::select! {
                Err(error) = self.follow(&origin, &mut retry) => error,
                _ = ending.wait_for(|ending| *ending) => return,
            };
            let wait = if error.needs_somebody() { self.settings.check_interval } else { retry };
            retry = (retry * 2).min(LONGEST_RETRY);
            self.fail(error);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = ending.wait_for(|ending| *ending) => return,
            }
        }
    }

    /// Publishes what the stream does not have, until something is not as it should be.
    async fn follow(&self, origin: &LogOrigin, retry: &mut Duration) -> Result<Infallible, RelayError> {
        let mut head = self.journal.watch_head();
        let stopped = || StoreError::Unavailable("the journal was closed".to_owned());
        head.wait_for(|head| *head > 0).await.map_err(|_| stopped())?;
        self.give_time_to_connect().await;
        let mut end = self.look().await?;
        let (mut connection, mut looked) = (self.connection(), Instant::now());
        // Whether another relay publishes. Then this one lets it go first, so that the two do not send everything twice.
        let mut rival = false;
        // The id of the last event in the stream, if this relay has just published it.
        let mut behind = None;
        loop {
            let newest = *head.borrow_and_update();
            self.stand_at(end, newest);
            if newest <= end {
                *retry = FIRST_RETRY;
                tokio::select! {
                    changed = head.changed() => changed.map_err(|_| stopped())?,
                    () = tokio::time::sleep(TICK) => {}
                }
                if connection != self.connection() || looked.elapsed() >= self.settings.check_interval {
                    (connection, looked) = (self.connection(), Instant::now());
                    end = self.look_behind(end).await?;
                }
                continue;
            }
            if rival {
                tokio::time::sleep(STAND_BACK).await;
                let seen = self.look_behind(end).await?;
                rival = seen > end;
                end = seen;
                continue;
            }
            let events = self.journal.read_all(end, self.settings.batch).await?;
            let previous = match behind.take() {
                Some((position, id)) if position == end => id,
                _ => self.id_at(end).await?,
            };
            let (begun, started) = (trace::begin(), Instant::now());
            match self.publish(origin, end, previous, &events).await? {
                Outcome::Published(last) => {
                    let published = events.partition_point(|event| event.position <= last);
                    behind = events[..published].last().map(|event| (event.position, event.id));
                    begun.end(Step::Publish, events[..published].iter());
                    metrics::histogram!("watchword_relay_publish_seconds").record(started.elapsed());
                    metrics::counter!("watchword_relay_published_total").increment(last - end);
                    *retry = FIRST_RETRY;
                    let is_small = last - end < SMALL_BATCH;
                    end = last;
                    if is_small {
                        tokio::time::sleep(REST).await;
                    }
                }
                Outcome::Refused(reason) => {
                    metrics::counter!("watchword_relay_conflicts_total").increment(1);
                    let seen = self.look_behind(end).await?;
                    if seen == end {
                        return Err(RelayError::JetStream(reason));
                    }
                    rival = seen > end;
                    end = seen;
                }
            }
        }
    }

    /// A connection that was just begun is there in a moment: nobody need be told that it is not yet.
    async fn give_time_to_connect(&self) {
        let begun = Instant::now();
        while self.connection() == 0 && begun.elapsed() < TIME_TO_CONNECT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Looks at the stream again, when it was last seen to end at `end`.
    async fn look_behind(&self, end: u64) -> Result<u64, RelayError> {
        let seen = self.look().await?;
        if seen < end {
            tracing::warn!(seen, end, "the stream has lost its tail: publishing it again");
            metrics::counter!("watchword_relay_repairs_total").increment(1);
        }
        Ok(seen)
    }

    /// Where the stream ends, after making sure that it is there, set up as it should be, and ends with the journal's
    /// event of that position.
    async fn look(&self) -> Result<u64, RelayError> {
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
            if !self.may_rebuild(&error) {
                return Err(error);
            }
            tracing::error!(%error, "making the stream anew, as nats.rebuild_interval says; consumers must be made again");
            metrics::counter!("watchword_relay_rebuilds_total").increment(1);
            self.ask::<Value>("STREAM.DELETE", &json!({})).await?;
            return self.create(first).await;
        }
        if self.has_lost(&info.state, first.position) {
            tracing::warn!(
                messages = info.state.messages,
                end = info.state.last_sequence,
                "the stream has lost messages that cannot be put back: filling another one; consumers must be made again"
            );
            metrics::counter!("watchword_relay_repairs_total").increment(1);
            self.ask::<Value>("STREAM.DELETE", &json!({})).await?;
            return self.create(first).await;
        }
        self.configure(info.config, first_id).await?;
        Ok(info.state.last_sequence)
    }

    /// Whether the operator leaves it to the relay to make the stream anew. Only what cannot be of this instance is thrown
    /// away like this: of a stream that has more than its own journal, somebody may still want the rest. And not again
    /// and again: whoever can write to the stream would keep the relay filling it.
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

    /// Makes sure that the stream's last message is the journal's event, and that the journal is as long.
    async fn compare(&self, info: &Info) -> Result<(), RelayError> {
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

    /// What to think of the stream's last message beside the event that the journal has there.
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
            // It was published from this instance's journal, which must have been another one then.
            (Mark::Genuine { .. }, Some(event)) => {
                Err(RelayError::Diverged { position, found, expected: event.id.to_string() })
            }
            (Mark::Genuine { .. }, None) => Err(RelayError::Ahead { stream, journal }),
            (Mark::Absent, Some(event)) if says_the_same(message, event) => Ok(()),
            (Mark::Absent, _) => forged("it has no mark (ww-mac), and is not the journal's event"),
            (Mark::Wrong, _) => forged("its mark (ww-mac) is wrong"),
        }
    }

    /// The id of an event of the journal; nil before the first.
    async fn id_at(&self, position: u64) -> Result<Uuid, RelayError> {
        if position == 0 {
            return Ok(Uuid::nil());
        }
        let recorded = self.journal.read_positions(&[position]).await?;
        let missing = || StoreError::Damaged(format!("it has no event {position}"));
        Ok(recorded.first().ok_or_else(missing)?.id)
    }

    /// Whether messages are missing that no limit took away: those only leave at the front. It happens when a file is
    /// damaged, but not the one beside it that says how far the stream went, and the server goes on from there.
    fn has_lost(&self, state: &StreamState, first: u64) -> bool {
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
            Ok(_) => tracing::info!(stream = bus::STREAM, first = first.position, "made the stream"),
            // Another relay was faster.
            Err(RelayError::JetStream(reason)) => {
                let made: Option<Info> = self.ask("STREAM.INFO", &json!({})).await?;
                made.ok_or(RelayError::JetStream(reason))?;
            }
            Err(error) => return Err(error),
        }
        Ok(first.position.saturating_sub(1))
    }

    /// Changes the stream's configuration where it is not as the settings say.
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
        // Whatever is missing is missing because it was lost; deleting the whole stream stays possible.
        config.deny_delete = true;
        config.deny_purge = true;
        config.metadata.insert(FIRST_EVENT.to_owned(), first_id);
    }

    /// A request to the JetStream API. None: there is no such stream.
    async fn ask<T: DeserializeOwned>(
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

    /// Publishes events as one atomic batch: all of them right behind `end`, or none.
    async fn publish(
        &self,
        origin: &LogOrigin,
        end: u64,
        previous: Uuid,
        events: &[RecordedEvent],
    ) -> Result<Outcome, RelayError> {
        let messages = self.messages(origin, end, previous, events)?;
        // What is sent without a connection is kept and sent much later. It would do no harm, and no good.
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

    /// Sends a batch and waits for what the server says to its last message; the others get no answer.
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

    /// The messages of a batch, as many of the events as go into one.
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
            let message = Message::new(event, previous, origin, &self.key, &batch, messages.len() + 1);
            previous = event.id;
            let size = message.size();
            bytes += size;
            // All before it goes out first, so that the one event at fault is the one that is reported.
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

    /// How often a connection was made: another number means that the server may be another one, or not what it was.
    fn connection(&self) -> u64 {
        self.nats.statistics().connects.load(Ordering::Relaxed)
    }

    fn stand_at(&self, position: u64, newest: u64) {
        let standing = Standing { position, state: State::Running };
        let recovered = self.standing.send_replace(standing).state;
        if let State::Failed(error) = recovered {
            tracing::info!(position, was = %error, "the relay publishes again");
        }
        measure(position, newest, false);
    }

    fn fail(&self, error: RelayError) {
        let stopped = error.needs_somebody();
        self.standing.send_if_modified(|standing| {
            let news = standing.state != State::Failed(error.clone());
            if stopped && news {
                tracing::error!(%error, "the relay stands still");
            } else if news {
                tracing::warn!(%error, "the relay is interrupted");
            }
            standing.state = State::Failed(error);
            news
        });
        metrics::counter!("watchword_relay_errors_total").increment(1);
        measure(self.standing.borrow().position, *self.journal.watch_head().borrow(), stopped);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53 events")]
fn measure(position: u64, newest: u64, stopped: bool) {
    metrics::gauge!("watchword_relay_position").set(position as f64);
    metrics::gauge!("watchword_relay_lag").set(newest.saturating_sub(position) as f64);
    metrics::gauge!("watchword_relay_stopped").set(f64::from(u8::from(stopped)));
}
