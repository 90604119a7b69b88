//! Whether a projector gets on. A lease is renewed because its holder works, and not because it is there: a node that
//! cannot read the journal, or whose projector hangs, must not keep the projectors from others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The moment by which a projector shows that it gets on.
#[derive(Debug)]
pub(crate) struct Pulse {
    due: Mutex<Instant>,
    /// How long a step may take.
    longest: Duration,
}

impl Pulse {
    /// One for leases that last so long.
    pub fn new(lease: Duration) -> Self {
        Self { due: Mutex::new(Instant::now()), longest: 2 * lease }
    }

    /// It does well, and takes the next step after this rest.
    pub fn beats(&self, rest: Duration) {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + rest + self.longest;
    }

    /// Whether it stands still.
    pub fn is_overdue(&self) -> bool {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) < Instant::now()
    }
}

/// For how long a node leaves the projectors to others after one of its own stood still.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    until: Option<Instant>,
    last: Duration,
    asked: Option<Instant>,
}

impl Aside {
    /// The longest time.
    const LONGEST: Duration = Duration::from_mins(5);

    /// Begins, for longer than the last time.
    pub fn begin(&mut self, lease: Duration) -> Duration {
        self.last = (2 * self.last).clamp(4 * lease, Self::LONGEST.max(4 * lease));
        self.until = Some(Instant::now() + self.last);
        self.last
    }

    /// Whether nobody has asked this for so long: then the process as a whole stood still, or what it asks first did.
    pub fn was_asleep(&mut self, longest: Duration) -> bool {
        self.asked.replace(Instant::now()).is_some_and(|last| last.elapsed() > longest)
    }

    /// Whether it lasts.
    pub fn lasts(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Ends. If there is nobody else, the next time need not be longer.
    pub fn end(&mut self, is_alone: bool) {
        self.until = None;
        if is_alone {
            self.last = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_steps_aside_for_longer_each_time() {
        let (lease, mut aside) = (Duration::from_secs(4), Aside::default());
        assert!(
            !aside.lasts() && !aside.was_asleep(Duration::ZERO) && !aside.was_asleep(Duration::from_hours(1))
        );
        assert!(aside.was_asleep(Duration::ZERO));
        let times: Vec<u64> = (0..7).map(|_| aside.begin(lease).as_secs()).collect();
        assert_eq!(times, [16, 32, 64, 128, 256, 300, 300]);
        assert!(aside.lasts());
        aside.end(true);
        assert!(!aside.lasts());
        assert_eq!(aside.begin(lease).as_secs(), 16);
    }

    #[test]
    fn what_shows_no_life_is_overdue() {
        let pulse = Pulse::new(Duration::from_millis(20));
        pulse.beats(Duration::from_hours(1));
        assert!(!pulse.is_overdue());
        pulse.beats(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(50));
        assert!(pulse.is_overdue());
    }
}
