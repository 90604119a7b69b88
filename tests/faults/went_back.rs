//! The journal's server is replaced by a replica while nodes run: by one that lacks the newest events, by one that has
//! them while the old one still answers, and by one that a cancelled wait left behind.

use std::collections::BTreeSet;
use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use serde_json::{Value, json};
use test_services::{Nats, Postgres, Switch};
use tests::stalls;
use tests::{Answer, App, PASSWORD, Server, Tokens, assert_gapless, email, of_type, until};

use crate::{Random, SETTINGS};

/// Within this time after a failover everything that can be read is the log's, without a person.
const HEALED: Duration = Duration::from_secs(30);

/// How often each test repeats its fault: 20 by hand.
fn rounds() -> usize {
    env::var("WENT_BACK_ROUNDS").map_or(1, |rounds| rounds.parse().expect("WENT_BACK_ROUNDS is a number"))
}

async fn node(database: &str, own: &[(&str, &str)]) -> Server {
    let shared = [
        ("WATCHWORD_JOURNAL_URL", database),
        ("WATCHWORD_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
    ];
    Server::start_with(&[&SETTINGS[..], &shared, own].concat()).await
}

/// A user, and what a node may know of it.
struct Person {
    address: String,
    tokens: Tokens,
}

async fn register(app: &App<'_>, name: &str) -> Person {
    let address = email(name);
    let tokens = app.register(&address).await;
    Person { address, tokens }
}

/// Changes the user, as its second event.
async fn rename(app: &App<'_>, person: &Person, name: &str) {
    app.patch("auth/me").bearer(&person.tokens.access).json(&json!({ "name": name })).await.expect(200);
}

/// Repeats a ban until it is acknowledged.
async fn banned(server: &Server, person: &Person) {
    until("a ban is acknowledged", async || {
        let path = format!("admin/users/{}/ban", person.tokens.user_id);
        let ban = server.default_app().post(&path).bearer(&server.platform_key());
        let answer = ban.json(&json!({"reason": "a test"})).attempt().await;
        answer.is_ok_and(|answer| answer.status < 300)
    })
    .await;
}

/// Registers users until it is to stop, and returns those that were acknowledged.
async fn registered(server: &Server, stop: &AtomicBool) -> Vec<String> {
    let mut users = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let body = json!({"email": email("load"), "password": PASSWORD});
        let answer = server.default_app().post("auth/register").json(&body).attempt().await;
        if let Ok(answer) = answer.as_ref()
            && answer.status == 201
        {
            users.push(answer.tokens().user_id);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    users
}

/// Fails if a node lets somebody in.
async fn keeps_out(server: &Server, person: &Person) {
    let app = server.default_app();
    for answer in [
        app.me(&person.tokens.access).await,
        app.refresh(&person.tokens.refresh).await,
        app.login(&person.address, PASSWORD).await,
    ] {
        assert!(matches!(answer.status, 401 | 403 | 503), "{}: {}", answer.status, answer.text);
    }
}

async fn is_ready(server: &Server) -> bool {
    server.get("/readyz").attempt().await.is_ok_and(|answer| answer.status == 200)
}

/// Waits until feed, audit log and list of users of a node are what the log has, and returns the log.
async fn shows_the_log(server: &Server, log: impl Fn() -> Vec<(u64, String)>) {
    let key = server.platform_key();
    let shown = async || -> Option<()> {
        let (log, app) = (log(), server.default_app());
        let feed = all(server, "/v1/events?limit=200").await?;
        let ids = |events: &[Value]| -> Vec<(u64, String)> {
            let id = |it: &Value| {
                (it["position"].as_u64().unwrap_or(0), it["id"].as_str().unwrap_or("").to_owned())
            };
            events.iter().map(id).collect()
        };
        if ids(&feed) != log {
            return None;
        }
        assert_gapless(&feed);
        let audit: BTreeSet<_> =
            ids(&all(server, &app.path("audit/events?limit=200")).await?).into_iter().collect();
        let expected: Vec<Value> = feed.iter().filter(|it| it["appid"] == "default").cloned().collect();
        if audit != ids(&expected).into_iter().collect() {
            return None;
        }
        let shown = users_of(&app, &key).await?;
        let banned: BTreeSet<&str> = of_type(&expected, "UserBanned")
            .iter()
            .filter_map(|it| it["subject"].as_str()?.strip_prefix("user-"))
            .collect();
        let logged = of_type(&expected, "UserRegistered");
        let logged: BTreeSet<(String, bool)> = logged
            .iter()
            .filter_map(|it| it["data"]["user_id"].as_str())
            .map(|id| (id.to_owned(), banned.contains(id)))
            .collect();
        (shown == logged).then_some(())
    };
    until("a node shows the log", async || shown().await.is_some()).await;
}

/// All users of an app, and whether they are banned; nothing if the node does not answer.
async fn users_of(app: &App<'_>, key: &str) -> Option<BTreeSet<(String, bool)>> {
    let mut users = BTreeSet::new();
    for offset in (0..).step_by(200) {
        let page = app.get(&format!("admin/users?limit=200&offset={offset}")).bearer(key).attempt().await;
        let page = page.ok().filter(|page| page.status == 200)?.json();
        let items = page["items"].as_array()?;
        let user = |it: &Value| Some((it["id"].as_str()?.to_owned(), it["banned"] == true));
        users.extend(items.iter().filter_map(user));
        if items.len() < 200 {
            break;
        }
    }
    Some(users)
}

/// All items of a list of events, or nothing if the node does not answer.
async fn all(server: &Server, path: &str) -> Option<Vec<Value>> {
    let mut items: Vec<Value> = Vec::new();
    loop {
        let after = items.last().map_or(0, |event| event["position"].as_u64().unwrap_or(0));
        let page = server.get(format!("{path}&after={after}")).bearer(&server.platform_key()).attempt().await;
        let page = page.ok().filter(|page| page.status == 200)?.json();
        let more = page["items"].as_array()?.clone();
        if more.is_empty() {
            return Some(items);
        }
        items.extend(more);
    }
}

/// What the journal of a database has.
fn log_of(postgres: &Postgres, url: &str) -> Vec<(u64, String)> {
    let rows = postgres.psql(url, "SELECT position, id FROM watchword.events ORDER BY position");
    let row = |line: &str| {
        let (position, id) = line.split_once('|').expect("two columns");
        (position.parse().expect("a number"), id.to_owned())
    };
    rows.lines().map(row).collect()
}

/// The ids of the messages of a stream, with their sequences.
async fn bus_of(url: &str, stream: &str) -> Vec<(u64, String)> {
    let client = async_nats::connect(url).await.expect("NATS is there");
    let Ok(stream) = jetstream::new(client).get_stream(stream).await else { return vec![] };
    let state = &stream.cached_info().state;
    let mut ids = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let Ok(message) = stream.get_raw_message(sequence).await else { return vec![] };
        let id = message.headers.get("Nats-Msg-Id").map(|id| id.as_str().to_owned());
        ids.push((sequence, id.unwrap_or_default()));
    }
    ids
}

/// An asynchronous replica is promoted that lacks the newest events. The other node has later versions of users in
/// memory than there are, and then the same versions with another content.
#[tokio::test(flavor = "multi_thread")]
async fn no_node_decides_on_what_a_promoted_replica_lacks() {
    let mut random = Random::new();
    for _ in 0..rounds() {
        let mut old = Postgres::start();
        let database = old.database();
        let name = database.rsplit_once('/').expect("a path").1.to_owned();
        let new = old.replica();
        let switch = Switch::to(old.port()).await;
        let url = switch.url(&database);
        let apart = [("WATCHWORD_READ_MODELS_URL", "sqlite:read-models.db")];
        let nats = Nats::start();
        let nats_url = nats.url();
        let bus = [("WATCHWORD_NATS_URL", nats_url.as_str())];
        let both = [bus, apart].concat();
        let (one, two) = tokio::join!(node(&url, &bus), node(&url, &both));
        let (here, there) = (one.default_app(), two.default_app());
        let (ada, eve) = (register(&here, "ada").await, register(&here, "eve").await);
        old.wait_for(&new);
        new.hold_back();

        // What is acknowledged from here on is lost.
        rename(&here, &ada, "Ada").await;
        here.ban(&eve.tokens.user_id).await;
        for _ in 0..5 {
            register(&there, "grace").await;
        }
        for server in [&one, &two] {
            server.default_app().me(&ada.tokens.access).await.expect(200);
            server.default_app().me(&eve.tokens.access).await.expect_refusal();
        }
        let (key, all) = (two.platform_key(), log_of(&old, &database));
        let lost = all.last().expect("events").clone();
        let feed = two.get(format!("/v1/events?after={}", lost.0)).bearer(&key);
        let feed = feed.header("accept", "text/event-stream").stream().await;
        let epoch = feed.headers()["journal-epoch"].clone();
        until("the bus has what will be lost", async || bus_of(&nats_url, "WATCHWORD").await == all).await;
        random.moment(Duration::from_millis(300)).await;
        let stalls = stalls::Watch::start();
        old.crash();
        let (url, stop) = (new.url(&name), AtomicBool::new(false));
        let begun = Instant::now();
        let failover = async {
            new.promote();
            switch.turn(new.port());
            switch.cut();
            // The second event of this user is another one now.
            banned(&one, &ada).await;
            keeps_out(&two, &ada).await;
            for server in [&one, &two] {
                until("a node is ready", async || is_ready(server).await).await;
                keeps_out(server, &ada).await;
                server.says("the journal went back").await;
                // In the log there is no ban.
                server.default_app().login(&eve.address, PASSWORD).await.expect(200);
            }
            stop.store(true, Ordering::Relaxed);
        };
        // Whatever is acknowledged from here on, is on the new server.
        let ((), by_one, by_two) = tokio::join!(failover, registered(&one, &stop), registered(&two, &stop));
        let events = one.events().await;
        let logged = of_type(&events, "UserRegistered");
        for user in by_one.iter().chain(&by_two) {
            assert!(
                logged.iter().any(|it| it["data"]["user_id"] == user.as_str()),
                "{user} was acknowledged"
            );
        }
        println!("{} registrations during the failover", by_one.len() + by_two.len());
        for server in [&one, &two] {
            shows_the_log(server, || log_of(&new, &url)).await;
        }
        let log = log_of(&new, &url);
        until("the bus has the log", async || bus_of(&nats_url, "WATCHWORD").await == log_of(&new, &url))
            .await;
        let took = begun.elapsed();
        println!("healed after {took:?}");
        let still: Duration = stalls.stop().iter().map(|(from, to)| *to - *from).sum();
        assert!(
            took.saturating_sub(still) <= HEALED,
            "{took:?}, of which the machine stood still for {still:?}"
        );
        // What the journal lost is kept for whoever has to look.
        let kept: Vec<String> =
            bus_of(&nats_url, "WATCHWORD-LOST").await.into_iter().map(|(_, id)| id).collect();
        let gone: Vec<String> =
            all.iter().filter(|event| !log.contains(event)).map(|(_, id)| id.clone()).collect();
        assert_eq!(kept, gone);
        // And whoever reads events learns of it, live and later.
        let told = feed.text().await.expect("the stream has ended");
        assert!(told.contains("event: JournalWentBack") && told.contains(&lost.1), "{told}");
        let page = one.get("/v1/events?limit=1").bearer(&key).await.expect(200);
        let events = one.events().await;
        let losses = of_type(&events, "JournalWentBack");
        let newest = losses.last().expect("it is recorded");
        assert_ne!(page.header("journal-epoch"), epoch.to_str().ok());
        assert_eq!(page.header("journal-epoch"), newest["id"].as_str());
        assert!(losses.iter().any(|loss| loss["data"]["lost_event"] == lost.1.as_str()), "{losses:?}");
        for server in [&one, &two] {
            let metrics = server.metrics().await;
            let line = metrics.lines().find(|line| line.starts_with("watchword_journal_went_back_total"));
            assert_eq!(line, Some("watchword_journal_went_back_total 1"));
        }
    }
}

/// A replica that has everything is promoted while the old server still answers, and a node keeps its connections to that:
/// it does not let in whom the other node keeps out.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_the_former_primary_leaves_it() {
    for _ in 0..rounds() {
        let old = Postgres::start();
        let database = old.database();
        let new = old.replica();
        let (left, right) = (Switch::to(old.port()).await, Switch::to(old.port()).await);
        let (left_url, right_url) = (left.url(&database), right.url(&database));
        let apart = [("WATCHWORD_READ_MODELS_URL", "sqlite:read-models.db")];
        let (one, two) = tokio::join!(node(&left_url, &apart), node(&right_url, &apart));
        let ada = register(&one.default_app(), "ada").await;
        two.default_app().me(&ada.tokens.access).await.expect(200);
        old.wait_for(&new);
        new.promote();
        left.turn(new.port());
        right.turn(new.port());
        right.cut();
        let begun = Instant::now();
        banned(&two, &ada).await;
        // Its connections still lead to the old server, which knows of no ban.
        until("the node has left the former primary", async || {
            one.default_app().me(&ada.tokens.access).await.status == 401
        })
        .await;
        println!("left after {:?}", begun.elapsed());
        one.says("connections to the previous one are closed").await;
        for _ in 0..20 {
            keeps_out(&one, &ada).await;
        }
        assert!(!one.log().contains("went back"), "nothing was lost");
        // And it writes to the new one.
        let eve = register(&one.default_app(), "eve").await;
        two.default_app().me(&ada.tokens.access).await.expect_refusal();
        // So are the keys of people: each node can open what the other has sealed.
        two.default_app().login(&eve.address, PASSWORD).await.expect(200);
        let grace = register(&two.default_app(), "grace").await;
        one.default_app().login(&grace.address, PASSWORD).await.expect(200);
    }
}

fn in_doubt(answer: Result<Answer, reqwest::Error>) {
    answer.expect("the server answers").problem(503, "outcome_unknown");
}

/// An administrator cancels the wait for a synchronous replica that does not answer: the request is not answered as if the
/// replica had it, nor is its repetition, at this or another node or after a restart, until it has. The same holds for what a
/// node finds done already, where there is nothing to repeat.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_for_a_replica_is_no_acknowledgement() {
    let old = Postgres::start();
    let database = old.database();
    let new = old.synchronous_replica();
    let (mut one, two) = tokio::join!(node(&database, &[]), node(&database, &[]));
    // The answers in between take longer than the default.
    let id = one.create_app(json!({"refresh_grace": 60})).await.id;
    let ada = register(&one.app(&id), "ada").await;

    for (round, ending) in ["pg_cancel_backend", "pg_terminate_backend"].into_iter().enumerate() {
        let (here, there) = (one.app(&id), two.app(&id));
        let eve = register(&here, "eve").await;
        new.signal("STOP");
        let key = email("key");
        let login =
            |app: &App<'_>| app.login(&ada.address, PASSWORD).header("idempotency-key", &key).attempt();
        let refresh = |app: &App<'_>| app.refresh(&eve.tokens.refresh).attempt();
        let first = tokio::spawn(login(&here));
        until("an append waits for the replica", async || old.waiting_for_replica() > 0).await;
        old.end_waits_for_replica(ending);
        in_doubt(first.await.expect("no panic"));
        // It is in the journal, but the replica does not have it.
        in_doubt(login(&there).await);
        in_doubt(login(&here).await);
        if round == 0 {
            let first = tokio::spawn(refresh(&there));
            until("an append waits for the replica", async || old.waiting_for_replica() > 0).await;
            old.end_waits_for_replica(ending);
            in_doubt(first.await.expect("no panic"));
            in_doubt(refresh(&here).await);
            one.kill();
            // It is not ready: no append would be taken.
            one.up_open().await;
            in_doubt(login(&one.app(&id)).await);
        }
        new.signal("CONT");
        for app in [&one.app(&id), &there] {
            until("the replica has it", async || login(app).await.is_ok_and(|answer| answer.status == 200))
                .await;
            refresh(app).await.expect("the server answers").expect(200);
        }
    }
    let events = one.events().await;
    let logins = of_type(&events, "SessionStarted").len() - of_type(&events, "UserRegistered").len();
    assert_eq!((logins, of_type(&events, "SessionRefreshed").len()), (2, 2), "each once");
}
