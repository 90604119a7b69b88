//! A new build takes the place of the live tables, whatever happens meanwhile.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::database::Database;
use crate::sql::Query;
use crate::{
    ProjectError, ProjectedEvent, Projector, ReadModels, RebuildError, RebuildProgress, RebuildSettings,
    Transaction,
};

use super::world::*;

fn settings(node: &str) -> RebuildSettings {
    RebuildSettings { node: node.to_owned(), lease: Duration::from_millis(50), events_per_second: None }
}

async fn rebuild(world: &World, models: &ReadModels, names: &[&str]) -> Vec<(&'static str, u64)> {
    let mut projectors = models.projectors();
    projectors.retain(|projector| names.contains(&projector.name()));
    let rebuilt = models.rebuild(&world.repository, &projectors, &settings("a"), |_| {}).await;
    rebuilt.expect("rebuilds")
}

async fn dumps(models: &ReadModels) -> Vec<String> {
    let mut dumps = Vec::new();
    for name in crate::NAMES {
        dumps.push(dump(models, name).await);
    }
    dumps
}

/// People, sessions and a few events of each, as many as there are seconds.
async fn grow(world: &World, from: u128, people: u128) {
    for n in from..from + people {
        let seconds = i64::try_from(n).expect("small") * 10;
        world.append(&registered(n, &format!("user{n}@example.com"), "Some Body", seconds), seconds).await;
        world.append(&started(n, n, seconds + 1), seconds + 1).await;
        world.append(&refreshed(n, n, 1, seconds + 2), seconds + 2).await;
    }
}

async fn inv_k_a_rebuilt_read_model_is_the_live_one_and_goes_on(on: On) {
    let world = small_world(on).await;
    let head = world.journal.head().await.expect("reads");
    let lived = dumps(&world.models).await;
    // Twice: the second has another place to go to.
    for _ in 0..2 {
        let rebuilt = rebuild(&world, &world.models, crate::NAMES).await;
        assert_eq!(rebuilt, crate::NAMES.iter().map(|name| (*name, head)).collect::<Vec<_>>());
        assert_eq!(dumps(&world.models).await, lived);
    }
    // What comes afterwards is applied to the new build, and found there by the next process.
    grow(&world, 10, 20).await;
    world.catch_up(&world.models, 1000).await;
    let fresh = world.open(&world.other("fresh.db")).await;
    world.catch_up(&fresh, 1000).await;
    assert_eq!(dumps(&world.models).await, dumps(&fresh).await);
    world.models.close().await;
    let looked = ReadModels::look(&world.location).await.expect("looks");
    let now = world.journal.head().await.expect("reads");
    assert!(looked.len() == crate::NAMES.len() && looked.iter().all(|it| it.position == now), "{looked:?}");
    let again = world.open(&world.location).await;
    assert_eq!(dumps(&again).await, dumps(&fresh).await);
}

/// A rebuild that is dropped once all builds have come to this position.
async fn interrupted(world: &World, models: &ReadModels, at: u64) {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let mut stop = Some(stop);
    let slow = RebuildSettings { events_per_second: NonZeroU32::new(100), ..settings("b") };
    let projectors = models.projectors();
    let rebuild = models.rebuild(&world.repository, &projectors, &slow, |progress: &[RebuildProgress]| {
        if progress.iter().all(|it| it.position >= at) {
            stop.take().map(|stop| stop.send(()));
        }
    });
    tokio::select! {
        _ = rebuild => panic!("it was to be interrupted"),
        _ = stopped => {}
    }
}

async fn an_interrupted_rebuild_goes_on_where_it_was(on: On) {
    let world = small_world(on).await;
    grow(&world, 10, 30).await;
    world.catch_up(&world.models, 1000).await;
    let lived = dumps(&world.models).await;
    for at in [10, 40, 70] {
        interrupted(&world, &world.models, at).await;
        assert_eq!(dumps(&world.models).await, lived, "the live one is as it was");
        // Its lease ends.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.models.close().await;
    let models = world.open(&world.location).await;
    let mut first = None;
    let (projectors, settings) = (models.projectors(), settings("c"));
    let rebuilt = models.rebuild(&world.repository, &projectors, &settings, |progress| {
        first.get_or_insert_with(|| progress.to_vec());
    });
    rebuilt.await.expect("rebuilds");
    let first = first.expect("it was told");
    assert!(first.iter().all(|it| it.position >= 70), "it began anew: {first:?}");
    assert_eq!(dumps(&models).await, lived);
}

async fn what_is_erased_meanwhile_is_forgotten(on: On) {
    let world = small_world(on).await;
    interrupted(&world, &world.models, 5).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.append(&erased(1, 95_000), 95_000).await;
    world.sealer.keys().erase_data_key(user(1)).await.expect("erases");
    world.catch_up(&world.models, 1000).await;
    let lived = dumps(&world.models).await;
    rebuild(&world, &world.models, crate::NAMES).await;
    assert_eq!(dumps(&world.models).await, lived);
}

async fn no_event_is_lost_that_is_applied_meanwhile(on: On) {
    let world = small_world(on).await;
    let users = projector(&world.models, "users");
    let follow = async {
        for n in 10..60 {
            grow(&world, n, 1).await;
            let after = world.models.checkpoint(&*users).await.expect("reads");
            let events: Vec<ProjectedEvent> = world.events(after).await;
            // The new build may have taken the place in between, with some of these events.
            let _ = world.models.apply(&*users, &events, crate::Lease::UNSHARED).await;
            let now = world.models.checkpoint(&*users).await.expect("reads");
            assert!(now > after, "it went back, or stayed: from {after} to {now}");
        }
    };
    let rebuilds = async {
        for _ in 0..3 {
            rebuild(&world, &world.models, &["users"]).await;
        }
    };
    tokio::join!(follow, rebuilds);
    world.catch_up(&world.models, 1000).await;
    let fresh = world.open(&world.other("fresh.db")).await;
    world.catch_up(&fresh, 1000).await;
    assert_eq!(dump(&world.models, "users").await, dump(&fresh, "users").await);
}

/// Runs statements about the build of `users` that was interrupted.
async fn forge(models: &ReadModels, statements: &[&str]) {
    let file = models.places.next_file("users").map(|file| file.path);
    let (database, suffix) = match &file {
        Some(path) => (Arc::new(Database::building(path).await.expect("opens")), ""),
        None => (Arc::clone(models.places.shared()), "_rebuild"),
    };
    for statement in statements {
        let statement = statement.replace("{}", suffix);
        database.write(Query::new(statement)).await.expect("writes");
    }
    if file.is_some() {
        database.close().await;
    }
}

/// Somebody who can write to the read models prepares a build, and has an operator put it in place.
async fn inv_u_a_build_that_others_prepared_is_begun_anew(on: On) {
    let world = small_world(on).await;
    grow(&world, 10, 30).await;
    world.catch_up(&world.models, 1000).await;
    let lived = dumps(&world.models).await;
    let banned = "UPDATE users_v2{} SET banned = 1";
    // Its checkpoint names an event of the journal, or it seems not to have begun.
    for (name, forged) in [
        ("further", "UPDATE checkpoints SET position = 72, event = $event WHERE projector = 'users_v2{}'"),
        ("unmarked", "DELETE FROM builds WHERE projector = 'users_v2{}'"),
        ("marked by others", "UPDATE builds SET mark = $mark WHERE projector = 'users_v2{}'"),
        ("at the start", "UPDATE checkpoints SET position = 0, event = NULL WHERE projector = 'users_v2{}'"),
    ] {
        interrupted(&world, &world.models, 70).await;
        let event = world.events(71).await[0].recorded.id.simple().to_string();
        let bytes = |hex: &str| match on {
            On::Sqlite => format!("x'{hex}'"),
            On::Postgres => format!("'\\x{hex}'"),
        };
        let forged = forged.replace("$event", &bytes(&event)).replace("$mark", &bytes("00"));
        forge(&world.models, &[banned, &forged]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        rebuild(&world, &world.models, &["users"]).await;
        assert_eq!(dumps(&world.models).await, lived, "{name}");
    }
}

/// A read model whose indexes take as long as a test wants.
struct Slow {
    inner: Arc<dyn Projector>,
    begun: Semaphore,
    may_end: Semaphore,
}

#[async_trait]
impl Projector for Slow {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn version(&self) -> u32 {
        self.inner.version()
    }

    fn tables(&self) -> &'static [&'static str] {
        self.inner.tables()
    }

    fn ddl(&self) -> &'static str {
        self.inner.ddl()
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        self.inner.project(tx, batch).await
    }

    async fn complete(&self, tx: &mut Transaction) -> Result<(), ProjectError> {
        self.begun.add_permits(1);
        let _may_end = self.may_end.acquire().await.expect("it stays open");
        self.inner.complete(tx).await
    }
}

#[tokio::test]
async fn a_build_that_waits_for_a_slower_one_keeps_its_lease() {
    let world = small_world(On::Postgres).await;
    let inner = projector(&world.models, "stats");
    let slow = Arc::new(Slow { inner, begun: Semaphore::new(0), may_end: Semaphore::new(0) });
    let projectors: [Arc<dyn Projector>; 2] = [projector(&world.models, "users"), slow.clone()];
    let settings = RebuildSettings { lease: Duration::from_millis(400), ..settings("a") };
    let rebuild = world.models.rebuild(&world.repository, &projectors, &settings, |_| {});
    let watch = async {
        let _begun = slow.begun.acquire().await.expect("it stays open");
        let until = async || {
            let query = Query::new(
                "SELECT (extract(epoch FROM until) * 1000)::bigint FROM checkpoints WHERE projector = 'users_v2_rebuild'",
            );
            world.models.places.shared().read_number(query).await.expect("reads")
        };
        let first = until().await;
        let renewed = async {
            while until().await == first {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(4), renewed).await.expect("its lease is renewed");
        slow.may_end.add_permits(1);
    };
    let (done, ()) = tokio::join!(rebuild, watch);
    assert_eq!(done.expect("rebuilds").len(), 2);
}

#[tokio::test]
async fn a_rebuild_that_fails_releases_its_leases() {
    let world = small_world(On::Postgres).await;
    let patient = |node: &str| RebuildSettings { lease: Duration::from_mins(10), ..settings(node) };
    // The second is being built elsewhere.
    let users = [projector(&world.models, "users")];
    let slow = RebuildSettings { events_per_second: NonZeroU32::new(5), ..patient("a") };
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let mut begun = Some(begun);
    let first = world.models.rebuild(&world.repository, &users, &slow, |_| {
        begun.take().map(|begun| begun.send(()));
    });
    tokio::select! {
        _ = first => panic!("it is slow"),
        _ = has_begun => {}
    }
    let both = [projector(&world.models, "stats"), projector(&world.models, "users")];
    let refused = world.models.rebuild(&world.repository, &both, &patient("b"), |_| {}).await;
    assert!(matches!(refused, Err(RebuildError::Elsewhere("users"))), "{refused:?}");
    let stats = [projector(&world.models, "stats")];
    world.models.rebuild(&world.repository, &stats, &patient("c"), |_| {}).await.expect("it is free");
}

#[tokio::test]
async fn two_processes_do_not_rebuild_the_same() {
    let world = small_world(On::Postgres).await;
    let projectors = world.models.projectors();
    let patient = RebuildSettings { lease: Duration::from_mins(10), ..settings("a") };
    let slow = RebuildSettings { events_per_second: NonZeroU32::new(5), ..patient.clone() };
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let mut begun = Some(begun);
    let first = world.models.rebuild(&world.repository, &projectors, &slow, |_| {
        begun.take().map(|begun| begun.send(()));
    });
    tokio::select! {
        _ = first => panic!("it is slow"),
        _ = has_begun => {}
    }
    let second = world.models.rebuild(&world.repository, &projectors, &settings("b"), |_| {}).await;
    assert!(matches!(second, Err(RebuildError::Elsewhere(_))), "{second:?}");
}

on_both! {
    inv_k_a_rebuilt_read_model_is_the_live_one_and_goes_on,
    an_interrupted_rebuild_goes_on_where_it_was,
    inv_u_a_build_that_others_prepared_is_begun_anew,
    what_is_erased_meanwhile_is_forgotten,
    no_event_is_lost_that_is_applied_meanwhile,
}
