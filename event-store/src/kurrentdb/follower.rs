//! Events of other nodes, which the server pushes as soon as they are written.
//!
//! It saves reads and shows whose turn it is, but nothing depends on it: code that must not miss an event reads the
//! stream.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use futures::FutureExt;
use tasks::{End, Weight};
use tokio::sync::mpsc;
use tokio::time::sleep;
use uuid::Uuid;

use super::entry::{Entry, goes_on};
use super::log::{Failure, Log};

/// How many events are buffered before they are wanted. Those that are dropped are read later.
const AHEAD: usize = 4096;

/// How many batches may be pushed before the server has to wait.
const BATCHES: usize = 64;

/// For how long pushed events are gathered when nothing waits for them: bringing them into the replica has a cost per
/// batch.
const GATHER: Duration = Duration::from_millis(10);

/// How long to wait before a broken subscription is renewed.
const AGAIN: Duration = Duration::from_millis(500);

/// An event, with its revision.
type Pushed = (u64, Entry);

/// A subscription to the stream, which lasts until it is dropped.
pub(super) struct Follower {
    events: mpsc::Receiver<Vec<Pushed>>,
    /// What was pushed without a gap: what has not been taken yet, and what came before it.
    pushed: VecDeque<Pushed>,
    /// Whether it holds anything that was not examined yet.
    is_news: bool,
}

impl Follower {
    /// Follows the stream after its first `length` events.
    pub(super) fn start(log: Log, length: u64) -> Self {
        let (sender, events) = mpsc::channel(BATCHES);
        // It goes on where it was: the writer takes what was pushed, wherever the subscription begins again.
        tasks::start("journal_follower", Weight::Usual, move || {
            let (log, sender) = (log.again(), sender.clone());
            async move {
                tokio::select! {
                    () = sender.closed() => End::Asked,
                    end = follow(log, length, &sender) => end,
                }
            }
        });
        Self { events, pushed: VecDeque::new(), is_news: false }
    }

    /// Waits until something is pushed that comes after the first `length` events, with all that was sent with it; never
    /// returns if there is no subscription. What this node wrote itself is pushed, too, and nothing to wake up for.
    pub(super) async fn more(follower: &mut Option<Self>, length: u64) {
        if let Some(follower) = follower {
            loop {
                if follower.is_news && follower.reaches(length) && !follower.goes_on() {
                    return;
                }
                if !follower.receive().await {
                    break;
                }
            }
        }
        pending::<()>().await;
    }

    /// As [`Follower::more`], and a little longer for what follows.
    pub(super) async fn gathered(follower: &mut Option<Self>, length: u64) {
        Self::more(follower, length).await;
        sleep(GATHER).await;
    }

    /// If only a part of what was sent together was pushed after the first `length` events, waits for the rest.
    pub(super) async fn rest(follower: &mut Option<Self>, length: u64) {
        if let Some(follower) = follower {
            follower.receive_now();
            while follower.reaches(length) && follower.goes_on() && follower.receive().await {}
        }
    }

    /// Whether something after the first `length` events was pushed.
    fn reaches(&self, length: u64) -> bool {
        self.pushed.back().is_some_and(|(last, _)| *last >= length)
    }

    /// Whether the next event is in the stream already.
    fn goes_on(&self) -> bool {
        self.pushed.back().is_some_and(|(_, entry)| goes_on(&entry.metadata))
    }

    /// Receives what is there.
    fn receive_now(&mut self) {
        while let Ok(events) = self.events.try_recv() {
            for event in events {
                self.keep(event);
            }
        }
    }

    /// Receives a batch. Returns whether there can be more.
    async fn receive(&mut self) -> bool {
        let received = self.events.recv().await;
        let goes_on = received.is_some();
        received.into_iter().flatten().for_each(|event| self.keep(event));
        goes_on
    }

    /// What was pushed after the first `length` events, the last of which has this id.
    ///
    /// The event before it must have been pushed too, and be the known one: a stream that was restored from a backup
    /// may continue differently. If a push does not show that, a read does.
    pub(super) fn behind(&mut self, length: u64, last: Option<Uuid>) -> impl Iterator<Item = &Pushed> {
        self.receive_now();
        self.is_news = false;
        while self.pushed.front().is_some_and(|(revision, _)| revision + 1 < length) {
            self.pushed.pop_front();
        }
        let first = match (self.pushed.front(), last) {
            (Some((0, _)), None) => 0,
            (Some((revision, entry)), Some(last)) if revision + 1 == length && entry.id == last => 1,
            _ => self.pushed.len(),
        };
        self.pushed.range(first..)
    }

    /// A new subscription begins with an event that was pushed before.
    fn keep(&mut self, event: Pushed) {
        let follows = self.pushed.back().is_none_or(|(last, _)| last + 1 == event.0);
        if !follows || self.pushed.len() >= AHEAD {
            self.pushed.clear();
        }
        self.pushed.push_back(event);
        self.is_news = true;
    }
}

/// The last known event is pushed again, which shows whether it still exists.
async fn follow(mut log: Log, mut length: u64, sender: &mpsc::Sender<Vec<Pushed>>) -> End {
    loop {
        let pushed = push(&mut log, &mut length, sender).await;
        tracing::debug!(?pushed, "the subscription to the journal ended and is renewed");
        sleep(AGAIN).await;
    }
}

async fn push(log: &mut Log, length: &mut u64, sender: &mpsc::Sender<Vec<Pushed>>) -> Result<(), Failure> {
    let mut reading = log.follow(length.checked_sub(2)).await?;
    while let Some(first) = reading.next_whenever().await? {
        let mut events = vec![first];
        // Take along what has already arrived. Errors and the end show at the next wait.
        while let Some(Ok(Some(event))) = reading.next_whenever().now_or_never() {
            events.push(event);
        }
        *length = events.last().map_or(*length, |(revision, _)| revision + 1);
        // Fails only if the receiver is gone; then this task is about to end.
        let _ = sender.send(events).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower() -> (mpsc::Sender<Vec<Pushed>>, Follower) {
        let (sender, events) = mpsc::channel(AHEAD);
        (sender, Follower { events, pushed: VecDeque::new(), is_news: false })
    }

    fn id(revision: u64) -> Uuid {
        Uuid::from_u128(u128::from(revision) + 1)
    }

    /// Pushes these revisions, and returns those after a length.
    fn behind(revisions: &[u64], length: u64, last: Option<Uuid>) -> Vec<u64> {
        let (sender, mut follower) = follower();
        for revision in revisions {
            let (id, name) = (id(*revision), "UserBanned".to_owned());
            let entry = Entry { id, name, data: String::new(), metadata: vec![] };
            sender.try_send(vec![(*revision, entry)]).expect("there is room");
        }
        follower.behind(length, last).map(|(revision, _)| *revision).collect()
    }

    #[test]
    fn pushed_events_continue_where_the_replica_ends() {
        assert_eq!(behind(&[0, 1], 0, None), [0, 1]);
        assert_eq!(behind(&[0, 1, 2, 3], 2, Some(id(1))), [2, 3]);
        assert_eq!(behind(&[1, 2, 3], 4, Some(id(3))), [] as [u64; 0]);
    }

    #[test]
    fn nothing_is_accepted_after_a_gap_or_an_unknown_event() {
        assert_eq!(behind(&[1, 2], 0, None), [] as [u64; 0], "the first is missing");
        assert_eq!(behind(&[2, 3], 2, Some(id(1))), [] as [u64; 0], "the last one known was not pushed");
        assert_eq!(behind(&[1, 2], 2, Some(id(7))), [] as [u64; 0], "another event has its place");
        assert_eq!(behind(&[1, 2, 5, 6], 2, Some(id(1))), [] as [u64; 0], "there is a gap");
    }

    #[test]
    fn a_new_subscription_continues_where_the_last_one_broke() {
        assert_eq!(behind(&[1, 2, 3, 3, 4], 4, Some(id(3))), [4]);
        assert_eq!(behind(&[1, 2, 3, 2, 3, 4], 3, Some(id(2))), [3, 4]);
    }

    #[tokio::test]
    async fn what_was_sent_together_is_waited_for_and_what_this_node_wrote_is_not() {
        let (sender, follower) = follower();
        let mut follower = Some(follower);
        let push = |revision: u64, metadata: &[u8]| {
            let name = "UserBanned".to_owned();
            let entry = Entry { id: id(revision), name, data: String::new(), metadata: metadata.to_vec() };
            sender.try_send(vec![(revision, entry)]).expect("there is room");
        };
        push(0, br#"{"version":1,"goes_on":true}"#);
        assert_eq!(Follower::more(&mut follower, 0).now_or_never(), None, "the rest is missing");
        assert_eq!(Follower::rest(&mut follower, 0).now_or_never(), None, "the rest is missing");
        assert_eq!(Follower::rest(&mut follower, 1).now_or_never(), Some(()), "this node has that");
        push(1, br#"{"version":2}"#);
        assert_eq!(Follower::more(&mut follower, 2).now_or_never(), None, "this node has both");
        assert_eq!(Follower::more(&mut follower, 0).now_or_never(), Some(()));
        assert_eq!(Follower::rest(&mut follower, 0).now_or_never(), Some(()));
    }

    #[tokio::test]
    async fn without_a_subscription_nothing_is_pushed() {
        let waits = tokio::time::timeout(Duration::from_millis(10), Follower::more(&mut None, 0)).await;
        assert!(waits.is_err());
    }
}
