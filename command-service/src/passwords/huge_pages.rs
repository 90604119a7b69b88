//! Huge pages where they pay: in the memory that passwords are hashed in.
//!
//! argon2 reads its memory in no order, and is a seventh faster where the system maps it in pages of 2 MiB. Everything else is
//! small and comes and goes: there they only keep memory that nobody uses, some 40 MiB of a busy process. The system's
//! switch (`PR_SET_THP_DISABLE`, prctl(2)) is for a whole process, so it is turned for as long as such memory is made.

use std::sync::{Mutex, PoisonError};

use rustix::thread::{disable_transparent_huge_pages as disable, transparent_huge_pages_are_disabled};

/// Whether this process turned the switch. If somebody else did, it stays as it is.
static IS_OURS: Mutex<bool> = Mutex::new(false);

/// From now on memory has small pages, but for that in which passwords are hashed.
pub fn only_for_hashes() {
    let mut is_ours = IS_OURS.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(transparent_huge_pages_are_disabled(), Ok(false)) {
        *is_ours = disable(true).is_ok();
    }
}

/// Makes something big, in huge pages if the system gives any.
pub(crate) fn with<T>(make: impl FnOnce() -> T) -> T {
    let is_ours = IS_OURS.lock().unwrap_or_else(PoisonError::into_inner);
    // Whatever fails here costs speed alone.
    if *is_ours {
        let _ = disable(false);
    }
    let result = make();
    if *is_ours {
        let _ = disable(true);
    }
    result
}
