//! Events that a webhook did not accept, and that wait for their retry. The later events of their streams wait with them: what
//! the window has passed of a stream is found in the stream itself.

use std::collections::{BTreeMap, HashMap};

use domain::{EventId, StreamId, Timestamp};

/// The maximum number of waiting streams of a webhook. One that refuses more is sent nothing new.
const MOST: usize = 1_000;

/// An event that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: u64,
    /// When it is sent again.
    pub due: Timestamp,
    /// When its first attempt failed; absent if it was not sent yet.
    pub first_failed_at: Option<Timestamp>,
    /// The event of this stream, with its position, that the journal lists as waiting: this one or, while the stream catches
    /// up, one before it. After a crash, the stream is sent from there on again.
    pub listed: (u64, EventId),
    /// Whether the later events of its stream wait for it. Not if it was given up once.
    pub holds_stream: bool,
    pub in_flight: bool,
}

/// The waiting events of a webhook, by position.
#[derive(Default)]
pub(super) struct Parked {
    waiting: BTreeMap<u64, Waiting>,
    streams: HashMap<StreamId, u64>,
}

impl Parked {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn has_room(&self) -> bool {
        self.waiting.len() < MOST
    }

    /// Whether the events of a stream wait here.
    pub fn holds(&self, stream: &StreamId) -> bool {
        self.streams.contains_key(stream)
    }

    pub fn add(&mut self, position: u64, waiting: Waiting) {
        if waiting.holds_stream {
            self.streams.insert(waiting.stream.clone(), position);
        }
        self.waiting.insert(position, waiting);
    }

    pub fn get(&self, position: u64) -> Option<&Waiting> {
        self.waiting.get(&position)
    }

    pub fn remove(&mut self, position: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&position)?;
        if waiting.holds_stream {
            self.streams.remove(&waiting.stream);
        }
        Some(waiting)
    }

    /// The next event to send again: the earliest that is due, or the earliest of all if `whenever`.
    pub fn next(&mut self, now: Timestamp, whenever: bool) -> Option<u64> {
        let idle = self.waiting.iter_mut().filter(|(_, waiting)| !waiting.in_flight);
        let (position, waiting) = idle.min_by_key(|(position, waiting)| (waiting.due, **position))?;
        if !whenever && waiting.due > now {
            return None;
        }
        waiting.in_flight = true;
        Some(*position)
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.waiting.values().filter(|waiting| !waiting.in_flight).map(|waiting| waiting.due).min()
    }

    /// The receiver works again: nothing waits any longer.
    pub fn retry_all(&mut self, now: Timestamp) {
        for waiting in self.waiting.values_mut() {
            waiting.due = waiting.due.min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("in range")
    }

    #[test]
    fn the_earliest_comes_first_and_streams_are_held() {
        let stream = |number: u64| StreamId::from_stored(format!("user-{number}"));
        let waiting = |position: u64, due, holds_stream| Waiting {
            stream: stream(position),
            version: 1,
            due: at(due),
            first_failed_at: None,
            listed: (position, EventId(Uuid::nil())),
            holds_stream,
            in_flight: false,
        };
        let mut parked = Parked::default();
        for (position, due, holds) in [(1, 30, true), (2, 10, true), (3, 20, false)] {
            parked.add(position, waiting(position, due, holds));
        }
        assert!(parked.holds(&stream(1)) && parked.holds(&stream(2)) && !parked.holds(&stream(3)));
        assert_eq!((parked.next(at(5), false), parked.next_due()), (None, Some(at(10))));
        assert_eq!((parked.next(at(15), false), parked.next(at(15), false)), (Some(2), None));
        assert_eq!(parked.next(at(15), true), Some(3), "the earliest that is not being sent");
        parked.retry_all(at(15));
        assert_eq!(parked.next(at(15), false), Some(1));
        parked.remove(2);
        assert!(!parked.holds(&stream(2)) && parked.len() == 2);
    }
}
