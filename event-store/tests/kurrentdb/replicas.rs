//! The replica: rebuilt if it is missing, and never trusted over the stream.

use std::time::Duration;

use event_store::contract::{append, claim, stream};
use event_store::{
    Append, AppendError, Clock, Cursor, Idempotency, Journal, KurrentSettings, OpenError, Snapshot,
    SqliteJournal, StoredIdempotency, SystemClock,
};

use futures::future::join_all;
use jiff::SignedDuration;

use super::World;
use super::server::StoredEvent;

#[tokio::test]
async fn given_no_replica_when_a_node_starts_then_it_has_all_that_was_ever_written() {
    let world = World::new().await;
    let journal = world.open("one").await;
    let idempotency = Some(Idempotency { key: [1; 32], fingerprint: [2; 32] });
    let full = Append { taken: vec![(claim("x"), stream("a"))], idempotency, ..append(&stream("a"), 0, 3) };
    journal.append(full).await.expect("appends");
    // More than fit in one group.
    let many = (0..700).map(|number| journal.append(append(&stream(&format!("b{number}")), 0, 1)));
    assert!(join_all(many).await.iter().all(Result::is_ok));
    let events = journal.read_all(0, usize::MAX).await.expect("reads");
    journal.close().await;
    std::fs::remove_file(world.replica("one")).expect("is there");
    for node in ["one", "two"] {
        let journal = world.open(node).await;
        assert_eq!(journal.read_all(0, usize::MAX).await.expect("reads"), events, "{node}");
        assert_eq!(journal.claim_owner(&claim("x")).await, Ok(Some(stream("a"))));
        let stored = StoredIdempotency { fingerprint: [2; 32], first: 1, last: 3 };
        assert_eq!(journal.idempotent(&[1; 32]).await, Ok(Some(stored)));
        assert_eq!(journal.versions(&[stream("a"), stream("b699")]).await, Ok(vec![3, 1]));
        journal.close().await;
    }
}

#[tokio::test]
async fn given_a_replica_that_is_behind_when_its_node_starts_then_it_reads_only_what_is_new() {
    let world = World::stand_in().await;
    let (one, two) = (world.open("one").await, world.open("two").await);
    one.append(append(&stream("a"), 0, 2)).await.expect("appends");
    one.close().await;
    two.append(append(&stream("a"), 2, 1)).await.expect("appends");
    // Known events are not read again, so this change goes unnoticed.
    world.server().tamper(&world.stream, |events| events[0].set_data(b"{}"));
    let one = world.open("one").await;
    assert_eq!(one.read_stream(&stream("a"), 0).await.expect("reads").len(), 3);
}

#[tokio::test]
async fn after_it_is_closed_only_the_replica_and_its_lock_are_left() {
    let world = World::new().await;
    let journal = world.open("one").await;
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    let in_use = world.try_open("one", world.settings()).await.err().expect("is refused");
    assert!(matches!(in_use, OpenError::InUse(_)), "{in_use}");
    // It does not open as a journal: what is written to it would reach no other node.
    let foreign = SqliteJournal::open(&world.replica("one"), &event_store::contract::macs())
        .await
        .err()
        .expect("is refused");
    assert!(matches!(foreign, OpenError::InUse(_)), "{foreign}");
    journal.close().await;
    let foreign = SqliteJournal::open(&world.replica("one"), &event_store::contract::macs())
        .await
        .err()
        .expect("is refused");
    assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");
    assert!(matches!(journal.append(append(&stream("a"), 1, 1)).await, Err(AppendError::Unavailable(_))));
    assert!(journal.head().await.is_err());
    let mut left: Vec<_> = std::fs::read_dir(world.folder.path())
        .expect("is there")
        .map(|entry| entry.expect("is there").file_name().into_string().expect("is text"))
        .collect();
    left.sort();
    assert_eq!(left, ["one.db", "one.db.lock"]);
    world.open("one").await.append(append(&stream("a"), 1, 1)).await.expect("appends");
}

#[tokio::test]
async fn given_a_replica_of_another_stream_when_its_node_starts_then_it_is_refused() {
    let world = World::new().await;
    let journal = world.open("one").await;
    journal.append(append(&stream("a"), 0, 2)).await.expect("appends");
    journal.close().await;
    let elsewhere = || KurrentSettings { stream: format!("{}-2", world.stream), ..world.hasty() };
    let refused = world.try_open("one", elsewhere()).await.err().expect("is refused");
    assert!(matches!(&refused, OpenError::Away { .. }), "{refused}");
    assert!(refused.to_string().contains("ends before event 2"), "{refused}");
    // The same if another event has that position.
    let other = world.try_open("two", elsewhere()).await.expect("opens");
    other.append(append(&stream("b"), 0, 3)).await.expect("appends");
    let refused = world.try_open("one", elsewhere()).await.err().expect("is refused");
    let OpenError::Damaged { path, what } = &refused else { panic!("{refused}") };
    assert!(path.ends_with("one.db") && what.contains("event 2 of the stream is not the one"), "{refused}");
    world.open("one").await.append(append(&stream("a"), 2, 1)).await.expect("its own is as it was");
}

/// Tampering with a stream, and the resulting error.
type Tampering = (fn(&mut Vec<StoredEvent>), &'static str);

#[tokio::test]
async fn given_a_stream_that_goes_back_behind_what_a_node_saw_when_it_is_read_then_the_node_stops_and_says_why()
 {
    let cases: [Tampering; 2] = [
        (|events| events.truncate(1), "ends before event 2"),
        (|events| events[1] = events[0].clone(), "event 2 of the stream is not the one"),
    ];
    for (change, reason) in cases {
        let world = World::stand_in().await;
        let journal = world.try_open("one", world.hasty()).await.expect("opens");
        journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
        journal.append(append(&stream("a"), 1, 1)).await.expect("appends");
        world.server().tamper(&world.stream, change);
        let error = journal.head().await.expect_err(reason);
        assert!(error.to_string().contains(reason), "{error}");
        let refused = journal.append(append(&stream("a"), 2, 1)).await.expect_err(reason);
        assert!(matches!(refused, AppendError::Unavailable(_)), "{refused}");
        assert_eq!(*journal.watch_head().borrow(), 2);
    }
}

/// What KurrentDB's own tools show of a journal; here its official client.
#[tokio::test]
async fn events_are_json_under_their_own_names() {
    let world = World::new().await;
    let journal = world.open("one").await;
    let sent = append(&stream("a"), 0, 1);
    let data = sent.writes[0].events[0].data.clone();
    journal.append(sent).await.expect("appends");
    let client = eventstore::Client::new(world.text.parse().expect("a URL")).expect("is made");
    let all = eventstore::ReadStreamOptions::default();
    let mut events = client.read_stream(world.stream.as_str(), &all).await.expect("reads");
    let event = events.next().await.expect("reads").expect("there is one").event.expect("is no link");
    assert_eq!((event.event_type.as_str(), event.is_json, event.revision), ("AppEnabled", true, 0));
    assert_eq!(event.data, data.as_bytes());
    let about: serde_json::Value = serde_json::from_slice(&event.custom_metadata).expect("is JSON");
    assert_eq!((&about["stream"], &about["version"]), (&"app-a".into(), &1.into()));
    assert_eq!(about["append"]["events"], 1);
}

#[tokio::test]
async fn each_node_has_its_own_snapshots() {
    let world = World::new().await;
    let (one, two) = (world.open("one").await, world.open("two").await);
    let snapshot = Snapshot { version: 5, state: vec![0, 255] };
    one.save_snapshot(&stream("a"), snapshot.clone()).await.expect("saves");
    assert_eq!(two.load_snapshot(&stream("a")).await, Ok(None));
    one.close().await;
    let one = world.open("one").await;
    assert_eq!(one.load_snapshot(&stream("a")).await, Ok(Some(snapshot)));
}

#[tokio::test]
async fn the_error_for_an_absent_server_does_not_contain_the_password() {
    let world = World::on(None, "esdb://ada:hunter2@127.0.0.1:9?tls=false");
    let hasty = KurrentSettings { answer_timeout: Duration::from_millis(200), ..world.settings() };
    let refused = world.try_open("one", hasty).await.err().expect("is refused");
    assert!(matches!(refused, OpenError::Away { .. }), "{refused}");
    let text = format!("{refused} {refused:?}");
    assert!(text.contains("esdb://127.0.0.1:9") && !text.contains("hunter2"), "{text}");
}

/// One node forgot an idempotency key and accepted it for another request, while the other node still knew it.
#[tokio::test]
async fn given_a_key_that_one_node_forgot_when_it_is_used_again_then_all_nodes_follow() {
    let world = World::new().await;
    let (one, two) = (world.open("one").await, world.open("two").await);
    let keyed = |name: &str, fingerprint| {
        let idempotency = Some(Idempotency { key: [1; 32], fingerprint: [fingerprint; 32] });
        Append { idempotency, ..append(&stream(name), 0, 1) }
    };
    one.append(keyed("a", 1)).await.expect("appends");
    assert_eq!(two.head().await, Ok(1));
    let later = SystemClock.now() + SignedDuration::from_hours(1);
    assert_eq!(one.forget_idempotency(None, later).await, Ok(Some([1; 32])));
    one.append(keyed("b", 2)).await.expect("is another request");
    let stored = StoredIdempotency { fingerprint: [2; 32], first: 2, last: 2 };
    assert_eq!(two.idempotent(&[1; 32]).await, Ok(Some(stored)));
    // A new node reads both.
    assert_eq!(world.open("three").await.idempotent(&[1; 32]).await, Ok(Some(stored)));
}

/// One node at a time performs an effect: another one takes over when the first falls silent or releases it.
#[tokio::test]
async fn the_cursor_of_an_effect_has_one_holder() {
    let world = World::new().await;
    let (one, two) = (world.open("one").await, world.open("two").await);
    one.append(append(&stream("a"), 0, 5)).await.expect("appends");
    let (short, long) = (Duration::from_millis(200), Duration::from_hours(1));
    let first = one.hold_cursor("mail", "one", long).await.expect("works").expect("is free");
    assert_eq!((first.position, first.epoch), (5, 1));
    assert_eq!(two.hold_cursor("mail", "two", long).await, Ok(None));
    let again = one.hold_cursor("mail", "one", short).await.expect("works");
    assert_eq!(again, Some(first), "its holder keeps it, now for a shorter time");
    assert_eq!(two.hold_cursor("mail", "two", long).await, Ok(None), "its holder was active just now");
    tokio::time::sleep(2 * short).await;
    let second = two.hold_cursor("mail", "two", long).await.expect("works").expect("its holder fell silent");
    assert_eq!((second.position, second.epoch), (5, 2));
    assert_eq!(one.move_cursor("mail", Cursor { position: 1, ..first }).await, Ok(false), "it slept");
    one.release_cursor("mail", first).await.expect("has no effect");
    assert_eq!(one.hold_cursor("mail", "one", long).await, Ok(None));
    assert_eq!(two.move_cursor("mail", Cursor { position: 2, ..second }).await, Ok(true));
    two.release_cursor("mail", second).await.expect("releases");
    let third = one.hold_cursor("mail", "one", long).await.expect("works").expect("is free");
    assert_eq!((third.position, third.epoch), (2, 3));
    // It does not depend on a node's replica.
    two.close().await;
    std::fs::remove_file(world.replica("two")).expect("is there");
    let two = world.open("two").await;
    assert_eq!(two.hold_cursor("mail", "two", long).await, Ok(None));
    assert_eq!(two.hold_cursor("mail", "one", long).await, Ok(Some(third)));
}

/// If nodes ask at the same moment, one gets it.
#[tokio::test]
async fn a_cursor_that_all_want_goes_to_one() {
    let world = World::new().await;
    let mut nodes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        nodes.push((name, world.open(name).await));
    }
    let asked = nodes.iter().map(|(name, node)| node.hold_cursor("mail", name, Duration::from_hours(1)));
    let answers = join_all(asked).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(answers.iter().flatten().flatten().count(), 1, "{answers:?}");
}
