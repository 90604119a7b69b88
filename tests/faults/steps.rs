//! The service dies at each step of its work, as by kill -9, without cleaning up. The fail points are in the code at
//! these steps, and compiled only for tests.

use std::os::unix::process::ExitStatusExt;

use test_services::Postgres;
use tests::workload::{CLIENTS, History};
use tests::{Bus, Server, checker};

use crate::postgres::node;
use crate::server_with;

/// Each step, and how often it passes before it is fatal.
const STEPS: [(&str, u32); 6] = [
    ("before-append", 40),
    ("before-commit", 30),
    ("after-append", 40),
    ("before-publish", 20),
    ("after-publish", 20),
    ("mid-projection", 60),
];
/// SIGABRT: a process that aborts does no more than one that is killed.
pub const ABORTED: i32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn the_service_dies_at_each_step() {
    let bus = Bus::start();
    let server = server_with(&bus).await;
    dies_at_each_step(server, &bus, &STEPS).await;
}

/// The same with journal and read models in PostgreSQL, where the database commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_dies_at_each_step() {
    let bus = Bus::start();
    let server = node(&Postgres::shared().database(), &bus).await;
    let steps: Vec<_> = STEPS.into_iter().filter(|(step, _)| *step != "before-commit").collect();
    dies_at_each_step(server, &bus, &steps).await;
}

async fn dies_at_each_step(mut server: Server, bus: &Bus, steps: &[(&str, u32)]) {
    let mut history = History::new(&server).await;
    assert!(server.terminate().await.success());
    for (step, passes) in steps {
        server.set_environment("FAILPOINTS", &format!("{step}={passes}*off->return"));
        server.up().await;
        // Every client has met the failure.
        history.during(&[&server], async |load| load.failed(CLIENTS).await).await;
        assert_eq!(server.ended().await.signal(), Some(ABORTED), "it died {step}");
    }
    server.set_environment("FAILPOINTS", "");
    server.up().await;
    history.during(&[&server], async |load| load.done(40).await).await;
    checker::check(&mut server, Some(bus), &history).await;
}
