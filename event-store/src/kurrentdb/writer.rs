//! The only task of a node that appends and that fills its replica. It decides the queued appends as one group, on the
//! replica, and sends the group for the position after the replica's end.

use std::sync::Arc;
use std::time::Duration;

use domain::{StreamId, Timestamp};
use tasks::End;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout_at};
use uuid::Uuid;

use super::KurrentSettings;
use super::entry::{self, Entry, Unkeyed};
use super::follower::Follower;
use super::link::Target;
use super::log::{Failure, Log, Sent};
use super::replica::Replica;
use super::rights::protect;
use crate::journal::{Append, AppendError, NewEvent, Snapshot, StoreError};
use crate::mac::Macs;
use crate::master_key::JournalMark;
use crate::measure;
use crate::pauses::Pauses;
use crate::sqlite::group::Answer;

/// The most appends sent together: with more, the first would wait too long, and other nodes would lose more of their
/// work.
const GROUP: usize = 512;

/// The most bytes sent together, approximately: half of a server's default limit. A larger append is sent alone.
const GROUP_BYTES: usize = 512 * 1024;

/// The approximate size of an event besides its data and its personal part.
const EVENT_BYTES: usize = 1024;

/// For how long a node takes into account that another one wrote.
const MINDFUL: Duration = Duration::from_secs(1);

/// How long other nodes may be silent before the subscription to their events ends.
const WORTHWHILE: Duration = Duration::from_mins(1);

/// The longest that a node leaves a turn to others.
const LONGEST_TURN: Duration = Duration::from_millis(100);

/// How many times as long as their last one a turn of the others may take.
const USUAL_TURNS: u32 = 4;

/// How long to wait before polling again after a poll failed.
const CUT_OFF: Duration = Duration::from_secs(1);

/// A request to the writer.
pub(super) enum Request {
    /// Appends.
    Append { append: Box<Append>, answer: oneshot::Sender<Answer> },
    /// Reads everything that is in the stream at the time of the request.
    CatchUp { answer: oneshot::Sender<Result<(), StoreError>> },
    /// Stores a snapshot.
    Snapshot { stream: StreamId, snapshot: Snapshot, answer: oneshot::Sender<Result<(), StoreError>> },
    /// Forgets old idempotency keys after this one.
    Forget {
        after: Option<[u8; 32]>,
        before: Timestamp,
        answer: oneshot::Sender<Result<Option<[u8; 32]>, StoreError>>,
    },
    /// Ends the writer after all earlier requests.
    Close,
}

pub(super) struct Writer {
    log: Log,
    replica: Replica,
    settings: KurrentSettings,
    macs: Macs,
    unkeyed: Unkeyed,
    /// How often the replica was confirmed to have everything in the stream.
    sightings: u64,
    /// When another node last wrote.
    others: Option<Instant>,
    /// Pushes what other nodes write, while they do.
    follower: Option<Follower>,
    /// How long the server took for the last group.
    round_trip: Duration,
    /// How long other nodes usually take to use a turn; shorter with each that they do not use.
    turn: Duration,
    /// Whether the last poll of the stream failed, which is logged once.
    is_cut_off: bool,
    /// What is wrong with the stream. Nothing more is appended to it, as only its length would be checked.
    damage: Option<String>,
}

impl Writer {
    pub(super) fn new(
        log: Log,
        replica: Replica,
        settings: KurrentSettings,
        macs: Macs,
        mark: Option<JournalMark>,
    ) -> Self {
        let round_trip = Duration::ZERO;
        Self {
            log,
            replica,
            settings,
            macs,
            unkeyed: Unkeyed::new(mark),
            sightings: 0,
            others: None,
            follower: None,
            round_trip,
            turn: Duration::ZERO,
            is_cut_off: false,
            damage: None,
        }
    }

    /// The events without MACs, once everything has been read.
    pub(super) fn mark(&self) -> JournalMark {
        self.unkeyed.found()
    }

    /// From here on accepts no further events without MACs. Runs until it is asked to end, or all request senders are
    /// gone. After a panic it can run again: whoever waited for the requests in hand knows that their outcome is unknown.
    pub(super) async fn run(&mut self, queue: &mut mpsc::Receiver<Request>) -> End {
        self.unkeyed = Unkeyed::new(Some(self.mark()));
        // What was read at the start does not tell that others write now.
        (self.others, self.follower) = (None, None);
        let poll = self.settings.poll.max(Duration::from_millis(1));
        // Everything has just been read.
        let mut looks = interval_at(Instant::now() + poll, poll);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut requests = Vec::new();
        let mut closing = false;
        while !closing {
            tokio::select! {
                biased;
                count = queue.recv_many(&mut requests, GROUP) => {
                    closing = count == 0 || self.answer(requests.drain(..)).await;
                }
                () = Follower::gathered(&mut self.follower, self.replica.head()) => self.absorb().await,
                _ = looks.tick() => {
                    self.look().await;
                    if self.is_cut_off {
                        looks.reset_after(CUT_OFF.max(self.settings.poll));
                    }
                }
            }
        }
        self.replica.close().await;
        End::Asked
    }

    /// Answers requests. Returns whether one of them is to end.
    async fn answer(&mut self, requests: impl Iterator<Item = Request>) -> bool {
        let (mut appends, mut writing) = (Vec::new(), Vec::new());
        let (mut reading, mut snapshots, mut forgets) = (Vec::new(), Vec::new(), Vec::new());
        let mut closing = false;
        for request in requests {
            match request {
                Request::Append { append, answer } => {
                    appends.push(*append);
                    writing.push(answer);
                }
                Request::CatchUp { answer } => reading.push(answer),
                Request::Snapshot { stream, snapshot, answer } => snapshots.push((stream, snapshot, answer)),
                Request::Forget { after, before, answer } => forgets.push((after, before, answer)),
                Request::Close => closing = true,
            }
        }
        if appends.is_empty() {
            self.absorb().await;
        }
        let sightings = self.sightings;
        let mut writing = writing.into_iter();
        for group in groups(&appends) {
            let begun = Instant::now();
            let answers = self.append(group).await;
            measure::group(group.len(), begun.elapsed());
            for (answer, writing) in answers.into_iter().zip(&mut writing) {
                // A caller that went away can ask again with the same idempotency key.
                let _ = writing.send(answer);
            }
        }
        if !reading.is_empty() {
            // An append that was accepted after the readers asked confirms as much as a read would.
            let caught_up = if self.sightings == sightings { self.catch_up().await } else { Ok(()) };
            for reading in reading {
                let _ = reading.send(caught_up.clone().map_err(StoreError::from));
            }
        }
        let written = Instant::now();
        for (stream, snapshot, answer) in snapshots {
            // If the caller went away, the snapshot is stored all the same.
            let _ = answer.send(self.replica.keep(&stream, &snapshot).await);
        }
        for (after, before, answer) in forgets {
            let _ = answer.send(self.replica.forget_idempotency(after, before).await);
        }
        if !appends.is_empty() && self.others.is_some_and(|others| others.elapsed() < MINDFUL) {
            self.leave_a_turn(written).await;
        }
        closing
    }

    /// Lets others append once: a node that has just received this node's events is behind, and would always stay
    /// behind. Requests that arrive meanwhile are grouped afterwards.
    ///
    /// While nodes take turns, each waits for the other's group for as long as such a group may take: two that are sent
    /// at the same time cost both nodes work, as one of them is refused. After a turn that was not used the next one is
    /// shorter, as the others may have nothing to append.
    async fn leave_a_turn(&mut self, written: Instant) {
        let head = self.replica.head();
        // No other node may use its turn, or nothing may be pushed.
        let longest = (USUAL_TURNS * self.turn).max(2 * self.round_trip).min(LONGEST_TURN);
        // What is pushed goes into the replica with this node's next group.
        let used = timeout_at(written + longest, Follower::more(&mut self.follower, head)).await.is_ok();
        self.turn = if used { (self.turn + written.elapsed()) / 2 } else { self.turn / 2 };
    }

    /// Decides and sends a group until there is an answer.
    async fn append(&mut self, appends: &[Append]) -> Vec<Answer> {
        let mut attempt = Attempt { pauses: Pauses::new(self.settings.patience), is_unknown: false };
        let error = loop {
            if let Some(damage) = &self.damage {
                break attempt.error(damage.as_str());
            }
            match self.try_append(appends, &mut attempt).await {
                Ok(Tried::Answered(answers)) => return answers,
                Ok(Tried::Overtaken) if attempt.pauses.are_over() => {
                    break attempt.error("other nodes kept writing first");
                }
                Ok(Tried::Overtaken) => {}
                // An append that the server refuses must not fail its neighbours.
                Ok(Tried::Refused(_)) if appends.len() > 1 && !attempt.is_unknown => {
                    let mut answers = Vec::with_capacity(appends.len());
                    for append in appends {
                        answers.extend(Box::pin(self.append(std::slice::from_ref(append))).await);
                    }
                    return answers;
                }
                Ok(Tried::Refused(error)) => break attempt.error(&error),
                Err(error) => break error,
            }
        };
        tracing::warn!(%error, "the journal could not append");
        vec![Err(error); appends.len()]
    }

    /// Decides a group on what this node knows, and sends what it accepts.
    async fn try_append(&mut self, appends: &[Append], attempt: &mut Attempt) -> Result<Tried, AppendError> {
        // What was pushed, with the MACs of this instance, is decided on before it is in the replica: the server accepts the
        // group only if the stream ends exactly there, and then both become visible at once. Otherwise both are rolled
        // back, and what was pushed is applied alone.
        let pushed = self.pushed_appends().await;
        let decided = match self.replica.decide(&pushed, appends).await {
            // Something is wrong with what was pushed: the server refuses what does not rest on it, and the next read finds
            // it.
            Err(StoreError::Damaged(_)) => self.replica.decide(&[], appends).await,
            decided => decided,
        };
        let decided = decided.map_err(|error| attempt.error(&error))?;
        let head = decided.head;
        let answers = decided.answers().to_vec();
        let entries = entry::encode(&decided.rows(), &self.macs);
        if entries.is_empty() {
            self.replica.commit(decided).await.map_err(|error| attempt.error(&error))?;
            // What is written stays written. A refusal is valid only if this node knows everything that came before it.
            if answers.iter().any(Result::is_err) {
                self.catch_up().await.map_err(|failure| attempt.error(failure.text()))?;
            }
            return Ok(if self.replica.head() == head { Tried::Answered(answers) } else { Tried::Overtaken });
        }
        let sent = Instant::now();
        let refusal = match attempt.send(&mut self.log, head, &entries).await? {
            Ok(Sent::Written) => {
                self.round_trip = sent.elapsed();
                match self.replica.commit(decided).await {
                    Ok(()) => self.sightings += 1,
                    // It is in the stream all the same, and the next read brings it from there.
                    Err(error) => tracing::error!(%error, "the replica cannot write"),
                }
                return Ok(Tried::Answered(answers));
            }
            Ok(Sent::Overtaken) => None,
            Err(error) => Some(error),
        };
        self.replica.forget(decided).await.map_err(|error| attempt.error(&error))?;
        // What was there before has usually been pushed already. If an answer was lost, everything must be known.
        if !attempt.is_unknown {
            self.absorb().await;
        }
        if self.replica.head() > head && !attempt.is_unknown {
            return Ok(Tried::Overtaken);
        }
        self.catch_up().await.map_err(|failure| attempt.error(failure.text()))?;
        if self.replica.head() > head {
            // It may have been this node, if an attempt succeeded whose answer was lost.
            let ours: Vec<Uuid> = entries.iter().map(|entry| entry.id).collect();
            let there = self.replica.ids(head, ours.len()).await.map_err(|error| attempt.error(&error))?;
            if there == ours {
                return Ok(Tried::Answered(answers));
            }
            // The position is taken: nothing sent for it can still be written.
            attempt.is_unknown = false;
            return Ok(Tried::Overtaken);
        }
        match refusal {
            Some(error) => Ok(Tried::Refused(error)),
            // The server has more than it shows yet. It will show it soon.
            None if attempt.pauses.next().await => Ok(Tried::Overtaken),
            None => Err(attempt.error("the server does not show what is in the stream")),
        }
    }

    /// Before the first use: reads the stream and restricts access to it.
    pub(super) async fn begin(&mut self, target: &Arc<Target>) -> Result<(), Failure> {
        self.catch_up().await?;
        let KurrentSettings { stream, answer_timeout, .. } = &self.settings;
        protect(target, stream, serde_json::json!({}), *answer_timeout).await
    }
}

/// The outcome of a group.
enum Tried {
    /// Every append has its answer.
    Answered(Vec<Answer>),
    /// Another node wrote first: the group must be decided again.
    Overtaken,
    /// The server refuses all of it, for this reason.
    Refused(String),
}

/// The attempt to write a group.
struct Attempt {
    pauses: Pauses,
    /// It was sent, and may still be carried out.
    is_unknown: bool,
}

impl Attempt {
    /// Sends a group until there is an answer. Sending it again is harmless, as it fits at one position only. An inner
    /// error means that the server refuses it.
    async fn send(
        &mut self,
        log: &mut Log,
        length: u64,
        entries: &[Entry],
    ) -> Result<Result<Sent, String>, AppendError> {
        loop {
            let error = match log.append(length, entries).await {
                Ok(sent) => return Ok(Ok(sent)),
                Err(Failure::Refused(error)) => return Ok(Err(error)),
                Err(failure @ (Failure::Away(_) | Failure::Denied(_) | Failure::Damaged(_))) => {
                    return Err(self.error(failure.text()));
                }
                Err(Failure::NotSent(error)) => error,
                Err(Failure::Lost(error)) => {
                    self.is_unknown = true;
                    error
                }
            };
            tracing::debug!(%error, "sending an append again");
            if !self.pauses.next().await {
                return Err(self.error(&error));
            }
        }
    }

    /// The error when it ends without an answer.
    fn error(&self, error: &(impl ToString + ?Sized)) -> AppendError {
        let error = error.to_string();
        if self.is_unknown { AppendError::Unknown(error) } else { AppendError::Unavailable(error.into()) }
    }
}

/// Splits appends into parts that can each be sent at once.
fn groups(appends: &[Append]) -> Vec<&[Append]> {
    let mut groups = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (place, append) in appends.iter().enumerate() {
        let more = size(append);
        if place > first && bytes + more > GROUP_BYTES {
            groups.push(&appends[first..place]);
            (first, bytes) = (place, 0);
        }
        bytes += more;
    }
    if first < appends.len() {
        groups.push(&appends[first..]);
    }
    groups
}

/// The approximate size of an append.
fn size(append: &Append) -> usize {
    let event = |event: &NewEvent| {
        // Base64 turns three bytes into four.
        EVENT_BYTES + event.data.len() + event.personal.as_ref().map_or(0, |personal| personal.len() / 3 * 4)
    };
    append.writes.iter().flat_map(|write| &write.events).map(event).sum()
}

mod reading;
#[cfg(test)]
mod tests;
