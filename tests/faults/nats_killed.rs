//! nats-server is killed or stopped under load, and restarted.

use std::time::Duration;

use tests::workload::History;
use tests::{Bus, checker};

use crate::{Random, server_with};

const ROUNDS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn nats_goes_under_load_and_comes_again() {
    let mut random = Random::new();
    let mut bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    for round in 0..ROUNDS {
        history
            .during(&[&server], async |load| {
                load.done(30).await;
                random.moment(Duration::from_millis(80)).await;
                if round == 1 {
                    bus.stop();
                } else {
                    bus.kill();
                }
                load.done(30).await;
                bus.up();
                load.done(30).await;
            })
            .await;
    }
    assert!(history.all_were_answered(), "logins do not depend on the bus");
    checker::check(&mut server, Some(&bus), &history).await;
}
