//! Commands and projections run in separate processes: the projection node dies in the middle of a batch, and its bus
//! is killed, loses its end and is deleted.

use async_nats::jetstream;
use test_services::Postgres;
use tests::workload::{History, Progress};
use tests::{Bus, Server, checker};

use crate::SETTINGS;
use crate::nats_data_cut::{cut, newest_block};
use crate::postgres::cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_projections_and_its_bus_break() {
    let mut bus = Bus::start();
    let (database, url) = (Postgres::shared().database(), bus.url());
    let mut server = Server::start_roles(&[&SETTINGS[..], &cluster(&database, &url)].concat()).await;
    let mut history = History::new(&server).await;

    let projections = server.projections_mut();
    assert!(projections.terminate().await.success());
    projections.set_environment("FAILPOINTS", "mid-projection=40*off->return");
    projections.up().await;
    // How many batches so many calls make depends on how fast they are projected.
    let until_it_dies = async |load: &Progress| {
        while server.projections().is_alive().await {
            load.done(10).await;
        }
    };
    history.during(&[&server], until_it_dies).await;
    let projections = server.projections_mut();
    assert!(!projections.ended().await.success(), "it died in the middle of a batch");
    projections.set_environment("FAILPOINTS", "");
    projections.up().await;

    history
        .during(&[&server], async |load| {
            load.done(30).await;
            bus.kill();
            cut(&newest_block(bus.store()).expect("the stream has messages"));
            load.done(30).await;
            bus.up();
            load.done(30).await;
            let client = async_nats::connect(bus.url()).await.expect("NATS is there");
            jetstream::new(client).delete_stream("WATCHWORD").await.expect("it can be deleted");
            load.done(60).await;
        })
        .await;
    assert!(history.all_were_answered(), "logins do not depend on projections or the bus");
    checker::check(&mut server, Some(&bus), &history).await;
}
