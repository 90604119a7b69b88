//! SIGTERM and SIGHUP under load: started requests are finished, and what was acknowledged is stored.

use std::time::{Duration, Instant};

use tests::workload::History;
use tests::{Bus, checker};

use crate::{Random, server_with};

const ROUNDS: [&str; 3] = ["TERM", "HUP", "TERM"];
/// `shutdown_timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_asked_to_stop_under_load() {
    let mut random = Random::new();
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    for signal in ROUNDS {
        let asked = history
            .during(&[&server], async |load| {
                load.done(40).await;
                random.moment(Duration::from_millis(80)).await;
                server.signal(signal);
                Instant::now()
            })
            .await;
        let status = server.ended().await;
        assert!(status.success() && asked.elapsed() < TIMEOUT, "{status} after {:?}", asked.elapsed());
        server.up().await;
    }
    checker::check(&mut server, Some(&bus), &history).await;
}
