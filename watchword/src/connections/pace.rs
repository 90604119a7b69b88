//! What a connection waits for, and for how long it may.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_kit::crowd::{Busy, Member};
use tokio::time::Instant;

/// The phase of a connection.
pub struct Pace(Mutex<Phase>);

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// A head is expected: the connection is new, or part of the head has come.
    Head(Instant),
    /// Nothing is expected.
    Idle(Instant),
    Answering(Answering),
}

/// Requests in progress.
#[derive(Clone, Copy, Debug)]
struct Answering {
    requests: usize,
    /// Those whose responses wait for the client to read what there is of them.
    unread: usize,
    /// When one of these last got on.
    since: Instant,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLong {
    Head,
    Idle,
}

impl Pace {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Phase::Head(Instant::now()))))
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have come.
    pub fn has_read(&self) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Idle(_)) {
            *phase = Phase::Head(Instant::now());
        }
    }

    /// Bytes were sent: a client that still reads its answer is not idle.
    pub fn has_written(&self) {
        match &mut *self.phase() {
            Phase::Idle(since) | Phase::Answering(Answering { since, .. }) => *since = Instant::now(),
            Phase::Head(_) => {}
        }
    }

    /// Whether one response more, or less, waits for the client.
    fn waits_for_client(&self, more: bool) {
        if let Phase::Answering(answering) = &mut *self.phase() {
            answering.unread = if more { answering.unread + 1 } else { answering.unread.saturating_sub(1) };
            answering.since = Instant::now();
        }
    }

    /// Whether it waits for another request.
    pub fn is_idle(&self) -> bool {
        matches!(*self.phase(), Phase::Idle(_))
    }

    /// Returns when a phase has taken longer than this.
    pub async fn ends(&self, head: Duration, idle: Duration) -> TooLong {
        loop {
            let (deadline, why) = match *self.phase() {
                Phase::Head(since) => (Some(since + head), TooLong::Head),
                Phase::Idle(since) => (Some(since + idle), TooLong::Idle),
                // A client that reads nothing is not waiting for us.
                Phase::Answering(Answering { requests, unread, since }) => {
                    ((unread == requests).then(|| since + idle), TooLong::Idle)
                }
            };
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return why;
            }
            // Phases change often, and rarely take too long: it is cheaper to look again than to be woken each time.
            let soon = now + head.min(idle) / 4;
            tokio::time::sleep_until(deadline.map_or(soon, |deadline| deadline.min(soon))).await;
        }
    }
}

/// A request in progress, until its response is sent.
pub struct One {
    pace: Arc<Pace>,
    member: Arc<Member>,
    turn: Mutex<Turn>,
}

/// Whose turn it is.
enum Turn {
    /// The client's: all of the request is not yet there.
    Asks,
    /// Ours. Its connection does not make room for another.
    Answer(#[expect(dead_code, reason = "it is held")] Busy),
    /// The client's: it has to read what there is of the response. Until then its connection may have to make room, as one
    /// that waits for requests: a client could hold it for as long as it likes.
    Reads,
}

impl One {
    pub fn of(pace: &Arc<Pace>, member: &Arc<Member>) -> Arc<Self> {
        let mut phase = pace.phase();
        *phase = match *phase {
            Phase::Answering(others) => {
                Phase::Answering(Answering { requests: others.requests + 1, ..others })
            }
            Phase::Head(_) | Phase::Idle(_) => {
                Phase::Answering(Answering { requests: 1, unread: 0, since: Instant::now() })
            }
        };
        drop(phase);
        Arc::new(Self { pace: Arc::clone(pace), member: Arc::clone(member), turn: Mutex::new(Turn::Asks) })
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of the request is there.
    pub fn is_whole(&self) {
        let mut turn = self.turn();
        if matches!(*turn, Turn::Asks) {
            *turn = Turn::Answer(self.member.busy());
        }
    }

    /// There is more of the response.
    pub fn has_more(&self) {
        let mut turn = self.turn();
        if matches!(*turn, Turn::Reads) {
            self.member.waits_anew();
            self.pace.has_written();
        } else {
            *turn = Turn::Reads;
            self.pace.waits_for_client(true);
        }
    }

    /// The rest of the response is yet to be made.
    pub fn is_read(&self) {
        let mut turn = self.turn();
        if !matches!(*turn, Turn::Answer(_)) {
            if matches!(*turn, Turn::Reads) {
                self.pace.waits_for_client(false);
            }
            *turn = Turn::Answer(self.member.busy());
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let is_unread = matches!(*self.turn(), Turn::Reads);
        let mut phase = self.pace.phase();
        *phase = match *phase {
            Phase::Answering(Answering { requests, unread, since }) if requests > 1 => {
                let unread = unread.saturating_sub(usize::from(is_unread));
                Phase::Answering(Answering { requests: requests - 1, unread, since })
            }
            _ => Phase::Idle(Instant::now()),
        };
    }
}
