use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use read_models::users::UserFilter;
use read_models::{Paging, ProjectError, ProjectedEvent, Projector, Transaction};

use super::world::*;

/// A projector that writes its rows and then fails at the event of one position, until it is healed.
pub(super) struct Poisoned {
    pub inner: Arc<dyn Projector>,
    pub position: u64,
    pub fail: fn() -> ProjectError,
    pub healed: Arc<AtomicBool>,
}

#[async_trait]
impl Projector for Poisoned {
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
        self.inner.project(tx, batch).await?;
        let poison = batch.iter().any(|event| event.position() == self.position);
        if poison && !self.healed.load(Ordering::SeqCst) {
            return Err((self.fail)());
        }
        Ok(())
    }
}

pub(super) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), waiting).await.expect("it comes true");
}

#[tokio::test]
async fn inv_l_a_poison_event_stops_one_projector_at_it_and_loses_nothing() {
    assert!(stopped_by(|| ProjectError::Damaged("poison")).await.contains("poison"));
}

#[tokio::test]
async fn inv_l_a_projector_that_panics_is_seen_to_have_failed() {
    assert!(stopped_by(|| panic!("poison")).await.contains("panicked"));
}

/// The projector's error when it fails like this at one event. Checks that it continues once healed.
async fn stopped_by(fail: fn() -> ProjectError) -> String {
    const POISON: u64 = 20;
    let healed = Arc::new(AtomicBool::new(false));
    let heal = healed.clone();
    let world = World::with(move |models| {
        let poison = |inner: Arc<dyn Projector>| -> Arc<dyn Projector> {
            if inner.name() == "stats" {
                Arc::new(Poisoned { inner, position: POISON, fail, healed: healed.clone() })
            } else {
                inner
            }
        };
        models.projectors().into_iter().map(poison).collect()
    })
    .await;
    // All at once, so that the poison is in the middle of a batch.
    assert!(world.service.pause("stats").await);
    let mut last = 0;
    for n in 0..40 {
        last = world.register(n, &format!("user{n}@example.com"), "Somebody").await;
    }
    assert!(world.service.resume("stats").await);
    until(async || world.service.status().iter().any(|status| status.state == "failed")).await;
    for name in read_models::NAMES.iter().filter(|name| **name != "stats") {
        world.service.wait_for(name, last).await.expect("goes on");
    }
    let status = world.service.status();
    let failed = status.iter().find(|status| status.name == "stats").expect("is there");
    assert_eq!((failed.position, failed.failed_position), (POISON - 1, Some(POISON)));
    assert_eq!(failed.lag, last - (POISON - 1));
    let why = failed.error.clone().expect("says why");
    assert!(status.iter().filter(|status| status.name != "stats").all(|status| status.state == "running"));
    assert_eq!(world.service.wait_for("stats", last).await.expect_err("behind").code(), "projection_behind");

    // What it wrote before it failed was rolled back: afterwards nothing is counted twice (inv_t).
    heal.store(true, Ordering::SeqCst);
    until(async || {
        let status = world.service.status();
        status.iter().all(|status| status.state == "running" && status.lag == 0)
    })
    .await;
    let (_, counted) = world.get(FULL, "/v1/apps/acme/admin/stats", None).await;
    assert_eq!(counted["items"][0]["registrations"]["password"], 40);
    why
}

#[tokio::test]
async fn a_query_waits_for_its_token_and_no_longer_than_it_may() {
    let world = World::new().await;
    assert!(world.service.pause("users").await);
    let position = world.register(1, "ada@example.com", "Ada Lovelace").await;
    let path = "/v1/apps/acme/admin/users";
    let (status, stale) = world.get(FULL, path, None).await;
    assert_eq!((status, &stale["total"]), (200, &0.into()));
    let (status, problem) = world.get(FULL, path, Some(position)).await;
    assert_eq!((status, &problem["code"]), (503, &"projection_behind".into()));
    // A query that is answered from the log is never stale.
    let (status, user) = world.get(FULL, &format!("{path}/{}", user(1)), Some(position)).await;
    assert_eq!((status, &user["email"]), (200, &"ada@example.com".into()));
    let waiting = world.get(FULL, path, Some(position));
    let resuming = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.service.resume("users").await
    };
    let ((status, fresh), resumed) = tokio::join!(waiting, resuming);
    assert!(resumed);
    assert_eq!((status, &fresh["total"]), (200, &1.into()));
    assert_eq!(fresh["items"][0]["name"], "Ada Lovelace");
    assert!(!world.service.pause("nothing").await);
}

#[tokio::test]
async fn stopping_ends_at_a_batch_and_closes_the_file() {
    let world = World::new().await;
    let position = world.register(1, "ada@example.com", "Ada").await;
    world.service.wait_for("users", position).await.expect("catches up");
    world.service.shutdown().await;
    assert!(world.models.users().list(&acme(), &UserFilter::default(), &Paging::default()).await.is_err());
}
