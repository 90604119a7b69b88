//! A journal, a real nats-server, and relays between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Info, State};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, HeaderValue};
use domain::{AppId, LogOrigin, StreamId, UserId};
use effects::relay::{Relay, RelaySettings, RelayStatus};
use event_store::{
    Append, Clock, InstanceKey, Journal, Mark, MessageKey, NewEvent, SqliteJournal, SystemClock, Write,
};
use futures::StreamExt;
use schemas::{Actor, Metadata, bus};
use test_services::Nats;
use uuid::Uuid;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) journal: Arc<SqliteJournal>,
    pub(super) nats: Nats,
    pub(super) client: Client,
    pub(super) key: MessageKey,
}

pub(super) fn origin() -> LogOrigin {
    LogOrigin::parse("https://login.example.com").expect("valid")
}

/// Settings for the impatient.
pub(super) fn settings() -> RelaySettings {
    RelaySettings { check_interval: Duration::from_millis(500), ..RelaySettings::default() }
}

pub(super) async fn client(nats: &Nats) -> Client {
    let options = ConnectOptions::new()
        .retry_on_initial_connect()
        .reconnect_delay_callback(|_| Duration::from_millis(50));
    options.connect(nats.url()).await.expect("the client starts")
}

pub(super) async fn open(path: &Path) -> Arc<SqliteJournal> {
    Arc::new(SqliteJournal::open(path, &event_store::contract::macs()).await.expect("the journal opens"))
}

/// Appends `count` events, a few at a time, with data of about `size` bytes.
pub(super) async fn append(journal: &dyn Journal, count: usize, size: usize) {
    const TOGETHER: usize = 50;
    for first in (0..count).step_by(TOGETHER) {
        let user = UserId(SystemClock.new_id());
        let event = |n: usize| NewEvent {
            id: SystemClock.new_id(),
            name: "UserBanned".into(),
            schema_version: 1,
            data: format!(r#"{{"n":{n},"text":"{}"}}"#, "x".repeat(size)),
            person: Some(user),
            personal: None,
        };
        let events = (first..count.min(first + TOGETHER)).map(event).collect();
        let metadata = Metadata {
            app_id: AppId::parse("acme").expect("valid"),
            actor: Actor::system(),
            correlation_id: SystemClock.new_id(),
            causation_id: None,
            request_id: None,
            traceparent: first.is_multiple_of(2 * TOGETHER).then(|| TRACE.to_owned()),
        };
        let write = Write { stream: StreamId::user(user), expected: 0, events };
        let append = Append {
            writes: vec![write],
            guards: vec![],
            taken: vec![],
            released: vec![],
            idempotency: None,
            metadata,
            at: SystemClock.now(),
        };
        journal.append(append).await.expect("appends");
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = open(&folder.path().join("journal.db")).await;
        let nats = Nats::start();
        let client = client(&nats).await;
        Self { folder, journal, nats, client, key: MessageKey::new(&InstanceKey::generate()) }
    }

    pub(super) fn relay(&self) -> Relay {
        self.relay_with(settings())
    }

    pub(super) fn relay_with(&self, settings: RelaySettings) -> Relay {
        Relay::start(self.client.clone(), self.journal.clone(), origin(), self.key.clone(), settings)
    }

    pub(super) fn jetstream(&self) -> Context {
        jetstream::new(self.client.clone())
    }

    /// Copies the journal's file as it is now. Returns where the copy is.
    pub(super) async fn back_up(&mut self) -> PathBuf {
        let file = |name| self.folder.path().join(name);
        let (path, backup) = (file("journal.db"), file("backup.db"));
        let unused = open(&file("unused.db")).await;
        let journal = Arc::into_inner(std::mem::replace(&mut self.journal, unused));
        journal.expect("nobody else has it").close().await;
        std::fs::copy(&path, &backup).expect("it is copied");
        self.journal = open(&path).await;
        backup
    }

    pub(super) async fn append(&self, count: usize) {
        append(&*self.journal, count, 20).await;
    }

    pub(super) async fn head(&self) -> u64 {
        self.journal.head().await.expect("reads")
    }

    pub(super) async fn info(&self) -> Info {
        self.jetstream().get_stream(bus::STREAM).await.expect("the stream is there").cached_info().clone()
    }

    pub(super) async fn state(&self) -> State {
        self.info().await.state
    }

    /// Waits until the stream has the whole journal, and checks all its messages.
    pub(super) async fn assert_complete(&self, relay: &Relay) {
        let head = self.head().await;
        until(relay, |status| status.state == "running" && status.position == head && status.lag == 0).await;
        self.assert_stream_is_journal().await;
    }

    pub(super) async fn assert_stream_is_journal(&self) {
        let recorded = self.journal.read_all(0, usize::MAX).await.expect("reads");
        let state = self.state().await;
        assert_eq!((state.first_sequence, state.last_sequence), (1, recorded.len() as u64));
        assert_eq!(state.messages, recorded.len() as u64);
        let stream = self.jetstream().get_stream(bus::STREAM).await.expect("the stream is there");
        let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
        let consumer = stream.create_consumer(config).await.expect("a consumer");
        let mut messages = consumer.messages().await.expect("it delivers");
        let mut previous = Uuid::nil();
        for event in &recorded {
            let message = messages.next().await.expect("a message").expect("no error");
            let sequence = message.info().expect("of JetStream").stream_sequence;
            assert_eq!(sequence, event.position);
            assert_eq!(message.subject.as_str(), event.subject());
            assert_eq!(message.payload, event.to_canonical_json(&origin()).as_bytes());
            let headers = message.headers.as_ref().expect("headers");
            let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
            assert_eq!(header("Nats-Msg-Id"), Some(event.id.to_string()));
            assert_eq!(header("ce-position"), Some(event.position.to_string()));
            assert_eq!(header("ce-prevposition"), Some((event.position - 1).to_string()));
            assert_eq!(header("Content-Type").as_deref(), Some("application/cloudevents+json"));
            assert_eq!(header("traceparent"), event.metadata.traceparent);
            let header = |name: &str| headers.get(name).map(HeaderValue::as_str);
            let mark = self.key.read(sequence, &message.subject, header, &message.payload);
            assert_eq!(mark, Mark::Genuine { id: event.id, previous });
            previous = event.id;
        }
    }

    pub(super) async fn try_state(&self) -> Option<State> {
        let stream = self.jetstream().get_stream(bus::STREAM).await.ok()?;
        Some(stream.cached_info().state.clone())
    }

    /// Truncates the newest message file of the stopped server to 80 %, as a power loss may, and restarts it.
    pub(super) fn cut_and_start(&mut self) {
        let block = self.blocks().pop().expect("there is a file");
        let length = std::fs::metadata(&block).expect("it is there").len();
        let file = std::fs::File::options().write(true).open(&block).expect("it opens");
        file.set_len(length * 8 / 10).expect("it is cut");
        drop(file);
        self.nats.up();
    }

    /// The files that hold messages, newest last.
    fn blocks(&self) -> Vec<PathBuf> {
        fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).expect("it can be listed") {
                let path = entry.expect("it can be listed").path();
                if path.is_dir() {
                    collect(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "blk") {
                    found.push(path);
                }
            }
        }
        let mut blocks = Vec::new();
        collect(self.nats.store(), &mut blocks);
        let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
        blocks.sort_by_key(number);
        blocks
    }
}

pub(super) async fn until_true(condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !condition().await {
        assert!(Instant::now() < deadline, "it does not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) async fn until(relay: &Relay, condition: impl Fn(&RelayStatus) -> bool) -> RelayStatus {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let status = relay.status();
        if condition(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
