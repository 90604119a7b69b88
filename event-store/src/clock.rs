//! The one source of time, ids and randomness. Everything else gets them from here, so that tests can set them.

use std::cell::RefCell;
use std::sync::Mutex;

use domain::Timestamp;
use jiff::SignedDuration;
use uuid::Uuid;

/// Reads the time and makes ids that carry it.
pub trait Clock: Send + Sync + 'static {
    /// The time, to the microsecond, which is the precision that the journal stores.
    fn now(&self) -> Timestamp;

    /// A new UUID of version 7 (RFC 9562 section 5.7) that carries [`Clock::now`].
    fn new_id(&self) -> Uuid {
        id_at(self.now())
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        fail::fail_point!("clock", |by| to_microseconds(
            Timestamp::now() + by.unwrap().parse::<SignedDuration>().unwrap()
        ));
        to_microseconds(Timestamp::now())
    }
}

/// A clock that stands still until it is set. For tests.
#[derive(Debug)]
pub struct FixedClock(Mutex<Timestamp>);

impl FixedClock {
    /// A clock that shows this time.
    pub fn new(at: Timestamp) -> Self {
        Self(Mutex::new(to_microseconds(at)))
    }

    /// Sets the time.
    pub fn set(&self, at: Timestamp) {
        *self.0.lock().expect("no holder panics") = to_microseconds(at);
    }

    /// Moves the time forward or back.
    pub fn advance(&self, by: SignedDuration) {
        let mut time = self.0.lock().expect("no holder panics");
        *time += by;
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("no holder panics")
    }
}

/// Cryptographically random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source does not fail once it is seeded");
    bytes
}

/// How many ids' random bytes are drawn at once. One draw takes as long for all of them as for one.
const DRAWN: usize = 64;

thread_local! {
    /// The random bytes of the next ids, which are no secrets.
    static TAILS: RefCell<Vec<[u8; 10]>> = const { RefCell::new(Vec::new()) };
}

/// The random bytes of an id.
fn random_tail() -> [u8; 10] {
    TAILS.with_borrow_mut(|tails| {
        if tails.is_empty() {
            tails.extend_from_slice(random::<{ 10 * DRAWN }>().as_chunks().0);
        }
        tails.pop().expect("some were drawn")
    })
}

fn to_microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).expect("cutting digits off stays in range")
}

/// Version 7 with the microseconds in `rand_a` (RFC 9562 section 6.2, method 3), so that consecutive ids sort well in
/// an index.
fn id_at(at: Timestamp) -> Uuid {
    let microseconds = at.as_microsecond().max(0).unsigned_abs();
    let fraction = u16::try_from((microseconds % 1000) * 4096 / 1000).expect("less than 4096");
    let mut tail = random_tail();
    tail[..2].copy_from_slice(&fraction.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(microseconds / 1000, &tail).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_time_and_sort_by_it() {
        let clock = FixedClock::new(Timestamp::from_microsecond(1_800_000_000_123_456).expect("in range"));
        let first = clock.new_id();
        clock.advance(SignedDuration::from_micros(1));
        let second = clock.new_id();
        assert_eq!(first.get_version_num(), 7);
        assert_eq!(first.get_timestamp().map(|at| at.to_unix().0), Some(1_800_000_000));
        assert!(first < second);
    }

    #[test]
    fn ids_of_one_moment_differ() {
        let clock = FixedClock::new(Timestamp::UNIX_EPOCH);
        let made = || (0..3 * DRAWN).map(|_| clock.new_id()).collect::<Vec<_>>();
        let ids = std::thread::scope(|threads| {
            let (one, other) = (threads.spawn(made), threads.spawn(made));
            [one.join().expect("ends"), other.join().expect("ends")].concat()
        });
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 6 * DRAWN);
    }

    #[test]
    fn the_machine_tells_microseconds() {
        assert_eq!(SystemClock.now().subsec_nanosecond() % 1000, 0);
    }
}
