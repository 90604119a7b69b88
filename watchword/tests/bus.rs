//! From the journal through the relay and a real nats-server to the projectors, with every kind of failure of the bus.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, Info, pull};
use async_nats::{Client, ConnectOptions, HeaderMap};
use domain::user::{RegistrationMethod, UserEvent, UserRegistered};
use domain::{AppId, Email, Event, LogOrigin, Personal, StreamId, UserId};
use effects::relay::{Relay, RelaySettings};
use event_store::{
    Append, Clock, InstanceKey, KeyStore, Location, LookupKey, Marked, MasterKey, MessageKey, Repository,
    Sealer, SqliteJournal, SystemClock, Write,
};
use http_kit::places::Shares;
use http_kit::{AccessLog, Authenticator};
use projection_service::bus::Bus;
use projection_service::feed::Feed;
use projection_service::{CheckpointSettings, Parts, ProjectionService, SharingSettings};
use read_models::ReadModels;
use schemas::{Actor, Metadata, RecordedEvent, bus};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection};
use test_services::Nats;
use tokens::{AccessTokens, DerivedTokens};

#[path = "bus/forged.rs"]
mod forged;

const CONSUMER: &str = "projections-test";

fn origin() -> LogOrigin {
    LogOrigin::parse("https://login.example.com").expect("valid")
}

struct World {
    folder: tempfile::TempDir,
    sealer: Arc<Sealer>,
    repository: Arc<Repository>,
    nats: Nats,
    client: Client,
}

fn acme() -> AppId {
    AppId::parse("acme").expect("valid")
}

async fn append(repository: &Repository, count: usize) {
    let personal = |user: UserId| Personal {
        email: Some(Email::parse(&format!("{user}@example.com")).expect("valid")),
        name: Some("Ada Lovelace".to_owned()),
        ..Personal::default()
    };
    append_with(repository, count, personal).await;
}

async fn append_with(repository: &Repository, count: usize, personal: impl Fn(UserId) -> Personal) {
    let mut writes = Vec::new();
    for _ in 0..count {
        let user = UserId(SystemClock.new_id());
        let event = Event::User(UserEvent::UserRegistered(UserRegistered {
            user_id: user,
            app_id: acme(),
            method: RegistrationMethod::Password,
            at: SystemClock.now(),
            personal: personal(user),
        }));
        let event = repository.encode(&event, SystemClock.new_id()).await.expect("encodes");
        writes.push(Write { stream: StreamId::user(user), expected: 0, events: vec![event] });
    }
    let append = Append {
        writes,
        guards: vec![],
        taken: vec![],
        released: vec![],
        idempotency: None,
        metadata: Metadata {
            app_id: acme(),
            actor: Actor::system(),
            correlation_id: SystemClock.new_id(),
            causation_id: None,
            request_id: Some("a request".to_owned()),
            traceparent: None,
        },
        at: SystemClock.now(),
    };
    repository.journal().append(append).await.expect("appends");
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let keys = KeyStore::open(&path("keys.db"), &MasterKey::generate()).await.expect("opens");
        let macs = keys.macs();
        let sealer = Arc::new(Sealer::new(Arc::new(keys)));
        let journal = Arc::new(SqliteJournal::open(&path("journal.db"), &macs).await.expect("opens"));
        let repository = Arc::new(Repository::new(journal, sealer.clone(), 100));
        let nats = Nats::start();
        let options = ConnectOptions::new()
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::from_millis(50));
        let client = options.connect(nats.url()).await.expect("the client starts");
        Self { folder, sealer, repository, nats, client }
    }

    fn relay(&self) -> Relay {
        let settings =
            RelaySettings { check_interval: Duration::from_millis(500), ..RelaySettings::default() };
        let journal = self.repository.journal().clone();
        Relay::start(self.client.clone(), journal, origin(), self.key(), settings)
    }

    fn bus(&self) -> Bus {
        Bus { nats: self.client.clone(), consumer: CONSUMER.to_owned(), key: self.key() }
    }

    async fn head(&self) -> u64 {
        self.repository.journal().head().await.expect("reads")
    }

    async fn models(&self, file: &str) -> Arc<ReadModels> {
        let location = Location::File(self.folder.path().join(file));
        let lookup = Arc::new(LookupKey::new(self.sealer.keys().instance_key()));
        Arc::new(ReadModels::open(&location, self.sealer.clone(), lookup).await.expect("opens"))
    }

    async fn projections(&self, models: Arc<ReadModels>, bus: Option<Bus>) -> Arc<ProjectionService> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let authenticator = Arc::new(Authenticator::new(
            self.repository.clone(),
            Arc::new(AccessTokens::new(tokens::PublicUrl::parse("http://localhost").expect("valid"))),
            DerivedTokens::new(self.sealer.keys().instance_key()),
            clock.clone(),
        ));
        let sharing = SharingSettings { node: "only".to_owned(), lease: SharingSettings::LEASE };
        let repository = self.repository.clone();
        let access_log = Arc::new(AccessLog::new(repository.clone(), clock.clone()));
        let shares = Shares::of(1);
        let parts = Parts {
            repository,
            models,
            authenticator,
            access_log,
            clock,
            origin: origin(),
            bus,
            sharing,
            event_streams: shares,
            exports: shares,
            window_bytes: 1 << 20,
            checkpoints: CheckpointSettings::default(),
            witnesses: vec![],
        };
        ProjectionService::start(parts).await.expect("starts")
    }

    async fn consumer(&self) -> Option<Info> {
        let stream = jetstream::new(self.client.clone()).get_stream(bus::STREAM).await.ok()?;
        stream.consumer_info(CONSUMER).await.ok()
    }

    /// Waits until the consumer has acknowledged this position.
    async fn until_brought(&self, position: u64) {
        until("the bus brings it", async || {
            self.consumer().await.is_some_and(|consumer| consumer.ack_floor.stream_sequence >= position)
        })
        .await;
    }
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn caught_up(service: &ProjectionService, head: u64) {
    until("every projector is there", async || {
        service.status().iter().all(|status| status.state == "running" && status.position == head)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_k_l_read_models_filled_over_the_bus_equal_those_built_from_the_journal() {
    let mut world = World::new().await;
    append(&world.repository, 200).await;
    let relay = world.relay();
    let live = world.models("live.db").await;
    let service = world.projections(live.clone(), Some(world.bus())).await;
    caught_up(&service, world.head().await).await;
    until("there is a consumer", async || world.consumer().await.is_some()).await;
    for round in 0..40 {
        append(&world.repository, 10).await;
        match round {
            10 => world.nats.kill(),
            15 => world.nats.up(),
            20 => {
                let jetstream = jetstream::new(world.client.clone());
                until("the stream is there", async || jetstream.delete_stream(bus::STREAM).await.is_ok())
                    .await;
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let head = world.head().await;
    assert_eq!(head, 600);
    caught_up(&service, head).await;
    // By now the bus works again and delivers new events.
    until("the relay is done", async || relay.status().lag == 0).await;
    append(&world.repository, 10).await;
    caught_up(&service, head + 10).await;
    world.until_brought(head + 10).await;

    let rebuilt = world.models("rebuilt.db").await;
    let plain = world.projections(rebuilt.clone(), None).await;
    caught_up(&plain, head + 10).await;
    for projector in live.projectors() {
        let (live, rebuilt) = (live.dump(&*projector).await, rebuilt.dump(&*projector).await);
        assert_eq!(live.expect("reads"), rebuilt.expect("reads"), "{}", projector.name());
    }
    service.shutdown().await;
    plain.shutdown().await;
}

/// Reads a feed up to a position, as a projector does.
async fn read(feed: &Feed, up_to: u64) -> Vec<(u64, uuid::Uuid)> {
    let (mut events, mut head) = (Vec::new(), feed.head());
    while events.len() < usize::try_from(up_to).expect("few") {
        head.borrow_and_update();
        let after = events.last().map_or(0, |(position, _)| *position);
        let batch = feed.after(after, 100).await.expect("reads");
        if batch.is_empty() {
            tokio::time::timeout(Duration::from_secs(30), head.changed())
                .await
                .expect("in time")
                .expect("lives");
        }
        events.extend(batch.iter().map(|event| (event.position(), event.recorded.id)));
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_m_a_feed_brings_every_event_once_and_in_order() {
    let mut world = World::new().await;
    let relay = world.relay();
    let feed = Feed::start(world.repository.clone(), Some(world.bus()));
    let (repository, done) = (world.repository.clone(), Arc::new(AtomicBool::new(false)));
    let load = tokio::spawn({
        let done = done.clone();
        async move {
            for _ in 0..300 {
                append(&repository, 5).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            done.store(true, Ordering::SeqCst);
        }
    });
    let chaos = async {
        for round in 0.. {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let jetstream = jetstream::new(world.client.clone());
            match round % 3 {
                // What is not there cannot be deleted; the next round finds it.
                0 => drop(jetstream.delete_consumer_from_stream(CONSUMER, bus::STREAM).await),
                1 => drop(jetstream.delete_stream(bus::STREAM).await),
                _ => {
                    world.nats.kill();
                    world.nats.up();
                }
            }
            if done.load(Ordering::SeqCst) {
                break;
            }
        }
    };
    let (events, ()) = tokio::join!(read(&feed, 1500), chaos);
    load.await.expect("the load runs");
    let recorded = world.repository.journal().read_all(0, usize::MAX).await.expect("reads");
    assert_eq!(events, recorded.iter().map(|event| (event.position, event.id)).collect::<Vec<_>>());
    until("the relay is done", async || relay.status().lag == 0).await;
    until("there is a consumer", async || world.consumer().await.is_some()).await;
    append(&world.repository, 1).await;
    world.until_brought(1501).await;
}

/// A read model that has applied an event that never happened is filled anew at the first gap of the bus, or
/// after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn inv_l_a_read_model_whose_checkpoint_is_not_the_journals_is_filled_anew() {
    let world = World::new().await;
    append(&world.repository, 5).await;
    world.publish_all().await;
    let models = world.models("live.db").await;
    let service = world.projections(models, Some(world.bus())).await;
    caught_up(&service, 5).await;
    // As if another event had been applied last.
    let file = world.folder.path().join("live.db");
    let falsify = async || {
        let mut connection = SqliteConnectOptions::new().filename(&file).connect().await.expect("opens");
        sqlx::query("UPDATE checkpoints SET event = x'0123456789abcdef0123456789abcdef'")
            .execute(&mut connection)
            .await
            .expect("changes");
        connection.close().await.expect("closes");
    };
    falsify().await;
    // No relay publishes it, so the bus has a gap.
    append(&world.repository, 1).await;
    let filled_anew = async |service: &ProjectionService| {
        caught_up(service, 6).await;
        until("every checkpoint is the journal's", async || {
            let looked = ReadModels::look(&Location::File(file.clone())).await;
            let mut right = true;
            for checkpoint in looked.expect("looks") {
                right &= checkpoint.check_journal(&**world.repository.journal()).await.is_ok();
            }
            right
        })
        .await;
    };
    filled_anew(&service).await;
    service.shutdown().await;
    falsify().await;
    let service = world.projections(world.models("live.db").await, None).await;
    filled_anew(&service).await;
    service.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_goes_on_where_it_was_and_one_far_behind_is_made_anew() {
    let world = World::new().await;
    append(&world.repository, 100).await;
    let relay = world.relay();
    until("the relay is done", async || relay.status().lag == 0 && relay.status().position == 100).await;
    let feed = Feed::start(world.repository.clone(), Some(world.bus()));
    until("there is a consumer", async || world.consumer().await.is_some()).await;
    append(&world.repository, 10).await;
    world.until_brought(110).await;
    let made = world.consumer().await.expect("is there").created;
    drop(feed);
    append(&world.repository, 10).await;
    let feed = Feed::start(world.repository.clone(), Some(world.bus()));
    world.until_brought(120).await;
    assert_eq!(world.consumer().await.expect("is there").created, made, "it is the same one");
    drop(feed);
    for _ in 0..90 {
        // Without personal data, because creating a key for each person takes a while.
        append_with(&world.repository, 100, |_| Personal::default()).await;
    }
    let feed = Feed::start(world.repository.clone(), Some(world.bus()));
    until("it is another", async || world.consumer().await.is_some_and(|consumer| consumer.created != made))
        .await;
    assert_eq!(read(&feed, 9120).await.len(), 9120);
}

/// The server as operators run it, with its folder.
struct Server {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(nats: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_watchword"))
            .arg("serve")
            .current_dir(folder.path())
            .env("WATCHWORD_LISTEN", "127.0.0.1:0")
            .env("WATCHWORD_NATS_URL", nats)
            .env("WATCHWORD_NATS_CHECK_INTERVAL", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        let first = lines.next().expect("it says where it listens").expect("text");
        let url = first.split("listens on ").nth(1).expect("an address").to_owned();
        // It ends when its output is not read.
        let rest = lines.map_while(Result::ok).take(2).count();
        assert_eq!(rest, 2, "it says where its documentation and its key are");
        Self { child, url, folder }
    }

    /// Requests as the platform.
    async fn get(&self, path: &str) -> reqwest::Response {
        let key = std::fs::read_to_string(self.folder.path().join("data/admin.key")).expect("it is there");
        let request = reqwest::Client::new().get(format!("{}{path}", self.url)).bearer_auth(key.trim());
        request.send().await.expect("answers")
    }

    async fn relay(&self) -> serde_json::Value {
        let answer = self.get("/readyz").await;
        assert_eq!(answer.status(), 200, "whatever NATS does, requests are served");
        let body: serde_json::Value = answer.json().await.expect("JSON");
        body["checks"]["relay"].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_t_a_server_serves_without_nats_and_publishes_when_it_is_there() {
    let mut nats = Nats::start();
    nats.stop();
    let server = Server::start(&nats.url());
    until("it says that NATS is away", async || server.relay().await["state"] == "interrupted").await;
    let relay = server.relay().await;
    assert!(relay["lag"].as_u64().expect("a number") > 0, "{relay}");
    nats.up();
    until("everything is published", async || {
        let relay = server.relay().await;
        relay["state"] == "running" && relay["lag"] == 0
    })
    .await;
    let client = async_nats::connect(nats.url()).await.expect("connects");
    let stream = jetstream::new(client).get_stream(bus::STREAM).await.expect("is there");
    let position = server.relay().await["position"].as_u64().expect("a number");
    let state = &stream.cached_info().state;
    assert_eq!((state.first_sequence, state.last_sequence, state.messages), (1, position, position));
    let metrics = server.get("/metrics").await.text().await.expect("text");
    assert!(metrics.contains("watchword_relay_lag 0"), "{metrics}");
    assert!(metrics.contains(&format!("watchword_relay_position {position}")), "{metrics}");
}
