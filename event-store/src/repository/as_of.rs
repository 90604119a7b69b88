//! The past: where the log stood at a time, and aggregates as they were then.
//!
//! Positions order the history. Times are what the clocks of nodes said, and may go back from one event to the next: by
//! the time that an append waited, or by the error of a clock. So the past is a position. A time `T` means **the last
//! position whose event is not later than `T`**, so that an event's own time includes it. That is exact as long as no
//! event is earlier than one that is more than [`DISORDER`] positions before it. Where a clock was further off, the log
//! passes `T` more than once. Then the answer is one of these passages, always the same one: up to it the log was not yet
//! past `T`, and the next event is later. Whoever must be exact there gives the position.
//!
//! Events that are written afterwards with later times change nothing in it.

use domain::{Loaded, Recorded, Timestamp};

use super::Repository;
use crate::journal::{Journal, StoreError};

/// How many parts each step of the search divides its range into: few round trips, and few events read.
const PARTS: u64 = 16;
/// By how many positions events may be out of the order of their times without making a time ambiguous.
pub const DISORDER: usize = 256;

/// The last position, up to `head`, whose event is not later than this time: see above. 0 if all events are later.
///
/// It reads single events by their position, about 15 for each power of 16 that the log has grown by, and then
/// [`DISORDER`] in a row. The places where it looks do not depend on the head: so the answer stays the same while the log
/// grows.
pub async fn position_at(journal: &dyn Journal, time: Timestamp, head: u64) -> Result<u64, StoreError> {
    let mut stride = 1_u64;
    while let Some(next) = stride.checked_mul(PARTS).filter(|next| *next <= head) {
        stride = next;
    }
    let mut passed = 0;
    while stride > 0 {
        let milestones: Vec<u64> =
            (1..PARTS).map(|n| passed + n * stride).take_while(|position| *position <= head).collect();
        let events = journal.read_positions(&milestones).await?;
        let last = events.iter().rfind(|event| event.at <= time);
        passed = last.map_or(passed, |event| event.position);
        stride /= PARTS;
    }
    loop {
        // One more: an event may stand just so many positions behind the first one that is later.
        let after = journal.read_all(passed, DISORDER + 1).await?;
        let last = after.iter().rposition(|event| event.position <= head && event.at <= time);
        let Some(last) = last else { return Ok(passed) };
        passed = after[last].position;
        // Whatever follows is later, unless it was not read.
        if last < DISORDER {
            return Ok(passed);
        }
    }
}

/// A state that an aggregate was in, and the event that led to it.
#[derive(Clone, Debug)]
pub struct Passed<A> {
    /// The position of the event.
    pub position: u64,
    /// Its time.
    pub at: Timestamp,
    /// Its name.
    pub name: String,
    /// The state after it.
    pub state: A,
}

impl Repository {
    /// The aggregate as it was when the log ended at this position: its default at version 0 before its first event. It is
    /// folded from its events as [`Repository::load`] folds them, from the first, and not kept at hand.
    pub async fn load_as_of<A: Recorded>(&self, id: &A::Id, position: u64) -> Result<Loaded<A>, StoreError> {
        let mut one = self.load_all_as_of::<A>(std::slice::from_ref(id), position).await?;
        Ok(one.pop().unwrap_or_default())
    }

    /// As [`Repository::load_as_of`], of several aggregates in their order, in one round trip.
    pub async fn load_all_as_of<A: Recorded>(
        &self,
        ids: &[A::Id],
        position: u64,
    ) -> Result<Vec<Loaded<A>>, StoreError> {
        let wanted: Vec<_> = ids.iter().map(|id| (A::stream(id), 0)).collect();
        let mut loaded = Vec::with_capacity(ids.len());
        for ((stream, _), events) in wanted.iter().zip(self.journal.read_streams(&wanted).await?) {
            let until = events.partition_point(|event| event.position <= position);
            loaded.push(self.fold(stream, Loaded::default(), &events[..until]).await?);
        }
        Ok(loaded)
    }

    /// The states of an aggregate after each of its events up to this position.
    pub async fn passed<A: Recorded>(&self, id: &A::Id, position: u64) -> Result<Vec<Passed<A>>, StoreError> {
        let stream = A::stream(id);
        let mut loaded = Loaded::<A>::default();
        let mut passed = Vec::new();
        for event in self.journal.read_stream(&stream, 0).await? {
            if event.position > position {
                break;
            }
            loaded = self.fold(&stream, loaded, std::slice::from_ref(&event)).await?;
            let state = loaded.state.clone();
            passed.push(Passed { position: event.position, at: event.at, name: event.name, state });
        }
        Ok(passed)
    }
}
