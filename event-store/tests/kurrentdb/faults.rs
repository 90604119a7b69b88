//! What is lost between a node and the server, and what comes late.

use std::time::Duration;

use event_store::contract::{append, claim, stream};
use event_store::{
    Append, AppendError, Appended, Idempotency, Journal, KurrentJournal, KurrentSettings, StoreError,
};
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::World;
use super::server::Fault;

async fn ids(journal: &KurrentJournal) -> Vec<uuid::Uuid> {
    let events = journal.read_all(0, usize::MAX).await.expect("reads");
    let positions: Vec<u64> = events.iter().map(|event| event.position).collect();
    assert_eq!(positions, (1..=events.len() as u64).collect::<Vec<_>>());
    events.into_iter().map(|event| event.id).collect()
}

#[tokio::test]
async fn given_a_lost_request_or_reply_when_an_append_is_sent_again_then_it_is_written_once() {
    for fault in [Fault::LoseRequest, Fault::LoseReply] {
        let world = World::stand_in().await;
        let journal = world.open("one").await;
        journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
        world.server().fail(&[fault, fault]);
        let sent = Append { taken: vec![(claim("x"), stream("a"))], ..append(&stream("a"), 1, 2) };
        let answer = journal.append(sent).await;
        assert_eq!(answer, Ok(Appended { first: 2, last: 3, replayed: false }), "{fault:?}");
        assert_eq!(ids(&journal).await.len(), 3, "{fault:?}");
        assert_eq!(world.server().requests().0, 1 + 3, "{fault:?}");
    }
}

#[tokio::test]
async fn given_a_reply_lost_and_another_node_behind_it_when_it_is_sent_again_then_it_is_known_as_written() {
    let world = World::stand_in().await;
    let (one, two) = (world.open("one").await, world.open("two").await);
    // The second attempt comes when the other node's events are there already: the answer is that the place is taken.
    world.server().fail(&[Fault::LoseReply]);
    let sent = append(&stream("a"), 0, 1);
    let id = sent.writes[0].events[0].id;
    let (first, second) = tokio::join!(one.append(sent), async {
        while world.server().requests().0 == 0 {
            tokio::task::yield_now().await;
        }
        two.append(append(&stream("b"), 0, 1)).await
    });
    assert_eq!(first, Ok(Appended { first: 1, last: 1, replayed: false }));
    assert_eq!(second, Ok(Appended { first: 2, last: 2, replayed: false }));
    assert_eq!(ids(&one).await[0], id);
    assert_eq!(ids(&one).await, ids(&two).await);
}

#[tokio::test]
async fn given_an_append_that_arrives_late_when_it_is_asked_for_again_then_there_is_one() {
    let world = World::stand_in().await;
    let hasty = KurrentSettings { patience: Duration::from_millis(1), ..world.settings() };
    let journal = world.try_open("one", hasty).await.expect("opens");
    world.server().fail(&[Fault::Late]);
    let sent = || Append {
        idempotency: Some(Idempotency { key: [1; 32], fingerprint: [1; 32] }),
        ..append(&stream("a"), 0, 2)
    };
    let unknown = journal.append(sent()).await;
    assert!(matches!(unknown, Err(AppendError::Unknown(_))), "{unknown:?}");
    assert_eq!(ids(&journal).await.len(), 0, "it is not there yet");
    world.server().deliver();
    assert_eq!(ids(&journal).await.len(), 2, "it is there now");
    let again = journal.append(sent()).await;
    assert_eq!(again, Ok(Appended { first: 1, last: 2, replayed: true }));
}

#[tokio::test]
async fn given_an_append_that_arrives_late_when_its_place_is_taken_then_it_is_never_written() {
    let world = World::stand_in().await;
    let hasty = KurrentSettings { patience: Duration::from_millis(1), ..world.settings() };
    let journal = world.try_open("one", hasty).await.expect("opens");
    world.server().fail(&[Fault::Late]);
    let late = append(&stream("a"), 0, 2);
    assert!(matches!(journal.append(late.clone()).await, Err(AppendError::Unknown(_))));
    journal.append(append(&stream("b"), 0, 1)).await.expect("appends");
    world.server().deliver();
    assert_eq!(ids(&journal).await.len(), 1);
    assert_eq!(journal.append(late).await, Ok(Appended { first: 2, last: 3, replayed: false }));
}

#[tokio::test]
async fn given_a_server_that_is_down_when_it_comes_back_then_a_node_goes_on() {
    let world = World::stand_in().await;
    let journal = world.try_open("one", world.hasty()).await.expect("opens");
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    world.server().set_down(true);
    let refused = journal.append(append(&stream("a"), 1, 1)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_) | AppendError::Unknown(_))), "{refused:?}");
    assert!(matches!(journal.head().await, Err(StoreError::Unavailable(_))), "nothing old is shown as new");
    assert!(journal.versions(&[stream("a")]).await.is_err());
    world.server().set_down(false);
    assert_eq!(journal.head().await, Ok(1));
    journal.append(append(&stream("a"), 1, 1)).await.expect("appends");
}

#[tokio::test]
async fn given_an_append_that_the_server_refuses_when_it_is_in_a_group_then_its_neighbours_are_written() {
    let world = World::stand_in().await;
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
    // Whatever a server may have against a group, each of it gets its own answer.
    world.server().fail(&[Fault::Refuse]);
    let names = ["c", "d", "e"];
    let answers = join_all(names.map(|name| journal.append(append(&stream(name), 0, 1)))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(ids(&journal).await.len(), 5);
}

/// Readers do not ask the server where an append has shown already that nothing is new.
#[tokio::test]
async fn an_append_spares_its_readers_a_look() {
    let world = World::stand_in().await;
    let quiet = KurrentSettings { poll: Duration::from_hours(1), ..world.settings() };
    let journal = world.try_open("one", quiet).await.expect("opens");
    sleep(Duration::from_millis(100)).await;
    let before = world.server().requests();
    let of = [stream("a")];
    let sent = append(&of[0], 0, 1);
    let (written, head, versions) = tokio::join!(journal.append(sent), journal.head(), journal.versions(&of));
    assert_eq!((written.map(|it| it.last), head, versions), (Ok(1), Ok(1), Ok(vec![1])));
    let after = world.server().requests();
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 0));
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
        timeout(Duration::from_secs(5), reached).await.expect("soon").expect("lives");
    }
}

/// Nodes compete for each position, and the one that lost has a longer way to the next.
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
