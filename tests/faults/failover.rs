//! The journal's server is lost under load, and its synchronous replica takes its place: what was acknowledged is there, and
//! the nodes go on by themselves. The same nodes live through one failover after the other.
//!
//! `FAULTS_ROUNDS=20` repeats each that often, at another moment each time.

use std::mem;
use std::time::{Duration, Instant};

use test_services::{HaProxy, Postgres, Relay};
use tests::stalls::Watch;
use tests::workload::History;
use tests::{Bus, checker};

use crate::Random;
use crate::bounds::{BACK, are_back, assert_bounded, print_times, rounds};
use crate::postgres::{fresh_node, node};

/// How a server is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// With all its processes.
    Killed,
    /// Nothing passes between it and the nodes, and it does not know.
    CutOff,
    /// It stands still, and goes on when its replica has taken its place.
    Frozen,
    /// It takes no more writes, as an administrator says before they promote its replica, and keeps its sessions.
    ReadOnly,
    /// It is stopped, and follows the replica that has been promoted: the nodes' address leads to a replica for a while.
    Demoted,
}

async fn fails_over(lost: Lost) {
    let mut random = Random::new();
    let bus = Bus::start();
    let mut primary = Postgres::start();
    let relay = Relay::start(primary.port()).await;
    let database = primary.database();
    let name = database.rsplit_once('/').expect("a path").1.to_owned();
    let url = relay.url(&database);
    let (first, second) = tokio::join!(node(&url, &bus), node(&url, &bus));
    let nodes = [&first, &second];
    let mut history = History::new(&first).await;
    let mut times = vec![];
    for _ in 0..rounds() {
        let replica = primary.synchronous_replica();
        let back = history
            .during(&nodes, async |load| {
                load.done(30).await;
                random.moment(Duration::from_millis(300)).await;
                let watch = Watch::start();
                match lost {
                    Lost::Killed => primary.kill(),
                    Lost::CutOff => relay.freeze(),
                    Lost::Frozen => primary.signal("STOP"),
                    Lost::ReadOnly => primary.set_read_only(true),
                    Lost::Demoted => {
                        primary.stop();
                        replica.promote();
                        primary.follow(&replica);
                    }
                }
                // Until somebody notices.
                random.moment(Duration::from_secs(3)).await;
                if lost != Lost::Demoted {
                    replica.promote();
                }
                relay.lead_to(replica.port());
                let back = are_back(&nodes, Instant::now()).await;
                let stood_still = !watch.stop().is_empty();
                assert!(back < BACK || stood_still, "after {back:?}");
                load.done(30).await;
                if lost == Lost::Frozen {
                    primary.signal("CONT");
                    load.done(30).await;
                }
                back
            })
            .await;
        times.push(back);
        drop(mem::replace(&mut primary, replica));
    }
    print_times("back", &mut times);
    assert_bounded(&history);
    for node in nodes {
        let log = node.log();
        let lost: Vec<&str> = log.lines().filter(|line| line.contains("went back")).collect();
        assert!(lost.is_empty(), "nothing was lost: {lost:?}");
    }
    let fresh = fresh_node(&primary.url(&name), &bus, &first).await;
    checker::check_nodes(&nodes, &fresh, Some(&bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_a_y_a_killed_primary_is_followed_by_its_replica() {
    fails_over(Lost::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_a_y_a_primary_that_is_cut_off_is_followed_by_its_replica() {
    fails_over(Lost::CutOff).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_a_y_a_frozen_primary_is_followed_by_its_replica() {
    fails_over(Lost::Frozen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_a_y_a_read_only_primary_is_followed_by_its_replica() {
    fails_over(Lost::ReadOnly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_a_y_a_demoted_primary_is_followed_by_its_replica() {
    fails_over(Lost::Demoted).await;
}

/// `HAProxy` checks both servers, and leads to the replica once the primary does not answer. Nodes wait until that is promoted.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_behind_haproxy_follow_to_the_replica() {
    let (mut random, bus) = (Random::new(), Bus::start());
    let mut primary = Postgres::start();
    let database = primary.database();
    let name = database.rsplit_once('/').expect("a path").1.to_owned();
    let replica = primary.synchronous_replica();
    let proxy = HaProxy::start(&primary, &replica);
    let url = proxy.url(&database);
    let (first, second) = tokio::join!(node(&url, &bus), node(&url, &bus));
    let nodes = [&first, &second];
    let mut history = History::new(&first).await;
    history
        .during(&nodes, async |load| {
            load.done(30).await;
            random.moment(Duration::from_millis(300)).await;
            let watch = Watch::start();
            primary.kill();
            random.moment(Duration::from_secs(3)).await;
            replica.promote();
            let back = are_back(&nodes, Instant::now()).await;
            let stood_still = !watch.stop().is_empty();
            println!("back after {back:?}");
            assert!(back < BACK || stood_still, "after {back:?}");
            load.done(30).await;
        })
        .await;
    assert_bounded(&history);
    let fresh = fresh_node(&replica.url(&name), &bus, &first).await;
    checker::check_nodes(&nodes, &fresh, Some(&bus), &history).await;
}
