//! Connections that many share.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_store::postgres::connecting::connect;
use event_store::postgres::pool::Pool;
use test_services::Postgres;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::url;

const BOUND: Duration = Duration::from_mins(1);

/// The first connection is made at once, and each other one when it may be.
fn slow(most: u32) -> (Pool, Arc<Semaphore>, Arc<AtomicUsize>) {
    let database = url(&Postgres::shared().database());
    let (may, made) = (Arc::new(Semaphore::new(1)), Arc::new(AtomicUsize::new(0)));
    let (gate, count) = (Arc::clone(&may), Arc::clone(&made));
    let pool = Pool::new(most, BOUND, move || {
        let (database, gate, count) = (database.clone(), Arc::clone(&gate), Arc::clone(&count));
        Box::pin(async move {
            gate.acquire().await.expect("it is open").forget();
            let connection = connect(database.options(), BOUND).await?;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(connection)
        })
    });
    (pool, may, made)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_takes_what_comes_first() {
    let (pool, may, made) = slow(2);
    let first = pool.begin().await.expect("begins");
    let waits = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.begin().await.map(drop) })
    };
    while pool.size() < 2 {
        sleep(Duration::from_millis(5)).await;
    }
    // The second is still being made when the first comes back.
    first.commit().await.expect("commits");
    timeout(BOUND / 2, waits).await.expect("in time").expect("no panic").expect("begins");
    assert_eq!((made.load(Ordering::SeqCst), pool.size()), (1, 2));
    // Nobody waits for it any more: it is kept if it comes soon. There is no room for a third.
    may.add_permits(5);
    let (one, two) = (pool.begin().await.expect("begins"), pool.begin().await.expect("begins"));
    assert_eq!(pool.size(), 2);
    drop((one, two));
}

/// Whoever goes away while one is made takes no room from the next, however long the server is silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_nobody_waits_for_is_given_up() {
    let (pool, may, made) = slow(1);
    may.forget_permits(1);
    assert!(timeout(Duration::from_millis(50), pool.begin()).await.is_err());
    while pool.size() > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    may.add_permits(1);
    pool.begin().await.expect("begins").commit().await.expect("commits");
    assert_eq!((made.load(Ordering::SeqCst), pool.size()), (1, 1));
}

/// What a later user of the connection writes would never be committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_nobody_waits_for_ends_while_it_begins() {
    let (pool, ..) = slow(1);
    pool.begin().await.expect("begins").commit().await.expect("commits");
    // The connection is idle: this asks the server, and leaves before it answers. Once in a while the answer is there already.
    loop {
        let mut begin = pin!(pool.begin());
        if futures::poll!(&mut begin).is_pending() {
            break;
        }
    }
    // In a transaction it fails.
    sqlx::query("VACUUM pg_description").execute(&pool).await.expect("no transaction is open");
}
