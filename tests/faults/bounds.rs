//! Whatever the database does, nobody waits for longer than the bound, and the nodes are back without help: its host dies
//! without a word, connections stand still, the server becomes read-only, its disk is full, somebody locks its tables.
//!
//! `FAULTS_ROUNDS=20` repeats what comes at a random moment that often.

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use test_services::{Disk, Postgres, Relay};
use tests::stalls::Watch;
use tests::workload::History;
use tests::{App, Bus, PASSWORD, Server, checker, email};

use crate::postgres::{cluster, fresh_node};
use crate::{Random, SETTINGS};

/// The default of `http.request_time`, and what a client on a busy machine adds to it.
pub const BOUND: Duration = Duration::from_millis(10_500);
/// After so long everything works again.
pub const BACK: Duration = Duration::from_secs(15);
/// Certain refusals come at once: no timeout is as short.
pub const AT_ONCE: Duration = Duration::from_secs(3);

pub fn rounds() -> usize {
    env::var("FAULTS_ROUNDS").map_or(2, |rounds| rounds.parse().expect("FAULTS_ROUNDS is a number"))
}

/// The longest answers, as a histogram: the seconds, and how many took so long.
pub fn assert_bounded(history: &History) {
    let mut seconds = [0_usize; 12];
    for record in &history.records {
        let took = (record.ended - record.began).as_secs();
        seconds[usize::try_from(took).expect("a small number").min(11)] += 1;
    }
    println!("answers by whole seconds: {seconds:?}");
    let late = history.late(BOUND);
    assert!(late.is_empty(), "{late:?} took longer than {BOUND:?}");
}

/// Prints the shortest, the median and the longest of these times.
pub fn print_times(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let [shortest, median, longest] = [0, times.len() / 2, times.len() - 1].map(|place| times[place]);
    println!("{what} {} times after {shortest:?} to {longest:?}, median {median:?}", times.len());
}

/// Both nodes answer again.
pub async fn are_back(servers: &[&Server], since: Instant) -> Duration {
    for server in servers {
        crate::until("the node works again", async || {
            register(&server.default_app()).await.status == 201 && server.get("/readyz").await.status == 200
        })
        .await;
    }
    since.elapsed()
}

/// Invariant y. In even rounds the host is gone for a while and then another one is at its address; in odd ones only the
/// connections that are open stand still.
#[tokio::test(flavor = "multi_thread")]
async fn inv_y_a_host_that_dies_without_a_word() {
    let mut random = Random::new();
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let relay = Relay::start(postgres.port()).await;
    let (database, url) = (relay.url(&postgres.database()), bus.url());
    let environment = [&SETTINGS[..], &cluster(&database, &url)].concat();
    let (first, second) = tokio::join!(Server::start_with(&environment), Server::start_with(&environment));
    let nodes = [&first, &second];
    let mut history = History::new(&first).await;
    let mut times = vec![];
    for round in 0..rounds() {
        let back = history
            .during(&nodes, async |load| {
                load.done(30).await;
                random.moment(Duration::from_millis(300)).await;
                let watch = Watch::start();
                let since = if round % 2 == 0 {
                    relay.freeze();
                    random.moment(Duration::from_secs(12)).await;
                    relay.lead_to(postgres.port());
                    Instant::now()
                } else {
                    relay.freeze_open();
                    Instant::now()
                };
                let back = are_back(&nodes, since).await;
                let stood_still = !watch.stop().is_empty();
                assert!(back < BACK || stood_still, "after {back:?}");
                load.done(30).await;
                back
            })
            .await;
        times.push(back);
    }
    print_times("back", &mut times);
    assert_bounded(&history);
    let fresh = fresh_node(&database, &bus, &first).await;
    checker::check_nodes(&nodes, &fresh, Some(&bus), &history).await;
}

/// Invariant y. A node does not reach the journal, but renews its leases in the database of the read models.
#[tokio::test(flavor = "multi_thread")]
async fn inv_y_a_node_that_does_not_reach_the_journal_leaves_the_projectors_to_others() {
    let (postgres, bus) = (Postgres::shared(), Bus::start());
    let relay = Relay::start(postgres.port()).await;
    let (database, url) = (postgres.database(), bus.url());
    let through = relay.url(&database);
    let own = [("WATCHWORD_READ_MODELS_URL", database.as_str())];
    let [cut_off, other] =
        [&through, &database].map(|journal| [&SETTINGS[..], &cluster(journal, &url), &own].concat());
    let (cut_off, other) = tokio::join!(Server::start_with(&cut_off), Server::start_with(&other));
    let mut history = History::new(&cut_off).await;
    for round in 0..rounds().div_ceil(4) {
        history.during(&[&cut_off, &other], async |load| load.done(10).await).await;
        relay.freeze();
        let frozen = Instant::now();
        history.during(&[&other], async |load| load.done(20).await).await;
        let head = other.events().await.len() as u64;
        checker::caught_up(&other, head).await;
        println!("round {round}: the other node has taken over after {:?}", frozen.elapsed());
        relay.lead_to(postgres.port());
        are_back(&[&cut_off], Instant::now()).await;
    }
    assert_bounded(&history);
    let fresh = fresh_node(&database, &bus, &other).await;
    checker::check_nodes(&[&cut_off, &other], &fresh, Some(&bus), &history).await;
}

/// A certain refusal is answered at once, with its code, and the node is not ready; then it heals by itself.
async fn is_refused_and_heals(
    server: &Server,
    state: &str,
    code: &str,
    longest: Duration,
    heal: impl AsyncFnOnce(),
) {
    let app = server.default_app();
    let refused = async |what: &str, answer: tests::Call| {
        let (watch, begun) = (Watch::start(), Instant::now());
        let answer = answer.await;
        // What the writer took just before its caller's time was over may wait behind the same lock.
        let said = answer.json()["code"].as_str().map(str::to_owned).unwrap_or_default();
        let is_named = said == code || (state == "locked" && said == "outcome_unknown");
        assert!(answer.status == 503 && is_named, "{what}: {}", answer.text);
        let took = begun.elapsed();
        let stood_still = !watch.stop().is_empty();
        assert!(took < longest || stood_still, "{what}: {took:?}");
    };
    crate::until("/readyz says so", async || {
        let answer = server.readiness().await;
        answer.status == 503 && answer.json()["checks"]["journal"]["state"] == state
    })
    .await;
    refused("a registration", register(&app)).await;
    refused("another", register(&app)).await;
    heal().await;
    crate::until("it is ready again", async || server.get("/readyz").await.status == 200).await;
    register(&app).await.expect(201);
}

fn register(app: &App<'_>) -> tests::Call {
    app.post("auth/register").json(&json!({"email": email("ada"), "password": PASSWORD}))
}

/// As during a failover, or when an administrator says so.
#[tokio::test(flavor = "multi_thread")]
async fn inv_y_a_read_only_server_is_said_at_once() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let database = postgres.database();
    let server = crate::postgres::node(&database, &bus).await;
    let tokens = server.default_app().register(&email("eve")).await;
    for _ in 0..rounds() {
        postgres.set_read_only(true);
        // It is known before anybody asks whether the node is ready.
        crate::until("it is read-only", async || register(&server.default_app()).await.status == 503).await;
        let (watch, begun) = (Watch::start(), Instant::now());
        let refreshed = server.default_app().refresh(&tokens.refresh).await;
        let took = begun.elapsed();
        refreshed.problem(503, "storage_read_only");
        let stood_still = !watch.stop().is_empty();
        assert!(took < AT_ONCE || stood_still, "{took:?}");
        let heal = async || postgres.set_read_only(false);
        is_refused_and_heals(&server, "read_only", "storage_read_only", AT_ONCE, heal).await;
    }
    server.default_app().refresh(&tokens.refresh).await.expect(200);
}

/// Nobody has to append to find out that somebody has locked the tables.
#[tokio::test(flavor = "multi_thread")]
async fn inv_y_a_lock_on_the_turn_is_known_without_an_append() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let database = postgres.database();
    let mut server = crate::postgres::node(&database, &bus).await;
    let mut neighbour = PgConnection::connect(&database).await.expect("connects");
    neighbour.execute("SET application_name = 'neighbour'").await.expect("sets");
    neighbour.execute("BEGIN; LOCK TABLE watchword.turn").await.expect("locks");
    let heal = async || {
        neighbour.execute("ROLLBACK").await.expect("unlocks");
    };
    is_refused_and_heals(&server, "locked", "unavailable", BOUND, heal).await;

    // A start says whose lock it waits for.
    server.terminate().await;
    neighbour.execute("BEGIN; LOCK TABLE watchword.format").await.expect("locks");
    server.up_alive().await;
    server.says("waiting for a lock that process").await;
    assert!(server.log().contains("(neighbour, from 127.0.0.1"), "{}", server.log());
    neighbour.execute("ROLLBACK").await.expect("unlocks");
    crate::until("it is ready", async || server.get("/readyz").await.status == 200).await;
    register(&server.default_app()).await.expect(201);
}

/// A node on a database some of whose tables are on a small disk.
struct Tight {
    server: Server,
    postgres: Postgres,
    _bus: Bus,
    // Last: the server has files on it.
    disk: Disk,
}

impl Tight {
    /// With these statements before and after the start of the node.
    async fn start(create: &str, move_to_it: &str) -> Self {
        let (postgres, bus, disk) = (Postgres::start(), Bus::start(), Disk::new(64));
        let folder = disk.path().join("tables");
        std::fs::create_dir(&folder).expect("it can be made");
        let owner = Command::new("chown").arg("--reference").arg(postgres.data()).arg(&folder).status();
        assert!(owner.expect("chown runs").success());
        let (admin, location) = (postgres.url("postgres"), folder.display());
        postgres.psql(&admin, &format!("CREATE TABLESPACE small LOCATION '{location}'"));
        postgres.psql(&admin, create);
        let database = postgres.url("tight");
        let server = crate::postgres::node(&database, &bus).await;
        postgres.psql(&database, move_to_it);
        register(&server.default_app()).await.expect(201);
        disk.fill(0);
        Self { server, postgres, _bus: bus, disk }
    }

    /// The log of the server has room, but the tables have none: nobody has to append to find out.
    async fn is_refused(&self) {
        let app = self.server.default_app();
        // There may be room in a page for some more.
        crate::until("it is full", async || register(&app).await.status == 503).await;
        let heal = async || self.disk.free();
        is_refused_and_heals(&self.server, "full", "storage_full", AT_ONCE, heal).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_y_a_full_tablespace_is_known_without_an_append() {
    Tight::start("CREATE DATABASE tight TABLESPACE small", "SELECT").await.is_refused().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_y_a_full_tablespace_of_the_events_alone_is_known_without_an_append() {
    let move_to_it = "ALTER TABLE watchword.events SET TABLESPACE small";
    Tight::start("CREATE DATABASE tight", move_to_it).await.is_refused().await;
}

/// Commands do not need them, and are answered; but the node is not ready, and names the projectors that stand still.
#[tokio::test(flavor = "multi_thread")]
async fn read_models_without_room_are_named() {
    let move_to_it = "DO $$ DECLARE name text; BEGIN
         FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'watchword_read' LOOP
             EXECUTE format('ALTER TABLE watchword_read.%I SET TABLESPACE small', name);
         END LOOP;
     END $$";
    let tight = Tight::start("CREATE DATABASE tight", move_to_it).await;
    let app = tight.server.default_app();
    crate::until("a projector is named", async || {
        register(&app).await.expect(201);
        let answer = tight.server.readiness().await;
        let checks = answer.json()["checks"].clone();
        let is_behind = |it: &serde_json::Value| it["ok"] == false;
        answer.status == 503
            && checks["journal"]["ok"] == true
            && checks["projectors"].as_array().is_some_and(|all| all.iter().any(is_behind))
    })
    .await;
    assert!(tight.postgres.log().contains("No space left on device"), "{}", tight.postgres.log());
    tight.disk.free();
    crate::until("it is ready again", async || tight.server.get("/readyz").await.status == 200).await;
}
