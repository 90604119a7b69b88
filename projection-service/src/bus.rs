//! Events from NATS JetStream: a durable pull consumer of the stream that the relay fills.
//!
//! The bus is a quicker and cheaper way to the newest events, never another truth. An event is taken from it only if
//! it comes right behind the one before, by its sequence and its `prevposition`; the first of a run must be the
//! journal's event of that position; what was announced already is dropped. Whatever does not come in time is read
//! from the journal. How far a projector is stands with its rows, so the consumer's own position is a hint: losing
//! it, or the whole stream, costs nothing but reading.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Message};
use event_store::StoreError;
use futures::StreamExt;
use schemas::{RecordedEvent, bus};
use tokio::sync::watch;

use crate::feed::{MAX_BATCH, Source, WINDOW};

/// How long the bus may take to bring what the journal has. A bus that took longer is not waited for again until it
/// brings something new.
const PATIENCE: Duration = Duration::from_millis(200);
/// A consumer that nobody used for so long is forgotten by the server: its process is not coming back.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// How long a pull request stands at the server, and how often the server says that it is still there.
const PULL: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// A way to the stream.
#[derive(Clone, Debug)]
pub struct Bus {
    /// A connection that comes back by itself, for ever.
    pub nats: Client,
    /// The name of the durable consumer. Each process needs one of its own, the same after a restart.
    pub consumer: String,
}

/// Why nothing comes from the bus for now.
#[derive(Debug, thiserror::Error)]
enum BusError {
    #[error("JetStream cannot be read")]
    JetStream(#[source] async_nats::Error),
    #[error("the journal cannot be read")]
    Journal(#[from] StoreError),
    #[error("message {0} of the stream is not the journal's event of that position")]
    Foreign(u64),
    #[error("the consumer ended")]
    Ended,
}

impl BusError {
    fn jetstream(error: impl Into<async_nats::Error>) -> Self {
        Self::JetStream(error.into())
    }
}

/// Fills the source's window, and tells by `head` how far there are events to get, from wherever.
pub(crate) async fn follow(bus: Bus, source: Arc<Source>, head: watch::Sender<u64>) {
    let brought = watch::Sender::new(0);
    let journal = source.repository().journal().watch_head();
    tokio::select! {
        () = pace(journal, brought.subscribe(), &head) => {}
        () = receive(&bus, &source, &brought, &head) => {}
    }
}

/// Announces what the bus brought at once, and what only the journal has when the bus has had its time.
async fn pace(
    mut journal: watch::Receiver<u64>,
    mut brought: watch::Receiver<u64>,
    head: &watch::Sender<u64>,
) {
    // What was there before the bus is not waited for.
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

/// Receives for ever.
async fn receive(bus: &Bus, source: &Source, brought: &watch::Sender<u64>, head: &watch::Sender<u64>) {
    let mut retry = FIRST_RETRY;
    let mut told = String::new();
    loop {
        let before = *brought.borrow();
        let Err(error) = session(bus, source, brought, head).await;
        if *brought.borrow() > before {
            (retry, told) = (FIRST_RETRY, String::new());
        }
        // Foreign events are a matter for somebody; the journal serves as well meanwhile.
        let wait = if matches!(error, BusError::Foreign(_)) { LONGEST_RETRY } else { retry };
        let text = error.to_string();
        if text != told {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "events come from the journal, not from NATS"
            );
            told = text;
        }
        metrics::counter!("watchword_feed_errors_total").increment(1);
        tokio::time::sleep(wait).await;
        retry = (retry * 2).min(LONGEST_RETRY);
    }
}

/// Receives until something is not as it should be.
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
    let mut messages = messages.ready_chunks(MAX_BATCH);
    // Behind which event the next one belongs; None: it must be looked up.
    let mut last = None;
    while let Some(chunk) = messages.next().await {
        let chunk = chunk.into_iter().collect::<Result<Vec<Message>, _>>().map_err(BusError::jetstream)?;
        let here = *brought.borrow();
        for run in runs(&chunk, here) {
            let first = &run[0];
            if last != Some(first.position - 1) {
                let recorded = source.repository().journal().read_positions(&[first.position]).await?;
                if recorded.first().is_none_or(|event| event.id != first.id) {
                    return Err(BusError::Foreign(first.position));
                }
            }
            let end = first.position + run.len() as u64 - 1;
            last = Some(end);
            // What was announced was or is being read from the journal.
            let announced = *head.borrow();
            if end > announced {
                metrics::counter!("watchword_feed_events_total", "from" => "bus").increment(run.len() as u64);
                source.take(run).await;
            }
            brought.send_replace(end);
        }
        if let Some(message) = chunk.last() {
            // All up to this one. If it gets lost, they come again and are dropped.
            message.ack().await.map_err(BusError::jetstream)?;
        }
    }
    Err(BusError::Ended)
}

/// The events of some messages in runs without gaps, leaving out those up to a position. What is no event of ours, or
/// not where it belongs, is left out too: that is a gap like any other.
fn runs(messages: &[Message], after: u64) -> Vec<Vec<RecordedEvent>> {
    let mut runs: Vec<Vec<RecordedEvent>> = Vec::new();
    let mut last = after;
    for message in messages {
        let Some(event) = event(message).filter(|event| event.position > last) else { continue };
        let follows = event.position == last + 1;
        last = event.position;
        match runs.last_mut().filter(|_| follows) {
            Some(run) => run.push(event),
            None => runs.push(vec![event]),
        }
    }
    runs
}

/// The event of a message whose sequence, headers and body agree on where it belongs.
fn event(message: &Message) -> Option<RecordedEvent> {
    let sequence = message.info().ok()?.stream_sequence;
    let headers = message.headers.as_ref()?;
    let number = |name| headers.get(name).and_then(|value| value.as_str().parse::<u64>().ok());
    let (position, previous) = (number(bus::POSITION)?, number(bus::PREVIOUS_POSITION)?);
    let event = RecordedEvent::from_canonical_json(&message.payload)
        .inspect_err(|error| tracing::debug!(%error, sequence, "a message is no event that can be read"))
        .ok()?;
    let agree =
        event.position == sequence && position == sequence && previous.checked_add(1) == Some(sequence);
    agree.then_some(event)
}

/// This process's consumer. One that is much behind is made anew: the journal is the quicker way to catch up.
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
