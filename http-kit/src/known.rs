//! Addresses that are no strangers: one of their requests had valid credentials lately. When all places for requests are
//! taken, what is reserved is for them.

use std::time::{Duration, Instant};

use crate::problem::ANSWERED;

/// How long an address is remembered.
const LATELY: Duration = Duration::from_hours(24);
/// How many are.
const MOST: usize = 64 * 1024;

/// The addresses, by number.
pub(crate) struct KnownAddresses(quick_cache::sync::Cache<u128, Instant>);

impl Default for KnownAddresses {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(MOST))
    }
}

impl KnownAddresses {
    pub fn has(&self, address: u128) -> bool {
        self.0.get(&address).is_some_and(|at| at.elapsed() < LATELY)
    }

    pub fn add(&self, address: u128) {
        self.0.insert(address, Instant::now());
    }
}

/// Records that the request answered by this task has valid credentials.
pub(crate) fn has_credentials() {
    // Outside of a request nobody asks.
    let _ = ANSWERED.try_with(|request| request.has_credentials.set(true));
}
