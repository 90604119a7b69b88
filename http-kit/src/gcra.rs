//! A rate limit for each of many keys, by the generic cell rate algorithm: up to `requests` at once, and one more
//! whenever its share of the `seconds` has passed. A counted request can be given back if it turns out not to count.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::limits::Rate;

/// Keys are spread over this many maps, each with its own lock.
const SHARDS: usize = 16;
/// After this many counts in a map, keys with their full allowance are forgotten.
const SWEEP: u32 = 4096;

/// The counters.
pub(crate) struct Gcra {
    started: Instant,
    /// Nanoseconds that one request costs.
    cost: u64,
    /// Nanoseconds that can be spent at once.
    burst: u64,
    shards: [Shard; SHARDS],
}

#[derive(Default)]
struct Shard {
    counts: AtomicU32,
    /// When the full allowance is restored, in nanoseconds since the start.
    spent_until: Mutex<HashMap<u128, u64>>,
}

impl Gcra {
    pub fn new(rate: Rate) -> Self {
        let requests = u64::from(rate.requests.get());
        let cost = (u64::from(rate.seconds.get()) * 1_000_000_000 / requests).max(1);
        Self { started: Instant::now(), cost, burst: cost * requests, shards: Default::default() }
    }

    /// Counts one request. Returns how many are left, or how long until one is.
    pub fn check(&self, key: u128) -> Result<u32, Duration> {
        self.check_at(key, self.now())
    }

    /// Undoes a count of [`Gcra::check`].
    pub fn give_back(&self, key: u128) {
        self.give_back_at(key, self.now());
    }

    /// How many keys are counted.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(&shard.spent_until).len()).sum()
    }

    fn check_at(&self, key: u128, now: u64) -> Result<u32, Duration> {
        let shard = self.shard(key);
        let mut spent_until = lock(&shard.spent_until);
        if shard.counts.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            spent_until.retain(|_, until| *until > now);
        }
        let entry = spent_until.entry(key).or_insert(now);
        let next = (*entry).max(now) + self.cost;
        if next - now > self.burst {
            return Err(Duration::from_nanos(next - now - self.burst));
        }
        *entry = next;
        Ok(u32::try_from((self.burst - (next - now)) / self.cost).unwrap_or(u32::MAX))
    }

    fn give_back_at(&self, key: u128, now: u64) {
        let mut spent_until = lock(&self.shard(key).spent_until);
        if let Some(until) = spent_until.get_mut(&key) {
            *until = until.saturating_sub(self.cost);
            if *until <= now {
                spent_until.remove(&key);
            }
        }
    }

    fn shard(&self, key: u128) -> &Shard {
        // Addresses differ in their last bytes, hashes in all.
        let mixed = key ^ (key >> 64) ^ (key >> 32);
        &self.shards[usize::try_from(mixed % SHARDS as u128).expect("less than the number of shards")]
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(requests: u32, seconds: u32) -> Gcra {
        let number = |n: u32| n.try_into().expect("not zero");
        Gcra::new(Rate { requests: number(requests), seconds: number(seconds) })
    }

    #[test]
    fn a_burst_then_one_at_a_time() {
        let limit = limit(3, 60);
        assert_eq!([0; 3].map(|now| limit.check_at(1, now)), [Ok(2), Ok(1), Ok(0)]);
        assert_eq!(limit.check_at(1, SECOND), Err(Duration::from_secs(19)));
        assert_eq!(limit.check_at(2, SECOND), Ok(2), "another key");
        assert_eq!(limit.check_at(1, 20 * SECOND), Ok(0));
        assert!(limit.check_at(1, 39 * SECOND).is_err());
        assert_eq!(limit.check_at(1, 1000 * SECOND), Ok(2), "no more than the full allowance comes back");
    }

    #[test]
    fn what_is_given_back_was_never_counted() {
        let limit = limit(2, 60);
        for now in 0..100 {
            assert_eq!(limit.check_at(1, now), Ok(1));
            limit.give_back_at(1, now);
        }
        assert_eq!(limit.len(), 0, "and leaves nothing");
        limit.give_back_at(1, 100);
        assert_eq!((limit.check_at(1, 100), limit.check_at(1, 100)), (Ok(1), Ok(0)));
        assert!(limit.check_at(1, 100).is_err());
        limit.give_back_at(1, 100);
        assert_eq!(limit.check_at(1, 100), Ok(0));
    }

    #[test]
    fn keys_with_their_full_allowance_are_forgotten() {
        let limit = limit(1, 1);
        for key in 0..100_000_u128 {
            assert!(limit.check_at(key, u64::try_from(key).expect("small") * SECOND).is_ok());
        }
        assert!(limit.len() <= SHARDS * SWEEP as usize, "{}", limit.len());
    }
}
