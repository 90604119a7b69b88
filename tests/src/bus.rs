//! A nats-server, and an analytics consumer that survives whatever happens to it.

use std::convert::Infallible;
use std::error::Error;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, Context};
use futures::StreamExt;
use serde_json::Value;
use test_services::Nats;
use tokio::task::JoinHandle;

use crate::PATIENCE;

/// The stream with every event.
pub(crate) const STREAM: &str = "WATCHWORD";
/// How long the consumer waits for the next event before it asks again: that is the only way to get what was sent on a
/// broken connection.
const IDLE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(50);

/// A nats-server with a consumer that reads every event from the first, and finds its place by `prevposition`, like
/// `deploy/examples`.
pub struct Bus {
    nats: Nats,
    /// The ids of the events it saw, in order.
    seen: Arc<Mutex<Vec<String>>>,
    consumer: JoinHandle<()>,
}

impl Bus {
    /// Starts both.
    pub fn start() -> Self {
        Self::of(Nats::start())
    }

    /// Starts the consumer of this server.
    pub fn of(nats: Nats) -> Self {
        let seen = Arc::default();
        let consumer = tokio::spawn(follow(nats.url(), Arc::clone(&seen)));
        Self { nats, seen, consumer }
    }

    /// Waits until the consumer has seen this many events, and fails unless they are these, each once and in order.
    pub async fn consumer_saw(&self, events: &[Value]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(!self.consumer.is_finished(), "the consumer has ended: its panic is above");
            let seen = self.seen.lock().expect("no holder panics").clone();
            if seen.len() >= events.len() {
                let ids: Vec<&str> = events.iter().map(|it| it["id"].as_str().expect("an id")).collect();
                assert!(seen == ids, "a consumer that follows prevposition saw every event once");
                return;
            }
            assert!(Instant::now() < deadline, "a consumer saw {} of {} events", seen.len(), events.len());
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl Deref for Bus {
    type Target = Nats;

    fn deref(&self) -> &Nats {
        &self.nats
    }
}

impl DerefMut for Bus {
    fn deref_mut(&mut self) -> &mut Nats {
        &mut self.nats
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.consumer.abort();
    }
}

async fn follow(url: String, seen: Arc<Mutex<Vec<String>>>) {
    let client = ConnectOptions::new().retry_on_initial_connect().connect(url).await;
    let jetstream = jetstream::new(client.expect("the address can be used"));
    loop {
        // After any failure, it continues after what it saw.
        let _ = read(&jetstream, &seen).await;
        tokio::time::sleep(RETRY).await;
    }
}

async fn read(
    jetstream: &Context,
    seen: &Mutex<Vec<String>>,
) -> Result<Infallible, Box<dyn Error + Send + Sync>> {
    let next = seen.lock().expect("no holder panics").len() as u64 + 1;
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next },
        inactive_threshold: Duration::from_secs(30),
        ..pull::Config::default()
    };
    let consumer = jetstream.create_consumer_on_stream(config, STREAM).await?;
    let mut messages = consumer.messages().await?;
    loop {
        let message = tokio::time::timeout(IDLE, messages.next()).await?.ok_or("the consumer is gone")??;
        let event: Value = serde_json::from_slice(&message.payload)?;
        let id = event["id"].as_str().expect("an event has an id");
        let before =
            usize::try_from(event["prevposition"].as_u64().expect("an event names its predecessor"))?;
        let mut seen = seen.lock().expect("no holder panics");
        if let Some(known) = seen.get(before) {
            assert_eq!(known, id, "event {} differs from before", before + 1);
        } else if before == seen.len() {
            seen.push(id.to_owned());
        } else {
            return Err("events are missing before this one".into());
        }
    }
}
