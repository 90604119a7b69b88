//! An append that waits for the writer. A caller that gives up before the writer takes it knows that nothing was sent.

use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Taken or withdrawn, whichever is first.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU8);

impl Ticket {
    /// For the writer: whether the append is still wanted.
    pub(super) fn take(&self) -> bool {
        self.become_first(TAKEN)
    }

    /// For the caller: whether the writer will never see the append.
    pub(super) fn withdraw(&self) -> bool {
        self.become_first(WITHDRAWN)
    }

    fn become_first(&self, state: u8) -> bool {
        self.0.compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
