//! Read models are rebuilt while the log grows.

use tests::workload::History;
use tests::{Bus, checker};

use crate::server_with;

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
