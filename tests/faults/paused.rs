//! The service is suspended for a while, as on a machine that swaps or migrates, and resumes.

use std::time::Duration;

use test_services::Postgres;
use tests::workload::History;
use tests::{Bus, Server, checker};

use crate::postgres::{cluster, fresh_node};
use crate::{SETTINGS, server_with};

/// Longer than every timeout: the relay's for a batch (5 s), PostgreSQL's for an idle transaction (5 s), a statement's
/// (4 s), other nodes' for the holder of a lease (1 s).
const PAUSE: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn the_service_stands_still_and_goes_on() {
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(40).await;
            server.signal("STOP");
            // Time itself is the fault here.
            tokio::time::sleep(PAUSE).await;
            server.signal("CONT");
            load.done(40).await;
        })
        .await;
    assert!(history.all_were_answered(), "waiting requests got their answers");
    checker::check(&mut server, Some(&bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_stands_still_and_goes_on() {
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(40).await;
            bus.signal("STOP");
            tokio::time::sleep(PAUSE).await;
            load.done(20).await;
            bus.signal("CONT");
            load.done(40).await;
        })
        .await;
    assert!(history.all_were_answered(), "logins do not depend on the bus");
    checker::check(&mut server, Some(&bus), &history).await;
}

/// Two nodes share journal and read models. While one is suspended, the other takes over its projectors; when it
/// resumes, it learns what happened.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_nodes_stands_still_and_goes_on() {
    let bus = Bus::start();
    let (database, url) = (Postgres::shared().database(), bus.url());
    let own = [("WATCHWORD_PROJECTIONS_LEASE", "1"), ("WATCHWORD_POSTGRES_STATEMENT_TIMEOUT", "4")];
    let environment = [&SETTINGS[..], &cluster(&database, &url), &own].concat();
    let (first, second) = tokio::join!(Server::start_with(&environment), Server::start_with(&environment));
    let mut history = History::new(&first).await;
    history
        .during(&[&first, &second], async |load| {
            load.done(40).await;
            second.signal("STOP");
            tokio::time::sleep(PAUSE).await;
            let head = first.events().await.len() as u64;
            checker::caught_up(&first, head).await;
            second.signal("CONT");
            load.done(40).await;
        })
        .await;
    let fresh = fresh_node(&database, &bus, &first).await;
    checker::check_nodes(&[&first, &second], &fresh, Some(&bus), &history).await;
}
