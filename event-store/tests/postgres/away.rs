//! A database that is away: reported at once if its server refuses connections, and soon if it is silent.

use std::time::{Duration, Instant};

use event_store::contract::{append, stream};
use event_store::{AppendError, Journal, KeyStore, MasterKey, PostgresSettings, StoreError};
use test_services::Postgres;

use super::{open, url};

/// The longest that a caller waits.
const LONGEST: Duration = Duration::from_millis(5500);
/// Milliseconds, and less than any timeout even on a loaded machine.
const SOON: Duration = Duration::from_secs(4);

async fn timed<T>(run: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (run.await, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_connections_is_reported_at_once_with_the_cause() {
    let mut server = Postgres::start();
    let database = server.database();
    let journal = open(&database).await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    let (place, key) = (url(&database), MasterKey::generate());
    let keys = KeyStore::open_postgres(&place, PostgresSettings::default(), &key).await.expect("opens");
    for end in [Postgres::stop, Postgres::crash] {
        end(&mut server);
        for round in 0..3 {
            let (read, took) = timed(journal.read_all(0, 9)).await;
            let refused = |error: &str| error.contains("refuse");
            assert!(matches!(&read, Err(StoreError::Unavailable(why)) if refused(why)), "{round}: {read:?}");
            assert!(took < SOON, "{round}: {took:?}");
            let (head, took) = timed(journal.head()).await;
            assert!(head.is_err() && took < SOON, "{round}: {head:?} after {took:?}");
            let (checked, took) = timed(keys.check()).await;
            assert!(checked.is_err() && took < SOON, "{round}: {checked:?} after {took:?}");
            let (appended, took) = timed(journal.append(append(&stream("b"), 0, 1))).await;
            // The first one may have been sent on the ended connection: its outcome is unknown.
            let is_reported = match &appended {
                Err(AppendError::Unavailable(why)) => refused(why) && took < SOON,
                Err(AppendError::Unknown(_)) => round == 0 && took < LONGEST,
                _ => false,
            };
            assert!(is_reported, "{round}: {appended:?} after {took:?}");
        }
        server.up();
        let back = Instant::now();
        while journal.read_all(0, 9).await.is_err() {
            assert!(back.elapsed() < Duration::from_mins(1), "it is found again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_reported_within_five_seconds() {
    let server = Postgres::start();
    let database = server.database();
    let journal = open(&database).await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    server.signal("STOP");
    let (reads, appends) =
        tokio::join!(timed(journal.read_all(0, 9)), timed(journal.append(append(&stream("b"), 0, 1))));
    server.signal("CONT");
    let ((read, read_took), (appended, append_took)) = (reads, appends);
    assert!(
        matches!(&read, Err(StoreError::Unavailable(why)) if why.contains("does not answer")),
        "{read:?}"
    );
    assert!(matches!(appended, Err(AppendError::Unknown(_))), "{appended:?}");
    assert!(read_took < LONGEST && append_took < LONGEST, "{read_took:?}, {append_took:?}");
    let back = Instant::now();
    while journal.read_all(0, 9).await.is_err() {
        assert!(back.elapsed() < Duration::from_mins(1), "it is found again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
