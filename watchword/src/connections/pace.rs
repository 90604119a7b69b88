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
    /// So many requests are in progress.
    Answering(usize),
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
        let mut phase = self.phase();
        if matches!(*phase, Phase::Idle(_)) {
            *phase = Phase::Idle(Instant::now());
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
                Phase::Answering(_) => (None, TooLong::Idle),
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
    /// From when all of the request is there.
    busy: Mutex<Option<Busy>>,
}

impl One {
    pub fn of(pace: &Arc<Pace>, member: &Arc<Member>) -> Arc<Self> {
        let mut phase = pace.phase();
        *phase = match *phase {
            Phase::Answering(others) => Phase::Answering(others + 1),
            Phase::Head(_) | Phase::Idle(_) => Phase::Answering(1),
        };
        drop(phase);
        Arc::new(Self { pace: Arc::clone(pace), member: Arc::clone(member), busy: Mutex::default() })
    }

    /// All of the request is there: its connection does not make room for another.
    pub fn is_whole(&self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if busy.is_none() {
            *busy = Some(self.member.busy());
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let mut phase = self.pace.phase();
        *phase = match *phase {
            Phase::Answering(others) if others > 1 => Phase::Answering(others - 1),
            _ => Phase::Idle(Instant::now()),
        };
    }
}
