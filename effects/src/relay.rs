//! The relay: publishes every event of the journal, in order, to the JetStream stream [`schemas::bus::STREAM`].
//!
//! The journal is the truth and the stream is derived from it, so the relay keeps no state of its own: it continues
//! where the stream ends. The sequence of a message is the position of its event. JetStream itself enforces this,
//! because the first message of each batch names the sequence that must precede it. So any number of relays can run:
//! one of them wins each batch, and the others check where the stream ends then.
//!
//! No answer of JetStream is taken as success without a check: an error, a duplicate, an unexpected sequence, a new
//! connection, and the timer all lead to the same check of the stream's last message, which must be the journal's event
//! at that position, with the mark of this instance ([`MessageKey`]). A stream shorter than the journal (deleted, or
//! truncated by a power loss) is refilled. One with other events, or more than the journal, is left alone, and the relay
//! stops and reports it: an operator has to decide which of the two is right. Only if the message cannot be this
//! instance's may the operator leave that to the relay.

mod batch;
mod error;
mod look;
mod lost;
mod message;
mod rebuild;
mod stream;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream;
use domain::LogOrigin;
use event_store::{Journal, MessageKey, StoreError};
use futures::FutureExt;
use http_kit::trace::{self, Step};
pub use look::{StreamStanding, look};
pub use rebuild::{RebuildError, delete_stream, fill};
use tasks::{End, Task, Weight};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use self::batch::Outcome;
use self::error::RelayError;

/// The maximum number of messages in one atomic batch of JetStream.
pub const MAX_BATCH: usize = 1000;
/// The oldest version with atomic batches.
const OLDEST_SERVER: (i64, i64, i64) = (2, 12, 0);
/// The time limit for a batch or a request: requests to a cluster that is electing a leader are lost.
const PATIENCE: Duration = Duration::from_secs(5);
const QUESTION: Duration = Duration::from_secs(2);
/// How often an idle relay checks whether the connection is a new one.
const TICK: Duration = Duration::from_millis(250);
/// How long a relay that lost a race waits for the winner.
const STAND_BACK: Duration = Duration::from_millis(250);
/// A batch this small is followed by a short pause: under load the next one is then larger, and each batch costs two
/// round trips and a file sync on the server.
const SMALL_BATCH: u64 = 64;
const REST: Duration = Duration::from_millis(5);
/// How long the first connection may take before its absence is reported.
const TIME_TO_CONNECT: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// The operator's settings for the stream and the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// The number of replicas of the stream in a cluster: 1, 3 or 5.
    pub replicas: usize,
    /// Whether the stream is kept in memory: after a restart of the server it is refilled.
    pub in_memory: bool,
    /// How long messages are kept. None: without limit.
    pub max_age: Option<Duration>,
    /// How many bytes of messages are kept. None: without limit.
    pub max_bytes: Option<u64>,
    /// How long JetStream remembers message ids.
    pub duplicate_window: Duration,
    /// The maximum number of events published together, up to [`MAX_BATCH`].
    pub batch: usize,
    /// How often an idle relay compares the stream's end with the journal.
    pub check_interval: Duration,
    /// The minimum time between two automatic rebuilds of a stream whose end this instance did not publish. None: only
    /// an operator rebuilds it.
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

/// The state of the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayStatus {
    /// `starting`, `running`, `interrupted` (it retries by itself) or `stopped` (it needs an operator).
    pub state: &'static str,
    /// The position of the last event known to be in the stream.
    pub position: u64,
    /// The number of events not published yet.
    pub lag: u64,
    /// The current error.
    pub error: Option<String>,
}

/// Publishes until it is shut down.
pub struct Relay {
    standing: watch::Receiver<Standing>,
    head: watch::Receiver<u64>,
    ending: watch::Sender<bool>,
    task: Mutex<Option<Task>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    /// The last known end of the stream.
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
    /// Starts publishing once NATS is reachable. The client should reconnect by itself, without limit.
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
        let publisher = Arc::new(Publisher::new(nats, journal, key, settings, standing));
        let ends = ending.subscribe();
        let task = tasks::start("relay", Weight::Usual, move || {
            let (publisher, origin, ending) = (Arc::clone(&publisher), origin.clone(), ends.clone());
            async move { publisher.run(&origin, ending).await }
        });
        Self { standing: seen, head, ending, task: Mutex::new(Some(task)) }
    }

    /// Its state.
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

    /// Stops it. Unpublished events are published by another relay, or after the next start.
    pub async fn shutdown(&self) {
        self.ending.send_replace(true);
        let task = self.task.lock().expect("no holder panics").take();
        if let Some(mut task) = task {
            task.ended().await;
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
    /// When this relay last rebuilt the stream by itself.
    rebuilt: Mutex<Option<Instant>>,
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

    async fn run(&self, origin: &LogOrigin, mut ending: watch::Receiver<bool>) -> End {
        let mut retry = FIRST_RETRY;
        loop {
            // An interrupted batch lacks its last message, and JetStream discards it.
            let following = AssertUnwindSafe(self.follow(origin, &mut retry)).catch_unwind();
            let error = tokio::select! {
                followed = following => match followed {
                    Ok(Err(error)) => error,
                    // An event that cannot be published must neither end the process nor be left out.
                    Err(_) => RelayError::Panicked { after: self.standing.borrow().position },
                },
                _ = ending.wait_for(|ending| *ending) => return End::Asked,
            };
            let wait = if error.needs_somebody() { self.settings.check_interval } else { retry };
            retry = (retry * 2).min(LONGEST_RETRY);
            self.fail(error);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = ending.wait_for(|ending| *ending) => return End::Asked,
            }
        }
    }

    /// Publishes what the stream lacks, until a check fails.
    async fn follow(&self, origin: &LogOrigin, retry: &mut Duration) -> Result<Infallible, RelayError> {
        let mut head = self.journal.watch_head();
        let stopped = || StoreError::Unavailable("the journal was closed".into());
        head.wait_for(|head| *head > 0).await.map_err(|_| stopped())?;
        self.give_time_to_connect().await;
        let mut end = self.look().await?;
        let (mut connection, mut looked) = (self.connection(), Instant::now());
        // Whether another relay publishes. Then this one lets it go first, so that they do not send everything twice.
        let mut rival = false;
        // The id of the stream's last event, if this relay has just published it.
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

    /// A new connection takes a moment: its absence need not be reported yet.
    async fn give_time_to_connect(&self) {
        let begun = Instant::now();
        while self.connection() == 0 && begun.elapsed() < TIME_TO_CONNECT {
            tokio::time::sleep(Duration::from_millis(20)).await;
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

    /// The number of connections so far: a change means that the server may be another one, or have another state.
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
                tracing::error!(%error, "the relay is stopped");
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
