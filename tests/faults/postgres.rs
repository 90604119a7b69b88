//! The journal in PostgreSQL: the server is stopped and crashes under load, sessions are ended, replies are lost, and a
//! node is killed.

use std::fs;
use std::time::Duration;

use test_services::{Fault, Postgres, Proxy};
use tests::workload::History;
use tests::{Bus, Server, checker};

use crate::{Random, SETTINGS};

/// What the nodes of a cluster share besides [`SETTINGS`].
pub fn cluster<'a>(database: &'a str, nats: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("WATCHWORD_JOURNAL_URL", database),
        ("WATCHWORD_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        // The issuer of all tokens.
        ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
        ("WATCHWORD_NATS_URL", nats),
    ]
}

/// An additional node on the same journal, with its own read models.
pub async fn fresh_node(database: &str, bus: &Bus, other: &Server) -> Server {
    let own = [("WATCHWORD_READ_MODELS_URL", "sqlite:read-models.db")];
    let node = Server::start_with(&[&SETTINGS[..], &cluster(database, &bus.url()), &own].concat()).await;
    // A server writes the key only for a new journal.
    fs::write(node.data().join("admin.key"), other.platform_key()).expect("it can be written");
    node
}

/// A node on a database.
pub async fn node(database: &str, bus: &Bus) -> Server {
    Server::start_with(&[&SETTINGS[..], &cluster(database, &bus.url())].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_stopped_and_crashes_under_load() {
    let mut random = Random::new();
    let (mut postgres, bus) = (Postgres::start(), Bus::start());
    let mut server = node(&postgres.database(), &bus).await;
    let mut history = History::new(&server).await;
    for round in 0..3 {
        history
            .during(&[&server], async |load| {
                load.done(30).await;
                random.moment(Duration::from_millis(80)).await;
                if round == 0 {
                    postgres.stop();
                } else {
                    postgres.crash();
                }
                // Nothing is acknowledged meanwhile; waiting requests get an answer when the server is back.
                random.moment(Duration::from_secs(2)).await;
                postgres.up();
                load.done(30).await;
            })
            .await;
    }
    checker::check(&mut server, Some(&bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_session_with_postgresql_is_ended_under_load() {
    let mut random = Random::new();
    let (postgres, bus) = (Postgres::shared(), Bus::start());
    let database = postgres.database();
    let mut server = node(&database, &bus).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            for _ in 0..5 {
                load.done(20).await;
                random.moment(Duration::from_millis(80)).await;
                postgres.psql(
                    &database,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                );
            }
            load.done(20).await;
        })
        .await;
    checker::check(&mut server, Some(&bus), &history).await;
}

/// The network loses the reply to a commit, or the request itself.
#[tokio::test(flavor = "multi_thread")]
async fn replies_and_requests_are_lost_under_load() {
    let (postgres, bus) = (Postgres::shared(), Bus::start());
    let proxy = Proxy::start(postgres.port()).await;
    let mut server = node(&proxy.url(&postgres.database()), &bus).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            for round in 0..10 {
                load.done(10).await;
                let fault = if round % 3 == 2 { Fault::LoseRequest } else { Fault::LoseReply };
                proxy.break_next(fault).await;
                load.done(10).await;
                assert!(proxy.is_done().await, "an append met the fault");
            }
        })
        .await;
    assert!(history.all_were_answered(), "a group's outcome is determined before any answer");
    checker::check(&mut server, Some(&bus), &history).await;
}

/// A projector sleeps in its transaction for longer than PostgreSQL allows: the session is ended, and the batch applied
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_sleeps_in_its_transaction() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let (database, url) = (postgres.database(), bus.url());
    // One of them, for seven seconds.
    let own = [("FAILPOINTS", "asleep-in-projection=40*off->1*return(7000)")];
    let mut server = Server::start_with(&[&SETTINGS[..], &cluster(&database, &url), &own].concat()).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(100).await;
            crate::until("PostgreSQL ends the session", async || {
                postgres.log().contains("idle-in-transaction timeout")
            })
            .await;
            load.done(20).await;
        })
        .await;
    assert!(history.all_were_answered(), "logins do not depend on the read models");
    server.set_environment("FAILPOINTS", "");
    checker::check(&mut server, Some(&bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_nodes_is_killed_under_load() {
    let (postgres, bus) = (Postgres::shared(), Bus::start());
    let database = postgres.database();
    let (first, mut second) = tokio::join!(node(&database, &bus), node(&database, &bus));
    let mut history = History::new(&first).await;
    for _ in 0..3 {
        history
            .during(&[&first, &second], async |load| {
                load.done(40).await;
                second.signal("KILL");
                load.failed(1).await;
                load.done(20).await;
            })
            .await;
        second.kill();
        second.up().await;
    }
    let fresh = fresh_node(&database, &bus, &first).await;
    checker::check_nodes(&[&first, &second], &fresh, Some(&bus), &history).await;
}
