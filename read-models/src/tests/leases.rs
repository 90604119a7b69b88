//! Several nodes on one PostgreSQL database.

use std::time::Duration;

use super::world::*;
use crate::{ApplyError, Lease, Leases, Projector, ProjectorState, ReadModels};

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(50);

async fn take(leases: &Leases, projector: &dyn Projector, node: &str, lasts: Duration) -> Option<Lease> {
    let taken = leases.take(projector, node, lasts).await.expect("asks");
    let standings = leases.standings().await.expect("reads");
    let key = crate::projector::key(projector);
    let standing = standings.into_iter().find(|standing| standing.key == key).expect("it is there");
    taken.then_some(Lease { epoch: standing.epoch, lasts })
}

async fn holder(leases: &Leases, name: &str) -> Option<String> {
    let standings = leases.standings().await.expect("reads");
    standings.into_iter().find(|standing| standing.key == name).expect("it is there").holder
}

fn leases(models: &ReadModels) -> Leases {
    models.leases().expect("they are shared")
}

#[tokio::test]
async fn inv_l_a_holder_that_slept_past_its_lease_writes_nothing() {
    let world = World::new(On::Postgres).await;
    for n in 1..=6 {
        world.append(&registered(n, &format!("user{n}@example.com"), "Somebody", 0), 0).await;
    }
    let events = world.events(0).await;
    let (first, second) = (&world.models, world.open(&world.location).await);
    let users = projector(first, "users");
    let asleep = take(&leases(first), &*users, "first", LONG).await.expect("it is free");
    first.apply(&*users, &events[..2], asleep).await.expect("it has the lease");
    assert_eq!(take(&leases(&second), &*users, "second", LONG).await, None, "it is held");
    leases(first).renew(&*users, "first", SHORT, &ProjectorState::Running).await.expect("renews");
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(holder(&leases(&second), "users_v2").await, None, "its holder fell silent");
    let awake = take(&leases(&second), &*users, "second", LONG).await.expect("its time is over");
    // Both before its successor wrote anything, when the events would fit, and after.
    let before = dump(first, "users").await;
    let refused = first.apply(&*users, &events[2..3], asleep).await;
    assert!(matches!(refused, Err(ApplyError::LeaseLost)), "{refused:?}");
    assert_eq!(dump(first, "users").await, before);
    second.apply(&*users, &events[2..4], awake).await.expect("it has the lease");
    let refused = first.apply(&*users, &events[4..], asleep).await;
    assert!(matches!(refused, Err(ApplyError::LeaseLost)), "{refused:?}");
    // Nor does it regain the lease by renewing it, or take it from its successor by releasing it.
    leases(first).renew(&*users, "first", LONG, &ProjectorState::Running).await.expect("asks");
    leases(first).release(&*users, "first").await.expect("asks");
    assert_eq!(holder(&leases(first), "users_v2").await.as_deref(), Some("second"));
    second.apply(&*users, &events[4..], awake).await.expect("it still has the lease");
    assert_eq!(second.checkpoint(&*users).await.expect("reads"), 6);
}

#[tokio::test]
async fn a_lease_is_kept_by_writing_and_released() {
    let world = World::new(On::Postgres).await;
    for n in 1..=3 {
        world.append(&registered(n, &format!("user{n}@example.com"), "Somebody", 0), 0).await;
    }
    let events = world.events(0).await;
    let leases = leases(&world.models);
    let users = projector(&world.models, "users");
    let lasts = Duration::from_secs(3);
    let lease = take(&leases, &*users, "first", lasts).await.expect("it is free");
    for event in 0..3 {
        tokio::time::sleep(lasts / 2).await;
        world.models.apply(&*users, &events[event..=event], lease).await.expect("it has the lease");
    }
    assert_eq!(holder(&leases, "users_v2").await.as_deref(), Some("first"));
    leases.release(&*users, "first").await.expect("releases");
    let next = take(&leases, &*users, "second", LONG).await.expect("it was released");
    assert_eq!(next.epoch, lease.epoch + 1);
    assert!(matches!(world.models.apply(&*users, &[], lease).await, Err(ApplyError::LeaseLost)));
}

#[tokio::test]
async fn what_a_projector_does_is_seen_by_all_nodes() {
    let world = World::new(On::Postgres).await;
    let second = world.open(&world.location).await;
    let stats = projector(&world.models, "stats");
    take(&leases(&world.models), &*stats, "first", LONG).await.expect("it is free");
    let failed = ProjectorState::Failed { position: 7, error: "it does not fit".to_owned() };
    leases(&world.models).renew(&*stats, "first", LONG, &failed).await.expect("renews");
    leases(&second).pause(&*stats, true).await.expect("tells");
    let standings = leases(&second).standings().await.expect("reads");
    let standing = standings.iter().find(|standing| standing.key == "stats_v2").expect("it is there");
    assert_eq!((&standing.state, standing.paused), (&failed, true));
    assert_eq!(standing.holder.as_deref(), Some("first"));
    assert_eq!(leases(&second).announce("first", LONG).await.expect("announces"), 1);
    assert_eq!(leases(&second).announce("second", LONG).await.expect("announces"), 2);
    leases(&second).announce("second", SHORT).await.expect("announces");
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(leases(&second).announce("first", LONG).await.expect("announces"), 1, "the second is gone");
}

#[tokio::test]
async fn nodes_that_start_together_make_the_tables_once() {
    let world = World::new(On::Sqlite).await;
    for _ in 0..10 {
        let location = database();
        let opening = (0..6).map(|_| {
            let (location, sealer, lookup) = (location.clone(), world.sealer.clone(), world.lookup.clone());
            tokio::spawn(async move { ReadModels::open(&location, sealer, lookup).await.map(drop) })
        });
        for opened in opening.collect::<Vec<_>>() {
            opened.await.expect("no panic").expect("opens");
        }
    }
}

/// The same log gives the same rows in both databases.
#[tokio::test]
async fn inv_k_a_build_in_postgres_equals_one_in_a_file() {
    let world = World::new(On::Sqlite).await;
    for n in 1..=40 {
        world.append(&registered(n, &format!("user{n}@example.com"), "Ada Lovelace", 0), 0).await;
        world.append(&started(n, n, 10), 10).await;
        world.append(&refreshed(n, n, 1, 4000), 4000).await;
        if n % 3 == 0 {
            world.append(&revoked(n, n, 90_000), 90_000).await;
        }
    }
    let location = database();
    let shared = world.open(&location).await;
    world.catch_up(&world.models, 1000).await;
    world.catch_up(&shared, 7).await;
    for projector in shared.projectors() {
        let name = projector.name();
        assert_eq!(dump(&shared, name).await, dump(&world.models, name).await, "{name} differs");
    }
}
