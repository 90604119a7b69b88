//! The stream is deleted, together with its consumers.

use async_nats::jetstream;
use tests::workload::History;
use tests::{Bus, checker};

use crate::server_with;

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_deleted_under_load() {
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(60).await;
            let client = async_nats::connect(bus.url()).await.expect("NATS is there");
            jetstream::new(client).delete_stream("WATCHWORD").await.expect("it can be deleted");
            load.done(60).await;
        })
        .await;
    assert!(history.all_were_answered(), "logins do not depend on the bus");
    checker::check(&mut server, Some(&bus), &history).await;
}
