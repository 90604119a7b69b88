//! Webhooks: their sender is killed, dies around a message, is suspended and replaced by another node. Every event arrives, in
//! the order of its stream; what is repeated is the same.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use test_services::Postgres;
use tests::{App, Message, Receiver, Server, assert_ordered, email, webhook_positions};

use crate::postgres::cluster;
use crate::steps::ABORTED;
use crate::{Random, SETTINGS, until};

const ALLOWED: (&str, &str) = ("WATCHWORD_ALLOWED_WEBHOOK_NETWORKS", "127.0.0.0/8");
const QUICK: [(&str, &str); 3] =
    [ALLOWED, ("WATCHWORD_WEBHOOKS_FIRST_PAUSE", "1"), ("WATCHWORD_WEBHOOKS_LONGEST_PAUSE", "1")];

/// Registers people, some at a time, and logs each in and out: several events in each of many streams.
async fn work(app: &App<'_>, people: usize) {
    for _ in 0..people.div_ceil(10) {
        let some = (0..10).map(async |_| {
            let user = app.register(&email("ada")).await;
            app.refresh(&user.refresh).await.expect(200);
            app.post("auth/logout").bearer(&user.access).await;
        });
        join_all(some).await;
    }
}

/// Waits until every event has arrived, and checks their order, and that what came twice is the same.
async fn all_arrive(server: &Server, app: &App<'_>, receiver: &Receiver, after: u64) -> Vec<Message> {
    let mut expected = webhook_positions(server, app, after).await;
    until("every event arrives", async || {
        for message in receiver.accepted() {
            expected.remove(&message.position());
        }
        expected.is_empty()
    })
    .await;
    let messages = receiver.accepted();
    let mut bodies = BTreeMap::new();
    for message in &messages {
        let before = bodies.entry(message.position()).or_insert_with(|| message.body.clone());
        assert_eq!(*before, message.body);
    }
    println!("{} events in {} messages", bodies.len(), messages.len());
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_is_killed_again_and_again() {
    let (mut random, receiver) = (Random::new(), Receiver::start().await);
    let mut server = Server::start_with(&[&SETTINGS[..], &QUICK[..]].concat()).await;
    let app_id = server.create_app(json!({})).await.id;
    server.app(&app_id).webhook(&receiver.url(), &["*"]).await;
    let after = server.events().await.len() as u64;
    for _ in 0..4 {
        let seen = receiver.accepted().len();
        let app = server.app(&app_id);
        tokio::select! {
            () = work(&app, 200) => {}
            () = async {
                until("some arrive", async || receiver.accepted().len() >= seen + 60).await;
                random.moment(Duration::from_millis(50)).await;
            } => {}
        }
        server.kill();
        server.up().await;
    }
    let app = server.app(&app_id);
    work(&app, 10).await;
    assert_ordered(&all_arrive(&server, &app, &receiver, after).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_dies_around_a_message() {
    let receiver = Receiver::start().await;
    let mut server = Server::start_with(&[&SETTINGS[..], &QUICK[..]].concat()).await;
    let app_id = server.create_app(json!({})).await.id;
    server.app(&app_id).webhook(&receiver.url(), &["user.*"]).await;
    let after = server.events().await.len() as u64;
    for step in ["before-webhook", "after-webhook"] {
        server.terminate().await;
        server.set_environment("FAILPOINTS", &format!("{step}=3*off->return"));
        server.up().await;
        let before = receiver.accepted().len();
        let app = server.app(&app_id);
        let people = join_all((0..8).map(async |_| {
            let body = json!({"email": email("ada"), "password": tests::PASSWORD});
            app.post("auth/register").json(&body).attempt().await
        }));
        people.await;
        assert_eq!(server.ended().await.signal(), Some(ABORTED), "it died {step}");
        assert!(receiver.accepted().len() >= before + 3);
        server.set_environment("FAILPOINTS", "");
        server.up().await;
    }
    let app = server.app(&app_id);
    app.register(&email("eve")).await;
    let of_people: Vec<u64> = server
        .events()
        .await
        .iter()
        .filter(|event| event["type"] == "UserRegistered")
        .filter_map(|event| event["position"].as_u64())
        .filter(|position| *position > after)
        .collect();
    until("each arrives", async || {
        let accepted = receiver.accepted();
        of_people.iter().all(|position| accepted.iter().any(|message| message.position() == *position))
    })
    .await;
}

/// The sending node is suspended for longer than its lease and resumes in the middle of another's work; that one is killed.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_one_sends_and_the_other_takes_over() {
    let (receiver, database) = (Receiver::start().await, Postgres::shared().database());
    let shared = cluster(&database, "");
    let settings = [&SETTINGS[..], &shared[..3], &QUICK[..]].concat();
    let (first, second) = tokio::join!(Server::start_with(&settings), Server::start_with(&settings));
    let state = async |server: &Server| {
        server.get("/readyz").await.expect(200).json()["checks"]["webhooks"]["state"].clone()
    };
    until("one sends and one waits", async || {
        let states = [state(&first).await, state(&second).await];
        states.contains(&json!("running")) && states.contains(&json!("standby"))
    })
    .await;
    let (mut sender, mut other) = (first, second);
    if state(&sender).await == "standby" {
        std::mem::swap(&mut sender, &mut other);
    }
    let app_id = sender.create_app(json!({})).await.id;
    // Created on the node that does not send.
    other.app(&app_id).webhook(&receiver.url(), &["*"]).await;
    let after = sender.events().await.len() as u64;
    let (here, there) = (sender.app(&app_id), other.app(&app_id));
    tokio::join!(work(&here, 20), work(&there, 20));
    all_arrive(&other, &there, &receiver, after).await;
    let before = receiver.accepted().len();
    sender.signal("STOP");
    work(&there, 20).await;
    until("another node takes over", async || receiver.accepted().len() > before).await;
    sender.signal("CONT");
    all_arrive(&other, &there, &receiver, after).await;
    other.kill();
    let here = sender.app(&app_id);
    work(&here, 10).await;
    all_arrive(&sender, &here, &receiver, after).await;
}
