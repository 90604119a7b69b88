//! NATS is absent when the service starts: logins do not need it. It comes later, and gets everything.

use tests::workload::History;
use tests::{Bus, checker};

use crate::{relay, server_with, until};

#[tokio::test(flavor = "multi_thread")]
async fn nats_comes_after_the_service() {
    let mut bus = Bus::start();
    bus.kill();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(60).await).await;
    until("readiness reports that nothing is published", async || relay(&server).await["ok"] == false).await;
    // The read models do not wait for the bus: they read the journal.
    checker::check_running(&server, None, &history).await;
    history
        .during(&[&server], async |load| {
            bus.up();
            load.done(60).await;
        })
        .await;
    checker::check_running(&server, Some(&bus), &history).await;
    assert_eq!(relay(&server).await["ok"], true);
    checker::check(&mut server, Some(&bus), &history).await;
}
