//! Several nodes, and several processes, on one journal.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use domain::StreamId;
use event_store::contract::{append, claim, stream};
use event_store::{Append, AppendError, Cursor, Journal};
use futures::future::join_all;
use test_services::Postgres;
use tokio::time::timeout;
use uuid::Uuid;

use super::open;

/// Names the database for a test program that runs as another process.
const DATABASE: &str = "TEST_OTHER_PROCESS_DATABASE";

/// Appends to its own streams and to a contended one, and takes contended claims. Returns the ids of the acknowledged
/// events.
pub(crate) async fn load(journal: Arc<dyn Journal>, name: &str, rounds: u64) -> Vec<Uuid> {
    let writer = |number: usize| {
        let journal = Arc::clone(&journal);
        let own = stream(&format!("{name}-{number}"));
        async move {
            let mut acknowledged = Vec::new();
            let (mut shared_version, mut own_version) = (0, 0);
            for round in 0..rounds {
                let key = format!("claim {round}");
                let send = Append { taken: vec![(claim(&key), own.clone())], ..append(&own, own_version, 2) };
                let ids: Vec<Uuid> = send.writes[0].events.iter().map(|event| event.id).collect();
                match journal.append(send).await {
                    Ok(_) => {
                        acknowledged.extend(ids);
                        own_version += 2;
                    }
                    Err(AppendError::ClaimTaken { owner, .. }) => assert_ne!(owner, own),
                    Err(error) => panic!("{error}"),
                }
                // Until this writer wins.
                loop {
                    let send = append(&stream("shared"), shared_version, 1);
                    let id = send.writes[0].events[0].id;
                    match journal.append(send).await {
                        Ok(_) => {
                            acknowledged.push(id);
                            shared_version += 1;
                            break;
                        }
                        Err(AppendError::Conflict { actual, .. }) => shared_version = actual,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            acknowledged
        }
    };
    join_all((0..4).map(writer)).await.concat()
}

/// Invariant a, and that each claim has one owner, which wrote its events.
pub(crate) async fn check(journal: &dyn Journal, acknowledged: &[Uuid]) {
    let events = journal.read_all(0, usize::MAX).await.expect("reads");
    let mut versions = BTreeMap::new();
    for (event, position) in events.iter().zip(1..) {
        assert_eq!(event.position, position, "positions have no gaps");
        let version = versions.entry(&event.stream).or_insert(0);
        *version += 1;
        assert_eq!(event.version, *version, "versions of {} have no gaps", event.stream);
    }
    assert_eq!(journal.head().await, Ok(events.len() as u64));
    let ids: BTreeSet<Uuid> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), events.len(), "no event exists twice");
    let known: BTreeSet<Uuid> = acknowledged.iter().copied().collect();
    assert_eq!(known.len(), acknowledged.len());
    assert_eq!(known, ids, "exactly the acknowledged events exist");
    for (claim, owner) in journal.claims("email", "").await.expect("reads") {
        assert!(versions.contains_key(&owner), "{} belongs to {owner}, who wrote nothing", claim.key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_a_h_nodes_that_race_write_one_log() {
    let database = Postgres::shared().database();
    let (one, two) = (Arc::new(open(&database).await), Arc::new(open(&database).await));
    let (first, second) = tokio::join!(load(one.clone(), "one", 40), load(two.clone(), "two", 40));
    check(&*one, &[first, second].concat()).await;
    assert_eq!(one.read_all(0, usize::MAX).await, two.read_all(0, usize::MAX).await);
    assert_eq!(one.claims("email", "").await.expect("reads").len(), 40);
}

/// Started by [`inv_a_h_processes_that_race_write_one_log`]; on its own it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process() {
    let Ok(database) = std::env::var(DATABASE) else { return };
    let journal = Arc::new(open(&database).await);
    for id in load(journal, &format!("process {}", std::process::id()), 25).await {
        println!("acknowledged={id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_a_h_processes_that_race_write_one_log() {
    let database = Postgres::shared().database();
    let start = || {
        Command::new(std::env::current_exe().expect("has a path"))
            .args(["--exact", "nodes::another_process", "--nocapture"])
            .env(DATABASE, &database)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts")
    };
    let processes = [start(), start()];
    let mut acknowledged = Vec::new();
    for process in processes {
        let output = process.wait_with_output().expect("ends");
        let text = String::from_utf8(output.stdout).expect("is text");
        assert!(output.status.success(), "{text}");
        let ids = text.lines().filter_map(|line| line.split_once("acknowledged=")).map(|(_, id)| id);
        acknowledged.extend(ids.map(|id| id.parse::<Uuid>().expect("an id")));
    }
    assert!(acknowledged.len() > 2 * 4 * 25, "{}", acknowledged.len());
    check(&open(&database).await, &acknowledged).await;
}

/// A node is notified at once of what another one wrote; without notifications, it polls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_follows_what_others_write() {
    let database = Postgres::shared().database();
    let patient = event_store::PostgresSettings { poll: Duration::from_hours(1), ..super::settings() };
    let listening =
        event_store::PostgresJournal::open(&super::url(&database), patient, &event_store::contract::macs())
            .await
            .expect("opens");
    let looking = open(&database).await;
    let writing = open(&database).await;
    let (mut heard, mut seen) = (listening.watch_head(), looking.watch_head());
    // The first poll comes after LISTEN has taken effect.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for position in 1..=5 {
        writing.append(append(&stream("a"), position - 1, 1)).await.expect("appends");
        assert_eq!(*writing.watch_head().borrow(), position, "a node knows what it wrote itself");
        for follower in [&mut heard, &mut seen] {
            let reached = follower.wait_for(|head| *head == position);
            timeout(Duration::from_mins(1), reached).await.expect("soon").expect("lives");
        }
        if position == 3 {
            // The listeners reconnect.
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' \
                 AND datname = current_database()";
            assert_eq!(Postgres::shared().psql(&database, sql).trim(), "3");
            let sql = sql.replace("pg_terminate_backend(pid)", "*");
            let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
            while Postgres::shared().psql(&database, &sql).trim() != "3" {
                assert!(tokio::time::Instant::now() < deadline, "they listen again");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A node does not ask for versions that it knows, so it must notice when another one has written.
#[tokio::test]
async fn inv_e_what_a_node_knows_ends_where_another_one_writes() {
    let database = Postgres::shared().database();
    let (one, two) = (open(&database).await, open(&database).await);
    let (s, t, guard) = (stream("s"), stream("t"), stream("guard"));
    let guarded = |version, guard_version| Append {
        guards: vec![(guard.clone(), guard_version)],
        ..append(&s, version, 1)
    };
    let conflict = |stream: &StreamId, actual| AppendError::Conflict { stream: stream.clone(), actual };
    one.append(append(&guard, 0, 1)).await.expect("writes");
    for version in 0..3 {
        one.append(guarded(version, 1)).await.expect("writes what it knows");
    }
    assert_eq!(one.append(guarded(2, 1)).await, Err(conflict(&s, 3)), "behind what it knows");
    assert_eq!(one.append(guarded(4, 1)).await, Err(conflict(&s, 3)), "ahead of it");
    assert_eq!(one.append(guarded(3, 2)).await, Err(conflict(&guard, 1)), "a guard ahead of it");
    assert_eq!(one.append(guarded(3, 0)).await, Err(conflict(&guard, 1)), "a guard behind it");
    one.append(guarded(3, 1)).await.expect("writes");

    two.append(append(&t, 0, 1)).await.expect("writes something else");
    one.append(guarded(4, 1)).await.expect("writes, having looked");
    two.append(append(&s, 5, 1)).await.expect("writes the same stream");
    assert_eq!(one.append(guarded(5, 1)).await, Err(conflict(&s, 6)), "another one wrote");
    two.append(append(&guard, 1, 1)).await.expect("writes the guard");
    assert_eq!(one.append(guarded(6, 1)).await, Err(conflict(&guard, 2)), "another one wrote the guard");
    one.append(guarded(6, 2)).await.expect("writes");

    // In one group: the second builds on the first, the third on neither.
    let (first, second, third) =
        tokio::join!(one.append(guarded(7, 2)), one.append(guarded(8, 2)), one.append(guarded(8, 2)));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(third, Err(conflict(&s, 9)));
    let versions: Vec<u64> =
        two.read_stream(&s, 0).await.expect("reads").iter().map(|event| event.version).collect();
    assert_eq!(versions, (1..=9).collect::<Vec<_>>());
}

/// One node at a time performs an effect: another one takes over when the first falls silent or releases it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cursor_of_an_effect_has_one_holder() {
    let database = Postgres::shared().database();
    let journal = open(&database).await;
    journal.append(append(&stream("a"), 0, 5)).await.expect("appends");
    let (short, long) = (Duration::from_millis(100), Duration::from_hours(1));
    let hold = async |holder, lasts| journal.hold_cursor("mail", holder, lasts).await.expect("works");
    let first = hold("a", long).await.expect("is free");
    assert_eq!(hold("b", long).await, None);
    assert_eq!(hold("a", short).await, Some(first), "its holder keeps it, now for a shorter time");
    tokio::time::sleep(2 * short).await;
    let second = hold("b", long).await.expect("its holder fell silent");
    assert_eq!((second.position, second.epoch), (first.position, first.epoch + 1));
    assert_eq!(hold("a", long).await, None);
    assert_eq!(journal.move_cursor("mail", Cursor { position: 1, ..first }).await, Ok(false), "it slept");
    journal.release_cursor("mail", first).await.expect("has no effect");
    assert_eq!(hold("a", long).await, None);
    assert_eq!(journal.move_cursor("mail", Cursor { position: 2, ..second }).await, Ok(true));
    journal.release_cursor("mail", second).await.expect("releases");
    let third = hold("a", long).await.expect("is free");
    assert_eq!((third.position, third.epoch), (2, second.epoch + 1));
}
