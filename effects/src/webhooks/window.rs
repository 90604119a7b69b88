//! The events that a webhook is to be sent next, in order within each stream.
//!
//! An event is sent once the one before it in its stream is finished; different streams do not wait for one another. The
//! position up to which everything is finished is what is stored, and the window is bounded: a webhook that falls behind
//! reads on from the journal later.

use std::collections::{BTreeMap, HashMap, VecDeque};

use domain::StreamId;

/// The maximum number of unfinished events.
const MOST: usize = 500;

/// Unfinished events of one webhook.
pub(super) struct Window {
    /// Their streams, by position.
    unfinished: BTreeMap<u64, StreamId>,
    /// The positions of each stream. The first of those that are not in `ready` is being sent.
    streams: HashMap<StreamId, VecDeque<u64>>,
    /// The streams whose first event can be sent, in the order in which they came to wait.
    ready: VecDeque<StreamId>,
    /// The position up to which they are known.
    read_to: u64,
}

impl Window {
    /// An empty window from a position on.
    pub fn after(position: u64) -> Self {
        Self {
            unfinished: BTreeMap::new(),
            streams: HashMap::new(),
            ready: VecDeque::new(),
            read_to: position,
        }
    }

    /// The position up to which events were read.
    pub fn read_to(&self) -> u64 {
        self.read_to
    }

    /// Whether more events may be read.
    pub fn has_room(&self) -> bool {
        self.unfinished.len() < MOST
    }

    /// The position up to which everything is finished.
    pub fn position(&self) -> u64 {
        self.unfinished.first_key_value().map_or(self.read_to, |(first, _)| first - 1)
    }

    /// Records that an event is not sent.
    pub fn skip(&mut self, position: u64) {
        self.read_to = position;
    }

    /// Adds an event to be sent.
    pub fn add(&mut self, position: u64, stream: &StreamId) {
        self.read_to = position;
        self.unfinished.insert(position, stream.clone());
        let positions = self.streams.entry(stream.clone()).or_default();
        if positions.is_empty() {
            self.ready.push_back(stream.clone());
        }
        positions.push_back(position);
    }

    /// Whether [`Window::next`] has an event.
    pub fn has_next(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next event to send. No other of its stream comes before it is finished.
    pub fn next(&mut self) -> Option<u64> {
        let stream = self.ready.pop_front()?;
        self.streams.get(&stream).and_then(|positions| positions.front().copied())
    }

    /// An event was accepted: the next of its stream can be sent.
    pub fn finish(&mut self, position: u64) {
        let Some(stream) = self.unfinished.remove(&position) else { return };
        let Some(positions) = self.streams.get_mut(&stream) else { return };
        positions.pop_front();
        if positions.is_empty() {
            self.streams.remove(&stream);
        } else {
            self.ready.push_back(stream);
        }
    }

    /// An event was not accepted, and from now on its stream waits elsewhere: all events of the stream leave.
    pub fn give_away(&mut self, position: u64) {
        let Some(stream) = self.unfinished.get(&position).cloned() else { return };
        for position in self.streams.remove(&stream).unwrap_or_default() {
            self.unfinished.remove(&position);
        }
        self.ready.retain(|ready| *ready != stream);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(number: usize) -> StreamId {
        StreamId::from_stored(format!("user-{number}"))
    }

    #[test]
    fn streams_do_not_wait_for_one_another_and_the_position_for_all() {
        let mut window = Window::after(10);
        for (position, of) in [(11, 1), (12, 1), (13, 2), (15, 1)] {
            window.add(position, &stream(of));
        }
        window.skip(16);
        assert_eq!((window.next(), window.next(), window.next()), (Some(11), Some(13), None));
        window.finish(13);
        assert_eq!(window.position(), 10, "the first one is not finished yet");
        window.finish(11);
        assert_eq!((window.position(), window.next(), window.next()), (11, Some(12), None));
        window.give_away(12);
        assert_eq!((window.position(), window.has_next()), (16, false), "15 left with its stream");
        window.add(17, &stream(2));
        assert_eq!((window.next(), window.position()), (Some(17), 16));
    }

    proptest! {
        #[test]
        fn every_event_is_sent_once_and_in_order(
            streams in prop::collection::vec(0..5_usize, 1..60),
            answers in prop::collection::vec(0..20_usize, 0..200),
        ) {
            let mut window = Window::after(0);
            for (index, of) in streams.iter().enumerate() {
                window.add(index as u64 + 1, &stream(*of));
            }
            let mut sent: Vec<u64> = Vec::new();
            let mut in_flight: Vec<u64> = Vec::new();
            let mut answers = answers.into_iter();
            loop {
                while in_flight.len() < 3 && let Some(position) = window.next() {
                    in_flight.push(position);
                }
                if in_flight.is_empty() {
                    break;
                }
                let done = in_flight.swap_remove(answers.next().unwrap_or_default() % in_flight.len());
                sent.push(done);
                window.finish(done);
                prop_assert!(window.position() < streams.len() as u64 || sent.len() == streams.len());
                prop_assert!((1..=window.position()).all(|finished| sent.contains(&finished)));
            }
            prop_assert_eq!(sent.len(), streams.len());
            for of in 0..5 {
                let of_stream: Vec<u64> =
                    sent.iter().copied().filter(|position| streams[usize::try_from(*position).expect("small") - 1] == of).collect();
                prop_assert!(of_stream.is_sorted());
            }
        }
    }
}
