//! Messages lost or delayed between a node and the server.

use std::time::Duration;

use event_store::contract::{append, claim, stream};
use event_store::{
    Append, AppendError, Appended, Idempotency, Journal, KurrentJournal, KurrentSettings, OpenError,
    StoreError,
};
use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::World;
use super::relay::Fault;
use super::server::Refusal;

async fn ids(journal: &KurrentJournal) -> Vec<uuid::Uuid> {
    let events = journal.read_all(0, usize::MAX).await.expect("reads");
    let positions: Vec<u64> = events.iter().map(|event| event.position).collect();
    assert_eq!(positions, (1..=events.len() as u64).collect::<Vec<_>>());
    events.into_iter().map(|event| event.id).collect()
}

/// The node makes no requests except those of the test.
fn quiet(world: &World) -> KurrentSettings {
    KurrentSettings { poll: Duration::from_hours(1), ..world.settings() }
}

#[tokio::test]
async fn given_a_lost_request_or_reply_when_an_append_is_sent_again_then_it_is_written_once() {
    for fault in [Fault::LoseRequest, Fault::LoseReply] {
        let world = World::relayed().await;
        let journal = world.try_open("one", quiet(&world)).await.expect("opens");
        journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
        let before = world.relay().calls();
        world.relay().fail(&[fault, fault]);
        let sent = Append { taken: vec![(claim("x"), stream("a"))], ..append(&stream("a"), 1, 2) };
        let answer = journal.append(sent).await;
        assert_eq!(answer, Ok(Appended { first: 2, last: 3, replayed: false }), "{fault:?}");
        assert_eq!(world.relay().calls() - before, 3, "{fault:?}");
        assert_eq!(ids(&journal).await.len(), 3, "{fault:?}");
    }
}

#[tokio::test]
async fn given_a_reply_lost_and_another_node_behind_it_when_it_is_sent_again_then_it_is_known_as_written() {
    let world = World::relayed().await;
    let (one, two) = (world.try_open("one", quiet(&world)), world.try_open("two", quiet(&world)));
    let (one, two) = (one.await.expect("opens"), two.await.expect("opens"));
    // The second attempt may come when the other node's events are already there: then the answer is that the position
    // is taken.
    let before = world.relay().calls();
    world.relay().fail(&[Fault::LoseReply]);
    let sent = append(&stream("a"), 0, 1);
    let id = sent.writes[0].events[0].id;
    let (first, second) = tokio::join!(one.append(sent), async {
        while world.relay().calls() == before {
            tokio::task::yield_now().await;
        }
        two.append(append(&stream("b"), 0, 1)).await
    });
    let (first, second) = (first.expect("is written"), second.expect("is written"));
    assert_eq!((first.replayed, first.first + second.first), (false, 3));
    assert_eq!(ids(&one).await.iter().filter(|it| **it == id).count(), 1);
    assert_eq!(ids(&one).await, ids(&two).await);
}

#[tokio::test]
async fn given_an_append_that_arrives_late_when_it_is_asked_for_again_then_there_is_one() {
    let world = World::relayed().await;
    let hasty = KurrentSettings { patience: Duration::from_millis(1), ..quiet(&world) };
    let journal = world.try_open("one", hasty).await.expect("opens");
    world.relay().fail(&[Fault::Late]);
    let sent = || Append {
        idempotency: Some(Idempotency { key: [1; 32], fingerprint: [1; 32] }),
        ..append(&stream("a"), 0, 2)
    };
    let unknown = journal.append(sent()).await;
    assert!(matches!(unknown, Err(AppendError::Unknown(_))), "{unknown:?}");
    assert_eq!(ids(&journal).await.len(), 0, "it is not there yet");
    world.relay().deliver().await;
    assert_eq!(ids(&journal).await.len(), 2, "it is there now");
    let again = journal.append(sent()).await;
    assert_eq!(again, Ok(Appended { first: 1, last: 2, replayed: true }));
}

#[tokio::test]
async fn given_an_append_that_arrives_late_when_its_place_is_taken_then_it_is_never_written() {
    let world = World::relayed().await;
    let hasty = KurrentSettings { patience: Duration::from_millis(1), ..quiet(&world) };
    let journal = world.try_open("one", hasty).await.expect("opens");
    world.relay().fail(&[Fault::Late]);
    let late = append(&stream("a"), 0, 2);
    assert!(matches!(journal.append(late.clone()).await, Err(AppendError::Unknown(_))));
    journal.append(append(&stream("b"), 0, 1)).await.expect("appends");
    world.relay().deliver().await;
    assert_eq!(ids(&journal).await.len(), 1);
    assert_eq!(journal.append(late).await, Ok(Appended { first: 2, last: 3, replayed: false }));
}

/// Once a node has seen that others write, it need not poll: what they write is pushed, even across broken connections.
#[tokio::test]
async fn given_a_node_that_others_write_beside_when_they_write_again_then_it_is_pushed() {
    let world = World::relayed().await;
    let (one, two) = (world.try_open("one", quiet(&world)), world.try_open("two", quiet(&world)));
    let (one, two) = (one.await.expect("opens"), two.await.expect("opens"));
    one.append(append(&stream("a"), 0, 1)).await.expect("appends");
    assert_eq!(ids(&two).await.len(), 1);
    for position in 2..=4 {
        one.append(append(&stream("a"), position - 1, 1)).await.expect("appends");
        let mut heads = two.watch_head();
        let pushed = heads.wait_for(|head| *head == position);
        timeout(Duration::from_secs(20), pushed).await.expect("in time").expect("lives");
        world.relay().set_down(true);
        world.relay().set_down(false);
    }
    assert_eq!(ids(&one).await, ids(&two).await);
}

/// Every caller gets an answer within the time that a caller waits, however many there are, and no outdated one.
#[tokio::test]
async fn given_a_server_that_is_silent_when_it_is_asked_then_nobody_waits_for_long() {
    let world = World::relayed().await;
    let patient = KurrentSettings {
        answer_timeout: Duration::from_hours(1),
        patience: Duration::from_hours(1),
        answer: Duration::from_millis(500),
        ..world.settings()
    };
    let journal = world.try_open("one", patient).await.expect("opens");
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    world.relay().set_silent(true);
    let begun = Instant::now();
    for round in 0..2 {
        let name = stream(&format!("b{round}"));
        let (written, head, versions, cursor) = tokio::join!(
            journal.append(append(&name, 0, 1)),
            journal.head(),
            journal.versions(std::slice::from_ref(&name)),
            journal.hold_cursor("mail", "one", Duration::from_hours(1)),
        );
        assert!(matches!(written, Err(AppendError::Unknown(_) | AppendError::Unavailable(_))), "{written:?}");
        for error in [head.err(), versions.err(), cursor.err()] {
            assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
        }
    }
    assert!(begun.elapsed() < Duration::from_mins(1), "and not hours");
}

/// Nodes wait while others write or a leader is elected; a server that refuses connections is reported at once.
#[tokio::test]
async fn given_nobody_there_when_a_node_asks_then_it_hears_at_once() {
    let world = World::stand_in().await;
    let patient = KurrentSettings {
        answer_timeout: Duration::from_hours(1),
        patience: Duration::from_hours(1),
        answer: Duration::from_hours(1),
        ..world.settings()
    };
    let journal = world.try_open("one", patient.clone()).await.expect("opens");
    let World { stand_in, folder, stream: name, .. } = world;
    let url = stand_in.as_ref().expect("it is the stand-in").url();
    stand_in.expect("it is the stand-in").stop().await;
    let begun = Instant::now();
    // The existing connection ends, and no new one can be made.
    let refused = journal.append(append(&stream("a"), 0, 1)).await.expect_err("is refused");
    assert!(refused.to_string().contains("the server is not running"), "{refused}");
    let error = journal.head().await.expect_err("is refused");
    assert!(error.to_string().contains("the server is not running"), "{error}");
    let gone = World { stream: name, folder, ..World::on(None, &url) };
    let error = gone.try_open("two", patient).await.err().expect("is refused");
    assert!(matches!(&error, OpenError::Away { reason, .. } if reason.contains("is not running")), "{error}");
    assert!(begun.elapsed() < Duration::from_mins(1), "and not hours");
}

#[tokio::test]
async fn given_a_server_that_is_down_when_it_comes_back_then_a_node_goes_on() {
    let world = World::relayed().await;
    let journal = world.try_open("one", world.hasty()).await.expect("opens");
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    world.relay().set_down(true);
    let refused = journal.append(append(&stream("a"), 1, 1)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_) | AppendError::Unknown(_))), "{refused:?}");
    assert!(matches!(journal.head().await, Err(StoreError::Unavailable(_))), "nothing old is shown as new");
    assert!(journal.versions(&[stream("a")]).await.is_err());
    world.relay().set_down(false);
    assert_eq!(journal.head().await, Ok(1));
    journal.append(append(&stream("a"), 1, 1)).await.expect("appends");
}

#[tokio::test]
async fn given_an_append_that_the_server_refuses_when_it_is_in_a_group_then_its_neighbours_are_written() {
    let world = World::new().await;
    let journal = world.open("one").await;
    let giant = {
        let mut giant = append(&stream("giant"), 0, 1);
        giant.writes[0].events[0].data = format!(r#"{{"x":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
        giant
    };
    let appends = [append(&stream("a"), 0, 1), giant, append(&stream("b"), 0, 1)];
    let answers = join_all(appends.map(|append| journal.append(append))).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(AppendError::Unavailable(_))), "{answers:?}");
    assert_eq!(ids(&journal).await.len(), 2);
}

/// If a server refuses a group, each of its appends gets its own answer.
#[tokio::test]
async fn given_a_group_that_the_server_refuses_when_its_appends_are_sent_alone_then_they_are_written() {
    let world = World::stand_in().await;
    let journal = world.open("one").await;
    world.server().fail(&[Refusal::Group]);
    let names = ["c", "d", "e"];
    let answers = join_all(names.map(|name| journal.append(append(&stream(name), 0, 1)))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(ids(&journal).await.len(), 3);
}

/// A server that answers that it is not ready, as during a start or an election.
#[tokio::test]
async fn given_a_server_that_is_not_ready_when_it_is_then_a_node_goes_on() {
    let world = World::stand_in().await;
    let journal = world.try_open("one", world.hasty()).await.expect("opens");
    world.server().set_down(true);
    assert!(matches!(journal.head().await, Err(StoreError::Unavailable(_))), "nothing old is shown as new");
    let refused = journal.append(append(&stream("a"), 0, 1)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_) | AppendError::Unknown(_))), "{refused:?}");
    world.server().set_down(false);
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
}

/// Readers do not ask the server if an append has already shown that nothing is new.
#[tokio::test]
async fn an_append_saves_its_readers_a_request() {
    let world = World::relayed().await;
    let journal = world.try_open("one", quiet(&world)).await.expect("opens");
    let before = world.relay().calls();
    let of = [stream("a")];
    let sent = append(&of[0], 0, 1);
    let (written, head, versions) = tokio::join!(journal.append(sent), journal.head(), journal.versions(&of));
    assert_eq!((written.map(|it| it.last), head, versions), (Ok(1), Ok(1), Ok(vec![1])));
    assert_eq!(world.relay().calls() - before, 1);
}

#[tokio::test]
async fn a_node_follows_what_others_write() {
    let world = World::new().await;
    let (writing, following) = (world.open("one").await, world.open("two").await);
    let mut head = following.watch_head();
    for position in 1..=5 {
        writing.append(append(&stream("a"), position - 1, 1)).await.expect("appends");
        assert_eq!(*writing.watch_head().borrow(), position, "a node knows what it wrote itself");
        let reached = head.wait_for(|head| *head == position);
        timeout(Duration::from_mins(1), reached).await.expect("soon").expect("lives");
    }
}

/// Nodes compete for each position, and the loser starts later for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_never_stop_writing_leave_each_other_a_turn() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 100;
    let world = World::new().await;
    let nodes = [world.open("one").await, world.open("two").await];
    let writers = nodes.iter().enumerate().flat_map(|(node, journal)| {
        (0..WRITERS).map(move |writer| async move {
            let own = stream(&format!("{node}x{writer}"));
            for version in 0..EACH {
                journal.append(append(&own, version, 1)).await.expect("has a turn within its patience");
            }
        })
    });
    join_all(writers).await;
    assert_eq!(ids(&nodes[0]).await.len() as u64, 2 * WRITERS * EACH);
    assert_eq!(ids(&nodes[0]).await, ids(&nodes[1]).await);
}
