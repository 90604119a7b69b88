//! kill -9 of the service at any moment of its work: before an append, after it, after a publication, in the middle of
//! a projector's batch.

use std::time::Duration;

use tests::workload::History;
use tests::{Bus, checker};

use crate::{Random, server_with};

const ROUNDS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_killed_under_load_again_and_again() {
    let mut random = Random::new();
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    for _ in 0..ROUNDS {
        let prefix = server.events().await;
        history
            .during(&[&server], async |load| {
                load.done(30).await;
                random.moment(Duration::from_millis(80)).await;
                server.signal("KILL");
            })
            .await;
        server.kill();
        server.up().await;
        assert_eq!(server.events().await[..prefix.len()], prefix, "an old prefix changed");
    }
    checker::check(&mut server, Some(&bus), &history).await;
}
