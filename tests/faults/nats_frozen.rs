//! The host of NATS dies without a word, or the connections to it that are open stand still: no request waits for it,
//! projections read the journal meanwhile, and the relay and the consumers are back without help.
//!
//! `FAULTS_ROUNDS=20` repeats it that often, at another moment each time.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use serde_json::json;
use test_services::{Postgres, Relay};
use tests::stalls::Watch;
use tests::workload::History;
use tests::{Bus, PASSWORD, Server, checker, email};

use crate::bounds::{AT_ONCE, BACK, assert_bounded, print_times, rounds};
use crate::postgres::cluster;
use crate::{Random, SETTINGS};

/// How many events the stream has.
async fn end_of_stream(bus: &Bus) -> u64 {
    let client = async_nats::connect(bus.url()).await.expect("NATS is there");
    let stream = jetstream::new(client).get_stream("WATCHWORD").await.expect("the stream is there");
    stream.cached_info().state.last_sequence
}

/// After how long the node of projections shows a new user to whoever asks for what has just been written.
async fn shown_after(server: &Server) -> Duration {
    let (app, key) = (server.default_app(), server.platform_key());
    let body = json!({"email": email("ada"), "password": PASSWORD});
    let made = app.post("auth/register").json(&body).await.expect(201);
    let begun = Instant::now();
    let shown = app.get(&format!("admin/users/{}", made.tokens().user_id)).bearer(&key);
    shown.header("consistency-token", made.consistency()).await.expect(200);
    begun.elapsed()
}

/// Invariants t and y. In even rounds the host is gone for a while and then another one is at its address; in odd ones only
/// the connections that are open stand still.
#[tokio::test(flavor = "multi_thread")]
async fn inv_t_y_a_bus_that_dies_without_a_word() {
    let (mut random, bus) = (Random::new(), Bus::start());
    let relay = Relay::start(bus.port()).await;
    let (database, nats) = (Postgres::shared().database(), format!("nats://127.0.0.1:{}", relay.port()));
    let mut server = Server::start_roles(&[&SETTINGS[..], &cluster(&database, &nats)].concat()).await;
    let mut history = History::new(&server).await;
    let mut times = vec![];
    for round in 0..rounds() {
        let back = history
            .during(&[&server], async |load| {
                load.done(30).await;
                random.moment(Duration::from_millis(300)).await;
                let watch = Watch::start();
                let mut since = Instant::now();
                if round % 2 == 0 {
                    relay.freeze();
                } else {
                    relay.freeze_open();
                }
                load.done(30).await;
                let projected = shown_after(&server).await;
                if round % 2 == 0 {
                    random.moment(Duration::from_secs(12)).await;
                    relay.lead_to(bus.port());
                    since = Instant::now();
                }
                let head = server.events().await.len() as u64;
                crate::until("the stream has it", async || end_of_stream(&bus).await >= head).await;
                let back = since.elapsed();
                let stood_still = !watch.stop().is_empty();
                println!("round {round}: projections follow after {projected:?}, the relay after {back:?}");
                assert!(projected < AT_ONCE || stood_still, "projections follow after {projected:?}");
                assert!(back < BACK || stood_still, "after {back:?}");
                back
            })
            .await;
        times.push(back);
    }
    print_times("back", &mut times);
    assert_bounded(&history);
    assert!(history.all_were_answered(), "logins do not depend on the bus");

    // Nor do the end of a process and its start.
    relay.freeze();
    let begun = Instant::now();
    assert!(server.projections_mut().terminate().await.success());
    assert!(server.terminate().await.success());
    server.up().await;
    server.projections_mut().up().await;
    println!("ended and started again in {:?}", begun.elapsed());
    history.during(&[&server], async |load| load.done(30).await).await;
    assert!(history.all_were_answered(), "a start does not depend on the bus");
    relay.lead_to(bus.port());
    checker::check(&mut server, Some(&bus), &history).await;
}
