//! Huge pages for the memory in which passwords are hashed.
//!
//! argon2 accesses its memory at random and is a seventh faster with pages of 2 MiB. All other allocations are small and
//! short-lived: huge pages would only waste memory there, some 40 MiB in a busy process. The switch (`PR_SET_THP_DISABLE`,
//! prctl(2)) is per process, so it is toggled while such memory is allocated.

use std::sync::{Mutex, PoisonError};

use rustix::thread::{disable_transparent_huge_pages as disable, transparent_huge_pages_are_disabled};

/// Whether this process set the switch. If it was set from outside, it stays as it is.
static IS_OURS: Mutex<bool> = Mutex::new(false);

/// Disables huge pages, except for memory in which passwords are hashed.
pub fn only_for_hashes() {
    let mut is_ours = IS_OURS.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(transparent_huge_pages_are_disabled(), Ok(false)) {
        *is_ours = disable(true).is_ok();
    }
}

/// Runs `make` with huge pages enabled, if the system offers them.
pub(crate) fn with<T>(make: impl FnOnce() -> T) -> T {
    let is_ours = IS_OURS.lock().unwrap_or_else(PoisonError::into_inner);
    // A failure here only costs speed.
    if *is_ours {
        let _ = disable(false);
    }
    let result = make();
    if *is_ours {
        let _ = disable(true);
    }
    result
}
