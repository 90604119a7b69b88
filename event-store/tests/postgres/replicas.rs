//! A synchronous replica that is away: what is in the journal is not answered as done until the replica has it.

use std::sync::Arc;
use std::time::Duration;

use event_store::contract::{append, stream};
use event_store::{Append, AppendError, Idempotency, Journal, PostgresJournal, PostgresSettings};
use test_services::{Postgres, Relay};
use tokio::time::{Instant, sleep};

use super::{settings, url};

/// On a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

async fn node(database: &str) -> Arc<PostgresJournal> {
    let hasty = PostgresSettings { answer: Duration::from_secs(2), ..settings() };
    Arc::new(
        PostgresJournal::open(&url(database), hasty, &event_store::contract::macs()).await.expect("opens"),
    )
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Appends an event under a key, while the replica stands still, and cancels the wait for it.
async fn append_in_doubt(server: &Postgres, node: &Arc<PostgresJournal>) -> [u8; 32] {
    let once = Idempotency { key: [1; 32], fingerprint: [2; 32] };
    let sent = Append { idempotency: Some(once), ..append(&stream("a"), 1, 1) };
    let through = Arc::clone(node);
    let sending = tokio::spawn(async move { through.append(sent).await });
    until("an append waits for the replica", async || server.waiting_for_replica() > 0).await;
    server.end_waits_for_replica("pg_cancel_backend");
    let answer = sending.await.expect("no panic");
    assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
    [1; 32]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_a_what_another_node_left_in_doubt_is_confirmed_first() {
    let server = Postgres::start();
    let replica = server.synchronous_replica();
    let database = server.database();
    let (one, two) = (node(&database).await, node(&database).await);
    one.append(append(&stream("a"), 0, 1)).await.expect("appends");
    replica.signal("STOP");
    let key = append_in_doubt(&server, &one).await;
    // A node that has just started knows of nothing.
    let three = node(&database).await;
    for other in [&one, &two, &three] {
        let stored = other.idempotent(&key).await.expect("reads").expect("it is in the journal");
        let answer = other.confirm(stored.last).await;
        assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
    }
    assert_eq!(one.confirm(1).await, Ok(()), "what was acknowledged is certain");
    replica.signal("CONT");
    for other in [&one, &two, &three] {
        until("it is confirmed", async || other.confirm(2).await.is_ok()).await;
    }
}

/// The server that a confirmation waits at stands still, and its replica takes its place: the wait ends with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_y_a_confirmation_does_not_wait_at_a_server_that_was_left() {
    let server = Postgres::start();
    let replica = server.synchronous_replica();
    let relay = Relay::start(server.port()).await;
    let one = node(&relay.url(&server.database())).await;
    one.append(append(&stream("a"), 0, 1)).await.expect("appends");
    replica.signal("STOP");
    append_in_doubt(&server, &one).await;
    relay.freeze();
    server.signal("STOP");
    replica.signal("CONT");
    replica.promote();
    relay.lead_to(replica.port());
    // Whether the replica had it or not, this is the next one.
    until("appends go on", async || {
        let version = one.versions(&[stream("a")]).await.map_or(0, |versions| versions[0]);
        one.append(append(&stream("a"), version, 1)).await.is_ok() || one.lost().is_some()
    })
    .await;
    server.signal("CONT");
}

/// A former primary is reached once more, as when it stood still and goes on: it lacks what was written since, and nothing is
/// lost by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_is_no_journal_that_went_back() {
    let server = Postgres::start();
    let replica = server.replica();
    let relay = Relay::start(server.port()).await;
    let one = node(&relay.url(&server.database())).await;
    one.append(append(&stream("a"), 0, 1)).await.expect("appends");
    server.wait_for(&replica);
    relay.freeze();
    replica.promote();
    relay.lead_to(replica.port());
    until("appends go on", async || {
        let version = one.versions(&[stream("a")]).await.map_or(0, |versions| versions[0]);
        one.append(append(&stream("a"), version, 1)).await.is_ok()
    })
    .await;
    let head = one.head().await.expect("reads");
    relay.freeze_open();
    relay.lead_to(server.port());
    let is_refused =
        async || one.head().await.is_err_and(|error| error.to_string().contains("older timeline"));
    until("the former primary is refused", is_refused).await;
    assert_eq!(one.lost(), None);
    relay.lead_to(replica.port());
    until("the journal is there", async || one.head().await == Ok(head)).await;
    assert_eq!(one.lost(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_replica_there_is_nothing_to_wait_for() {
    let database = Postgres::shared().database();
    let (one, two) = (node(&database).await, node(&database).await);
    one.append(append(&stream("a"), 0, 1)).await.expect("appends");
    assert_eq!(two.confirm(1).await, Ok(()));
}
