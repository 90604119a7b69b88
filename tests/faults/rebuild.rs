//! Read models are rebuilt while the log grows, and rebuilds are killed.
//!
//! In a release build and at a real pace, with what was reached:
//!
//! ```text
//! REBUILD_PACE=500 REBUILD_SECONDS=60 cargo test --release -p tests --test faults at_a_steady_pace -- --nocapture --test-threads 1
//! ```
//!
//! `FAULTS_ROUNDS=100` kills so many rebuilds on each store.

use std::env;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use test_services::Postgres;
use tests::paced::Pace;
use tests::workload::History;
use tests::{Bus, Server, checker, email};
use tokio::task::spawn_blocking;

use crate::{Random, server_with};

const CHEAP: [(&str, &str); 1] = [("WATCHWORD_ARGON2", "m=1024,t=1,p=1")];
/// Slow enough that a rebuild is killed at its work more often than at its start.
const EVENTS_PER_SECOND: &str = "100";

#[tokio::test(flavor = "multi_thread")]
async fn read_models_are_built_anew_under_load() {
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(600).await).await;
    checker::forget_read_models(&mut server).await;
    server.up().await;
    history.during(&[&server], async |load| load.done(60).await).await;
    assert!(history.all_were_answered(), "logins do not depend on the read models");
    checker::check(&mut server, Some(&bus), &history).await;
}

/// Rebuilds all read models of the first node, over and over, while the nodes serve at a steady pace.
async fn rebuilt_at_a_steady_pace(nodes: &[&Server]) {
    let app = nodes[0].create_app(json!({})).await.id;
    let (is_over, mut rebuilt) = (AtomicBool::new(false), 0_u32);
    let load = async {
        Pace::given().run(nodes, &app).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let rebuilds = async {
        while !is_over.load(Ordering::Relaxed) {
            let mut command = nodes[0].command(&["rebuild", "--json", "--all"]);
            let output = spawn_blocking(move || command.output().expect("runs")).await.expect("ends");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            rebuilt += 1;
        }
    };
    tokio::join!(load, rebuilds);
    println!("{rebuilt} rebuilds of all read models");
    assert!(rebuilt > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_or_is_stale_at_a_steady_pace_in_files() {
    let mut server = Server::start_with(&CHEAP).await;
    rebuilt_at_a_steady_pace(&[&server]).await;
    server.terminate().await;
    equal(&server);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_or_is_stale_at_a_steady_pace_on_two_nodes() {
    let database = Postgres::shared().database();
    let (one, two) = tokio::join!(node(&database), node(&database));
    rebuilt_at_a_steady_pace(&[&one, &two]).await;
    equal(&one);
}

/// A node on a database, which has the read models too.
async fn node(database: &str) -> Server {
    let shared = [
        ("WATCHWORD_JOURNAL_URL", database),
        ("WATCHWORD_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
    ];
    Server::start_with(&[&CHEAP[..], &shared].concat()).await
}

/// Fails unless all read models are what the events say.
fn equal(server: &Server) {
    let output = server.command(&["rebuild", "--json", "--all", "--verify"]).output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::String(told));
    assert!(
        output.status.success() && compared["compared"].as_array().map(Vec::len) == Some(8),
        "{compared}"
    );
}

/// How often a rebuild is killed.
fn rounds() -> u32 {
    env::var("FAULTS_ROUNDS").map_or(10, |rounds| rounds.parse().expect("FAULTS_ROUNDS is a number"))
}

/// Kills rebuilds at random moments, drawn from the whole time that one takes. `free` is done before each, so that it need not
/// wait for the one that was killed.
async fn killed_at_random_moments(server: &Server, free: impl Fn()) {
    let all = |throttle: &str| {
        let mut command = server.command(&["rebuild", "--all", "--throttle", throttle]);
        command.stdout(Stdio::null());
        command
    };
    let (mut random, began) = (Random::new(), Instant::now());
    assert!(all(EVENTS_PER_SECOND).status().expect("runs").success());
    let whole = began.elapsed();
    let (mut killed, mut ended, mut refused) = (0, 0, 0);
    for _ in 0..rounds() {
        free();
        let mut child = all(EVENTS_PER_SECOND).spawn().expect("starts");
        random.moment(whole).await;
        let _ = child.kill();
        *match child.wait().expect("ends").code() {
            None => &mut killed,
            Some(0) => &mut ended,
            // PostgreSQL was still at work for the one before.
            Some(_) => &mut refused,
        } += 1;
        equal(server);
    }
    println!("one takes {whole:?}: {killed} were killed, {ended} had ended before, {refused} had not begun");
    assert!(killed > 0, "{ended} had ended, {refused} had not begun");
    tests::until("the last one is done", async || {
        free();
        all("1000000").output().expect("runs").status.success()
    })
    .await;
    equal(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_killed_changes_nothing_and_goes_on_in_files() {
    let mut server = Server::start_with(&CHEAP).await;
    register(&server, 100).await;
    server.terminate().await;
    killed_at_random_moments(&server, || ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_killed_changes_nothing_and_goes_on_in_postgresql() {
    let database = Postgres::shared().database();
    let server = node(&database).await;
    register(&server, 100).await;
    // Its leases end after ten seconds by themselves.
    let end_leases = || {
        let ended = "UPDATE watchword_read.checkpoints SET until = clock_timestamp() - interval '1 second'
                     WHERE holder LIKE 'rebuild-%'";
        Postgres::shared().psql(&database, ended);
    };
    killed_at_random_moments(&server, end_leases).await;
}

async fn register(server: &Server, count: usize) {
    let app = server.create_app(json!({})).await;
    for _ in 0..count {
        app.register(&email("ada")).await;
    }
}
