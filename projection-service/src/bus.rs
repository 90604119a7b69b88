//! Events from NATS JetStream: a durable pull consumer of the stream that the relay fills.
//!
//! The bus is a faster and cheaper way to the newest events, never a second source of truth. A message is accepted only
//! with the mark of this instance ([`event_store::MessageKey`]) for its position. Each message of a run names the one
//! before it, and the last must be the journal's event at that position, so all of them are. Messages that were already
//! announced are dropped. A rejected message is a gap, which is counted and logged, and what does not arrive in time is
//! read from the journal. A projector's checkpoint is stored with its rows, so the consumer's own position is only a
//! hint: losing it, or the whole stream, costs only reads.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Message};
use event_store::{Mark, MessageKey, StoreError};
use futures::StreamExt;
use schemas::{RecordedEvent, bus};
use tasks::End;
use tokio::sync::watch;
use uuid::Uuid;

use crate::feed::{MAX_BATCH, Source, WINDOW};

/// How long the bus may lag behind the journal. After a longer delay, nothing waits for the bus again until it brings
/// something new.
const PATIENCE: Duration = Duration::from_millis(200);
/// The server deletes a consumer that has been unused for this long: its process is not coming back.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// How long a pull request stays open at the server, and how often the server sends a heartbeat.
const PULL: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Access to the stream.
#[derive(Clone, Debug)]
pub struct Bus {
    /// A connection that reconnects automatically without limit.
    pub nats: Client,
    /// The name of the durable consumer. Each process needs its own, the same after a restart.
    pub consumer: String,
    /// The key that identifies messages of this instance.
    pub key: MessageKey,
}

/// What the bus has brought since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusStatus {
    /// Messages whose mark is not this instance's, or is for another position, or whose event the journal does not have
    /// there.
    pub forged: u64,
    /// Messages without a mark: from earlier versions, or from another publisher.
    pub unmarked: u64,
    /// Messages of this instance that this version cannot read.
    pub unreadable: u64,
    /// The sequence of the last rejected message.
    pub last_refused: Option<u64>,
    /// Why the bus currently brings nothing.
    pub error: Option<String>,
}

/// Why a message is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Unmarked,
    WrongMark,
    NotInJournal,
    Unreadable,
}

impl Refusal {
    /// Its name in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Unmarked => "no_mark",
            Self::WrongMark => "wrong_mark",
            Self::NotInJournal => "not_in_journal",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Counts rejected messages.
#[derive(Debug, Default)]
pub(crate) struct Doubts(Mutex<BusStatus>);

impl Doubts {
    pub(crate) fn status(&self) -> BusStatus {
        self.0.lock().expect("no holder panics").clone()
    }

    fn refuse(&self, sequence: u64, refusal: Refusal) {
        metrics::counter!("watchword_feed_refused_total", "reason" => refusal.as_str()).increment(1);
        let mut status = self.0.lock().expect("no holder panics");
        status.last_refused = Some(sequence);
        let count = match refusal {
            Refusal::WrongMark | Refusal::NotInJournal => &mut status.forged,
            Refusal::Unmarked => &mut status.unmarked,
            Refusal::Unreadable => &mut status.unreadable,
        };
        *count += 1;
        // A flood of them must not fill the log.
        if count.is_power_of_two() {
            let (count, reason) = (*count, refusal.as_str());
            tracing::warn!(
                sequence,
                reason,
                count,
                "a message of the stream was rejected; its event is read from the journal"
            );
        }
    }

    fn set_error(&self, error: Option<String>) {
        self.0.lock().expect("no holder panics").error = error;
    }
}

/// Why the bus brings nothing for now.
#[derive(Debug, thiserror::Error)]
enum BusError {
    #[error("JetStream cannot be read")]
    JetStream(#[source] async_nats::Error),
    #[error("the journal cannot be read")]
    Journal(#[from] StoreError),
    #[error("the consumer ended")]
    Ended,
}

impl BusError {
    fn jetstream(error: impl Into<async_nats::Error>) -> Self {
        Self::JetStream(error.into())
    }
}

/// Fills the source's window, and announces by `head` up to which position events are available, from the bus or the
/// journal.
pub(crate) async fn follow(bus: Bus, source: Arc<Source>, head: Arc<watch::Sender<u64>>) -> End {
    let brought = watch::Sender::new(0);
    let journal = source.repository().journal().watch_head();
    tokio::select! {
        // The journal was closed.
        () = pace(journal, brought.subscribe(), &head) => End::Asked,
        () = receive(&bus, &source, &brought, &head) => End::Unasked,
    }
}

/// Announces at once what the bus brought, and what only the journal has once the bus has had its time.
async fn pace(
    mut journal: watch::Receiver<u64>,
    mut brought: watch::Receiver<u64>,
    head: &watch::Sender<u64>,
) {
    // The bus is not waited for with events from before it connected.
    let mut late = true;
    loop {
        let (written, here) = (*journal.borrow_and_update(), *brought.borrow_and_update());
        announce(head, if late { written } else { here });
        let known = *head.borrow();
        tokio::select! {
            changed = brought.changed() => {
                late = false;
                if changed.is_err() { return }
            }
            changed = journal.changed(), if late || written <= known => if changed.is_err() { return },
            () = tokio::time::sleep(PATIENCE), if !late && written > known => late = true,
        }
    }
}

fn announce(head: &watch::Sender<u64>, position: u64) {
    head.send_if_modified(|known| {
        let news = position > *known;
        *known = position.max(*known);
        news
    });
}

/// Receives and reconnects without end.
async fn receive(bus: &Bus, source: &Source, brought: &watch::Sender<u64>, head: &watch::Sender<u64>) {
    let mut retry = FIRST_RETRY;
    let mut told = String::new();
    loop {
        let before = *brought.borrow();
        let Err(error) = session(bus, source, brought, head).await;
        if *brought.borrow() > before {
            (retry, told) = (FIRST_RETRY, String::new());
        }
        let text = error.to_string();
        source.doubts().set_error(Some(text.clone()));
        if text != told {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "events come from the journal, not from NATS"
            );
            told = text;
        }
        metrics::counter!("watchword_feed_errors_total").increment(1);
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LONGEST_RETRY);
    }
}

/// Receives until something fails.
async fn session(
    bus: &Bus,
    source: &Source,
    brought: &watch::Sender<u64>,
    head: &watch::Sender<u64>,
) -> Result<Infallible, BusError> {
    let consumer = consumer(bus, source).await?;
    let messages = consumer
        .stream()
        .max_messages_per_batch(MAX_BATCH)
        .expires(PULL)
        .heartbeat(HEARTBEAT)
        .messages()
        .await
        .map_err(BusError::jetstream)?;
    source.doubts().set_error(None);
    let mut messages = messages.ready_chunks(MAX_BATCH);
    while let Some(chunk) = messages.next().await {
        let chunk = chunk.into_iter().collect::<Result<Vec<Message>, _>>().map_err(BusError::jetstream)?;
        let here = *brought.borrow();
        for run in runs(&chunk, here, &bus.key, source.doubts()) {
            let Some(last) = run.last() else { continue };
            let (end, id) = (last.position, last.id);
            let recorded = source.repository().journal().read_positions(&[end]).await?;
            if recorded.first().is_none_or(|event| event.id != id) {
                // If the journal was restored from a backup, the stream continues another history.
                source.doubts().refuse(end, Refusal::NotInJournal);
                continue;
            }
            // What was announced already has been, or is being, read from the journal.
            let announced = *head.borrow();
            if end > announced {
                metrics::counter!("watchword_feed_events_total", "from" => "bus").increment(run.len() as u64);
                source.take(run).await;
            }
            brought.send_replace(end);
        }
        if let Some(message) = chunk.last() {
            // This acknowledges all up to this one. If it is lost, they come again and are dropped.
            message.ack().await.map_err(BusError::jetstream)?;
        }
    }
    Err(BusError::Ended)
}

/// Sorts the events of messages after a position into runs, in which each names the one before. Rejected messages are
/// left out, which is a gap like any other.
fn runs(messages: &[Message], after: u64, key: &MessageKey, doubts: &Doubts) -> Vec<Vec<RecordedEvent>> {
    let mut runs: Vec<Vec<RecordedEvent>> = Vec::new();
    let mut last = (after, Uuid::nil());
    for message in messages {
        let Ok(sequence) = message.info().map(|info| info.stream_sequence) else { continue };
        if sequence <= last.0 {
            continue;
        }
        let (event, previous) = match verified(message, sequence, key) {
            Ok(verified) => verified,
            Err(refusal) => {
                doubts.refuse(sequence, refusal);
                continue;
            }
        };
        let follows = (event.position - 1, previous) == last;
        last = (event.position, event.id);
        match runs.last_mut().filter(|_| follows) {
            Some(run) => run.push(event),
            None => runs.push(vec![event]),
        }
    }
    runs
}

/// The event of a message that this instance published at this sequence, and the id of the event before it.
fn verified(message: &Message, sequence: u64, key: &MessageKey) -> Result<(RecordedEvent, Uuid), Refusal> {
    let header = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str());
    let (id, previous) = match key.read(sequence, &message.subject, header, &message.payload) {
        Mark::Genuine { id, previous } => (id, previous),
        Mark::Absent => return Err(Refusal::Unmarked),
        Mark::Wrong => return Err(Refusal::WrongMark),
    };
    let event = RecordedEvent::from_canonical_json(&message.payload);
    let event = event.inspect_err(|error| tracing::debug!(%error, sequence, "a message cannot be read"));
    match event {
        Ok(event) if event.position == sequence && event.id == id => Ok((event, previous)),
        Ok(_) | Err(_) => Err(Refusal::Unreadable),
    }
}

/// This process's consumer. If it is far behind, it is created anew: reading the journal is the faster way to catch up.
async fn consumer(bus: &Bus, source: &Source) -> Result<PullConsumer, BusError> {
    let head = source.repository().journal().head().await?;
    let jetstream = jetstream::new(bus.nats.clone());
    let stream: Stream<()> = jetstream.get_stream_no_info(bus::STREAM).await.map_err(BusError::jetstream)?;
    if let Ok(consumer) = stream.get_consumer::<pull::Config>(&bus.consumer).await {
        let reached = consumer.cached_info().ack_floor.stream_sequence;
        if (head.saturating_sub(WINDOW as u64)..=head).contains(&reached) {
            return Ok(consumer);
        }
        stream.delete_consumer(&bus.consumer).await.map_err(BusError::jetstream)?;
    }
    let config = pull::Config {
        durable_name: Some(bus.consumer.clone()),
        description: Some("A projection node of Watchword".to_owned()),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: head + 1 },
        ack_policy: AckPolicy::All,
        max_ack_pending: i64::try_from(WINDOW).unwrap_or(i64::MAX),
        inactive_threshold: FORGOTTEN,
        ..pull::Config::default()
    };
    let consumer: Consumer<pull::Config> =
        stream.create_consumer(config).await.map_err(BusError::jetstream)?;
    Ok(consumer)
}
