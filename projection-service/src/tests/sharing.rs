//! Several nodes on one PostgreSQL database. Each has its own runtime, so that it can be killed and suspended like a
//! process.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use event_store::Location;
use read_models::{NAMES, ProjectError, ProjectedEvent, Projector, ReadModels, Transaction};
use test_services::Postgres;
use tokio::runtime::{Builder, Runtime};

use super::running::{Poisoned, until};
use super::world::*;
use crate::{ProjectionService, ProjectionStatus, SharingSettings};

/// How many projectors there are, and how many the second of two nodes gets.
const ALL: usize = NAMES.len();
const HALF: usize = ALL / 2;
const LEASE: Duration = Duration::from_secs(2);

struct Node {
    name: &'static str,
    runtime: Option<Runtime>,
    service: Arc<ProjectionService>,
}

impl Node {
    async fn start(world: &World, location: &Location, name: &'static str) -> Self {
        Self::start_with(world, location, name, ReadModels::projectors).await
    }

    async fn start_with(
        world: &World,
        location: &Location,
        name: &'static str,
        projectors: fn(&ReadModels) -> Vec<Arc<dyn Projector>>,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
        let (location, sealer, lookup) = (location.clone(), world.sealer.clone(), world.lookup.clone());
        let opening = runtime.spawn(async move { ReadModels::open(&location, sealer, lookup).await });
        let models = Arc::new(opening.await.expect("no panic").expect("opens"));
        let projectors = projectors(&models);
        let sharing = SharingSettings { node: name.to_owned(), lease: LEASE };
        let starting = runtime.spawn(ProjectionService::start_with(world.parts(models, sharing), projectors));
        let service = starting.await.expect("no panic").expect("starts");
        Self { name, runtime: Some(runtime), service }
    }

    /// Like `kill -9`: nothing is finished or released.
    fn kill(&mut self) {
        self.runtime.take().expect("it runs").shutdown_background();
    }

    /// Like `SIGSTOP`, and `SIGCONT` after a while: none of its tasks can run.
    fn stop_for(&self, time: Duration) {
        self.runtime.as_ref().expect("it runs").spawn(async move { std::thread::sleep(time) });
    }

    fn status_of(&self, name: &str) -> ProjectionStatus {
        self.service.status().into_iter().find(|status| status.name == name).expect("it is there")
    }

    /// The projectors that run on a node, as this one sees it.
    fn on(&self, name: &str) -> BTreeSet<&'static str> {
        let here = |status: &ProjectionStatus| status.node.as_deref() == Some(name);
        self.service.status().into_iter().filter(here).map(|status| status.name).collect()
    }

    async fn wait_for_all(&self, position: u64) {
        for name in NAMES {
            until(async || self.service.wait_for(name, position).await.is_ok()).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn database() -> Location {
    Postgres::shared().database().parse().expect("a URL")
}

/// Checks that the rows in PostgreSQL equal those that the world's own service built in its file.
async fn equals_the_file(world: &World, location: &Location, position: u64) {
    let shared = ReadModels::open(location, world.sealer.clone(), world.lookup.clone()).await.expect("opens");
    for projector in shared.projectors() {
        let name = projector.name();
        world.service.wait_for(name, position).await.expect("catches up");
        let (rows, in_file) = (shared.dump(&*projector).await, world.models.dump(&*projector).await);
        assert_eq!(rows.expect("dumps"), in_file.expect("dumps"), "{name} differs");
    }
}

async fn history(world: &World, users: std::ops::Range<u128>) -> u64 {
    let mut last = 0;
    for n in users {
        world.register(n, &format!("user{n}@example.com"), "Somebody Else").await;
        last = world.log_in(n, n).await;
        if n % 3 == 0 {
            last = world.log_out(n, n).await;
        }
    }
    last
}

#[tokio::test]
async fn nodes_share_the_projectors_and_take_over_from_one_that_is_killed() {
    let (world, location) = (World::new().await, database());
    let mut first = Node::start(&world, &location, "first").await;
    until(async || first.on("first").len() == ALL).await;
    let second = Node::start(&world, &location, "second").await;
    until(async || first.on("first").len() == ALL - HALF && second.on("second").len() == HALF).await;
    assert!(first.on("first").is_disjoint(&second.on("second")));

    // Either node also waits for projectors that run on the other.
    let position = history(&world, 0..20).await;
    first.wait_for_all(position).await;
    second.wait_for_all(position).await;

    first.kill();
    let position = history(&world, 20..30).await;
    let killed = std::time::Instant::now();
    until(async || second.on("second").len() == ALL).await;
    assert!(killed.elapsed() < LEASE * 20, "it took {:?}", killed.elapsed());
    second.wait_for_all(position).await;
    equals_the_file(&world, &location, position).await;

    // A node that ends properly is not waited for.
    let third = Node::start(&world, &location, "third").await;
    until(async || third.on("third").len() == HALF).await;
    let service = second.service.clone();
    second
        .runtime
        .as_ref()
        .expect("it runs")
        .spawn(async move { service.shutdown().await })
        .await
        .expect("ends");
    until(async || third.on("third").len() == ALL).await;
    let position = history(&world, 30..35).await;
    third.wait_for_all(position).await;
    equals_the_file(&world, &location, position).await;
}

#[tokio::test]
async fn inv_l_a_node_that_wakes_up_after_its_leases_ended_steps_back() {
    let (world, location) = (World::new().await, database());
    let sleeper = Node::start(&world, &location, "sleeper").await;
    until(async || sleeper.on("sleeper").len() == ALL).await;
    let position = history(&world, 0..5).await;
    sleeper.wait_for_all(position).await;

    sleeper.stop_for(LEASE * 4);
    let other = Node::start(&world, &location, "other").await;
    until(async || other.on("other").len() == ALL).await;
    // Written while one is suspended, and while both run.
    history(&world, 5..15).await;
    until(async || sleeper.on("sleeper").len() == HALF && other.on("other").len() == ALL - HALF).await;
    let position = history(&world, 15..25).await;
    other.wait_for_all(position).await;
    sleeper.wait_for_all(position).await;
    equals_the_file(&world, &location, position).await;
    for status in other.service.status() {
        assert_eq!((status.state, status.lag), ("running", 0), "{}", status.name);
    }
}

static HEALED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

fn poisoned(models: &ReadModels) -> Vec<Arc<dyn Projector>> {
    let poison = |inner: Arc<dyn Projector>| -> Arc<dyn Projector> {
        if inner.name() == "stats" {
            Arc::new(Poisoned {
                inner,
                position: 20,
                fail: || ProjectError::Damaged("poison"),
                healed: HEALED.clone(),
            })
        } else {
            inner
        }
    };
    models.projectors().into_iter().map(poison).collect()
}

#[tokio::test]
async fn every_node_shows_a_failed_or_paused_projector() {
    let (world, location) = (World::new().await, database());
    let first = Node::start_with(&world, &location, "first", poisoned).await;
    let second = Node::start_with(&world, &location, "second", poisoned).await;
    until(async || first.on("first").len() == ALL - HALF && first.on("second").len() == HALF).await;
    let position = history(&world, 0..20).await;
    let nodes = [&first, &second];
    for node in nodes {
        until(async || node.status_of("stats").state == "failed").await;
        let status = node.status_of("stats");
        assert_eq!(status.failed_position, Some(20), "{}", node.name);
        assert!(status.error.expect("it says why").contains("poison"));
        for name in NAMES.iter().filter(|name| **name != "stats") {
            until(async || node.service.wait_for(name, position).await.is_ok()).await;
        }
    }
    HEALED.store(true, Ordering::SeqCst);
    first.wait_for_all(position).await;
    for node in nodes {
        until(async || node.status_of("stats").state == "running" && node.status_of("stats").lag == 0).await;
    }

    // A node can pause a projector that runs on another one.
    let runs_on_second = *first.on("second").first().expect("it has some");
    let service = first.service.clone();
    let pausing =
        first.runtime.as_ref().expect("it runs").spawn(async move { service.pause(runs_on_second).await });
    assert!(pausing.await.expect("no panic"));
    assert_eq!(second.status_of(runs_on_second).state, "paused");
    let position = history(&world, 20..25).await;
    assert_eq!(
        first.service.wait_for(runs_on_second, position).await.expect_err("rests").code(),
        "projection_behind"
    );
    assert!(first.service.resume(runs_on_second).await);
    first.wait_for_all(position).await;
    equals_the_file(&world, &location, position).await;
}

static HANGS: AtomicBool = AtomicBool::new(false);

/// A projector that does nothing for as long as it is told to.
struct Hanging(Arc<dyn Projector>);

#[async_trait]
impl Projector for Hanging {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn version(&self) -> u32 {
        self.0.version()
    }

    fn tables(&self) -> &'static [&'static str] {
        self.0.tables()
    }

    fn ddl(&self) -> &'static str {
        self.0.ddl()
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        while HANGS.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.0.project(tx, batch).await
    }
}

/// Invariant y: the node is there and renews what it can, but its projectors do nothing.
#[tokio::test]
async fn inv_y_a_node_whose_projectors_stand_still_leaves_them_to_others() {
    let (world, location) = (World::new().await, database());
    let hanging = |models: &ReadModels| -> Vec<Arc<dyn Projector>> {
        models.projectors().into_iter().map(|inner| Arc::new(Hanging(inner)) as Arc<dyn Projector>).collect()
    };
    let stuck = Node::start_with(&world, &location, "stuck", hanging).await;
    until(async || stuck.on("stuck").len() == ALL).await;
    let position = history(&world, 0..5).await;
    stuck.wait_for_all(position).await;
    HANGS.store(true, Ordering::SeqCst);
    history(&world, 5..10).await;
    let other = Node::start(&world, &location, "other").await;
    until(async || other.on("other").len() == ALL).await;
    let position = history(&world, 10..15).await;
    other.wait_for_all(position).await;
    stuck.wait_for_all(position).await;
    HANGS.store(false, Ordering::SeqCst);
    until(async || stuck.on("stuck").len() == HALF && other.on("other").len() == ALL - HALF).await;
    let position = history(&world, 15..20).await;
    stuck.wait_for_all(position).await;
    equals_the_file(&world, &location, position).await;
}
