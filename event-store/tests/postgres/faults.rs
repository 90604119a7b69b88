//! Failures between a node and its database.

use std::sync::Arc;
use std::time::Duration;

use event_store::contract::{append, claim, stream};
use event_store::{
    Append, AppendError, Appended, Cause, Idempotency, Journal, PostgresJournal, PostgresSettings, StoreError,
};
use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use test_services::{Fault, Postgres, Proxy};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::nodes::{check, load};
use super::{open, settings, url};

fn once() -> Idempotency {
    Idempotency { key: [1; 32], fingerprint: [2; 32] }
}

/// Sends appends through a network that fails at one of them, and returns the answers and a journal that bypasses it.
async fn through(
    fault: Fault,
    settings: PostgresSettings,
) -> (Vec<Result<Appended, AppendError>>, PostgresJournal) {
    let server = Postgres::shared();
    let database = server.database();
    let proxy = Proxy::start(server.port()).await;
    let journal =
        PostgresJournal::open(&url(&proxy.url(&database)), settings, &event_store::contract::macs())
            .await
            .expect("opens");
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    proxy.break_next(fault).await;
    let sent = [
        Append {
            idempotency: Some(once()),
            taken: vec![(claim("x"), stream("b"))],
            ..append(&stream("b"), 0, 2)
        },
        append(&stream("a"), 0, 1),
        Append { released: vec![claim("y")], ..append(&stream("a"), 1, 3) },
        Append { idempotency: Some(once()), ..append(&stream("c"), 0, 1) },
        Append { taken: vec![(claim("x"), stream("d"))], ..append(&stream("d"), 0, 1) },
    ];
    let answers = join_all(sent.into_iter().map(|append| journal.append(append))).await;
    assert!(proxy.is_done().await);
    // This one reads the database directly.
    (answers, open(&database).await)
}

async fn assert_settled(answers: &[Result<Appended, AppendError>], journal: &PostgresJournal) {
    let written = |first, last| Ok(Appended { first, last, replayed: false });
    let conflict = AppendError::Conflict { stream: stream("a"), actual: 1 };
    let expected = [
        written(2, 3),
        Err(conflict),
        written(4, 6),
        Ok(Appended { first: 2, last: 3, replayed: true }),
        Err(AppendError::ClaimTaken { claim: claim("x"), owner: stream("b") }),
    ];
    for (place, (answer, expected)) in answers.iter().zip(&expected).enumerate() {
        match (place, answer) {
            // Sent again, it meets a version that its own neighbour made.
            (1, Err(AppendError::Conflict { .. })) => {}
            _ => assert_eq!(answer, expected, "append {place}"),
        }
    }
    assert_eq!(journal.read_all(0, 99).await.expect("reads").len(), 6);
    assert_eq!(journal.versions(&[stream("a"), stream("b"), stream("c")]).await, Ok(vec![4, 2, 0]));
}

/// Invariants a and b: the answer to the commit is lost, the events are there, once.
#[tokio::test]
async fn inv_b_a_lost_commit_reply_is_settled() {
    let (answers, journal) = through(Fault::LoseReply, settings()).await;
    assert_settled(&answers, &journal).await;
}

#[tokio::test]
async fn inv_b_a_lost_request_is_sent_again() {
    let (answers, journal) = through(Fault::LoseRequest, settings()).await;
    assert_settled(&answers, &journal).await;
}

/// The first attempt arrives after the second was carried out: it changes nothing.
#[tokio::test]
async fn inv_b_a_late_request_changes_nothing() {
    let late = Duration::from_millis(2500);
    let hasty = PostgresSettings { statement_timeout: Duration::from_millis(500), ..settings() };
    let (answers, journal) = through(Fault::Late(late), hasty).await;
    assert_settled(&answers, &journal).await;
    sleep(late).await;
    assert_settled(&answers, &journal).await;
}

/// If no retry brings an answer, the outcome is reported as unknown; a later request finds it.
#[tokio::test]
async fn inv_b_what_cannot_be_settled_is_unknown_and_converges() {
    let mut server = Postgres::start();
    let database = server.database();
    let proxy = Proxy::start(server.port()).await;
    let impatient = PostgresSettings { patience: Duration::from_millis(300), ..settings() };
    let journal =
        PostgresJournal::open(&url(&proxy.url(&database)), impatient, &event_store::contract::macs())
            .await
            .expect("opens");
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    proxy.break_next(Fault::Late(Duration::from_hours(1))).await;
    let sent = append(&stream("a"), 1, 1);
    let sending = journal.append(sent.clone());
    let crash = async {
        sleep(Duration::from_millis(200)).await;
        server.crash();
    };
    let (answer, ()) = tokio::join!(sending, crash);
    assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
    let refused = journal.append(append(&stream("b"), 0, 1)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "nothing was sent: {refused:?}");
    assert!(journal.head().await.is_err());

    server.up();
    let again = loop {
        // On a busy machine it takes longer than this node waits until it is let in, and then until what was in doubt is
        // confirmed.
        match journal.append(sent.clone()).await {
            Err(AppendError::Unavailable(_) | AppendError::Unknown(_)) => {
                sleep(Duration::from_millis(50)).await;
            }
            answer => break answer,
        }
    };
    assert_eq!(again, Ok(Appended { first: 2, last: 2, replayed: false }));
    assert_eq!(journal.append(sent).await, again, "the same events again are the same append");
    assert_eq!(open(&database).await.read_all(0, 9).await.expect("reads").len(), 2);
}

/// A node that waits for its database even on a busy machine.
async fn patient(database: &str) -> Arc<PostgresJournal> {
    let minute = Duration::from_mins(1);
    let patient = PostgresSettings { patience: minute, answer: minute, grace: minute, ..settings() };
    Arc::new(
        PostgresJournal::open(&url(database), patient, &event_store::contract::macs()).await.expect("opens"),
    )
}

/// Loads both nodes while a task runs.
async fn load_while<T>(nodes: [&Arc<PostgresJournal>; 2], running: JoinHandle<T>) -> (T, Vec<Uuid>) {
    let mut acknowledged = Vec::new();
    let mut round = 0;
    while !running.is_finished() {
        round += 1;
        let [one, two] = [0, 1].map(|node| {
            let (journal, name) = (nodes[node].clone(), format!("{node} in round {round}"));
            async move { load(journal, &name, 5).await }
        });
        let (first, second) = tokio::join!(one, two);
        acknowledged.extend([first, second].concat());
    }
    (running.await.expect("ends"), acknowledged)
}

/// Invariants a and t: the database ends all connections again and again while two nodes write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_a_t_killed_backends_lose_nothing() {
    let server = Postgres::shared();
    let database = server.database();
    let (one, two) = (patient(&database).await, patient(&database).await);
    let admin = database.clone();
    let killer = tokio::task::spawn_blocking(move || {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = 'watchword' AND datname = current_database()";
        let kill = |_| {
            std::thread::sleep(Duration::from_millis(150));
            server.psql(&admin, sql).trim().parse::<u32>().expect("a number")
        };
        (0..10).map(kill).sum::<u32>()
    });
    let (ended, acknowledged) = load_while([&one, &two], killer).await;
    assert!(ended > 10);
    check(&*one, &acknowledged).await;
    let head = one.head().await.expect("has a head");
    for node in [&one, &two] {
        let follows = tokio::time::timeout(Duration::from_secs(10), async {
            node.watch_head().wait_for(|seen| *seen == head).await.map(|_| ())
        });
        follows.await.expect("soon").expect("lives");
    }
}

/// Invariants a and t: the whole server crashes under load, twice, and restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_a_t_a_crashed_server_loses_nothing() {
    let mut server = Postgres::start();
    let database = server.database();
    let (one, two) = (patient(&database).await, patient(&database).await);
    let crashes = tokio::task::spawn_blocking(move || {
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(150));
            server.crash();
            server.up();
        }
        server
    });
    let (_server, acknowledged) = load_while([&one, &two], crashes).await;
    check(&*one, &acknowledged).await;
}

/// The answer's rows come before the commit: what fails at the commit itself was not written.
#[tokio::test]
async fn goes_on_after_a_failed_commit() {
    let server = Postgres::shared();
    let database = server.database();
    let journal = open(&database).await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    server.psql(
        &database,
        "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = 'disk_full'; END $$;
         CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON watchword.events DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION trap()",
    );
    let refused = journal.append(append(&stream("a"), 1, 1)).await.expect_err("cannot commit");
    assert!(matches!(&refused, AppendError::Unavailable(why) if why.contains("disk is full")), "{refused}");
    assert!(matches!(&refused, AppendError::Unavailable(why) if why.cause == Cause::Full), "{refused:?}");
    assert!(journal.can_append().await.is_err() && journal.last_append().is_err());
    assert_eq!(journal.read_all(0, 9).await.expect("reads").len(), 1);
    server.psql(&database, "DROP TRIGGER trap ON watchword.events");
    assert_eq!(journal.append(append(&stream("a"), 1, 1)).await.expect("appends").first, 2);
    assert!(journal.can_append().await.is_ok() && journal.last_append().is_ok());
    assert_eq!(*journal.watch_head().borrow(), 2);
}

/// As after a failover to a replica, or when an administrator makes it so. Nobody has to append to find out.
#[tokio::test]
async fn a_read_only_database_is_known_without_an_append() {
    let database = Postgres::shared().database();
    let journal = open(&database).await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    let becomes = async |read_only: &str, expected: Option<Cause>| {
        let options: PgConnectOptions = database.parse().expect("a URL");
        let name = options.get_database().expect("a name").to_owned();
        let mut administrator = options.connect().await.expect("connects");
        for statement in [
            "SET default_transaction_read_only = off".to_owned(),
            format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = {read_only}"),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()"
                .to_owned(),
        ] {
            administrator.execute(AssertSqlSafe(statement)).await.expect("it may");
        }
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            let found = match journal.can_append().await {
                Err(StoreError::Unavailable(why)) => Some(why.cause),
                other => {
                    other.expect("it fails in no other way");
                    None
                }
            };
            if found == expected {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{found:?} and not {expected:?}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    becomes("on", Some(Cause::ReadOnly)).await;
    let sent = append(&stream("a"), 1, 1);
    let refused = journal.append(sent.clone()).await.expect_err("it is read-only");
    assert!(matches!(refused, AppendError::Unavailable(_) | AppendError::Unknown(_)), "{refused}");
    becomes("off", None).await;
    // The writer may have sent it again meanwhile: the same events are the same append.
    assert_eq!(journal.append(sent).await.expect("appends").first, 2);
}

/// An append that the database refuses must not fail its neighbours.
#[tokio::test]
async fn a_value_that_cannot_be_stored_spares_its_neighbours() {
    let journal = open(&Postgres::shared().database()).await;
    let mut bad = append(&stream("bad"), 0, 1);
    bad.writes[0].events[0].data = "\0".to_owned();
    let sent = [append(&stream("a"), 0, 1), bad, append(&stream("b"), 0, 1)];
    let answers = join_all(sent.into_iter().map(|append| journal.append(append))).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(
        matches!(&answers[1], Err(AppendError::Unavailable(why)) if why.cause == Cause::Refused),
        "{answers:?}"
    );
    assert!(journal.last_append().is_ok(), "it says nothing about other values");
    assert_eq!(journal.head().await, Ok(2));
}

/// If a session never releases the lock, for example a person in psql, appends fail in time, and work again after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_not_released_is_an_error_in_time() {
    let database = Postgres::shared().database();
    let hasty = PostgresSettings { statement_timeout: Duration::from_millis(300), ..settings() };
    let journal =
        PostgresJournal::open(&url(&database), hasty, &event_store::contract::macs()).await.expect("opens");
    let options: PgConnectOptions = database.parse().expect("a URL");
    let mut holder = options.connect().await.expect("connects");
    holder.execute("BEGIN").await.expect("begins");
    holder.execute("SELECT * FROM watchword.turn FOR UPDATE").await.expect("locks");
    let refused = journal.append(append(&stream("a"), 0, 1)).await.expect_err("cannot append");
    assert!(matches!(refused, AppendError::Unavailable(_)), "{refused}");
    assert_eq!(journal.head().await, Ok(0), "readers do not wait");
    holder.execute("COMMIT").await.expect("ends");
    assert_eq!(journal.append(append(&stream("a"), 0, 1)).await.expect("appends").first, 1);
}
