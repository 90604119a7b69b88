//! Requested mails that are not sent yet: looked up ahead of the one in progress, and served round-robin by app, so that an
//! app that requests very many does not delay those of others.

use std::collections::{BTreeSet, VecDeque};

use domain::AppId;

use http_kit::fair_queue::{Items, Turns};

/// The maximum number of mails known ahead.
const MOST: usize = 100_000;

/// The positions of the requesting events.
pub(super) struct Backlog {
    turns: Turns<AppId, VecDeque<u64>>,
    unsent: BTreeSet<u64>,
    /// The position up to which they are known.
    looked_at: u64,
}

impl Backlog {
    /// An empty backlog from a position on.
    pub fn after(position: u64) -> Self {
        Self { turns: Turns::default(), unsent: BTreeSet::new(), looked_at: position }
    }

    /// The position up to which events were examined.
    pub fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// Whether more events may be examined.
    pub fn has_room(&self) -> bool {
        self.unsent.len() < MOST
    }

    /// Records an examined event.
    pub fn look(&mut self, position: u64, asks: Option<&AppId>) {
        self.looked_at = position;
        if let Some(app_id) = asks {
            self.unsent.insert(position);
            self.turns.add(app_id, |list| {
                list.push_back(position);
                true
            });
        }
    }

    /// The next one, round-robin. It stays in the backlog until it is [`Backlog::done`].
    pub fn next(&mut self) -> Option<u64> {
        self.turns.first()
    }

    /// Marks an event as finished.
    pub fn done(&mut self, position: u64) {
        self.unsent.remove(&position);
    }

    /// The position up to which everything is finished.
    pub fn position(&self) -> u64 {
        self.unsent.first().map_or(self.looked_at, |first| first - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_have_turns_and_the_position_waits_for_the_last() {
        let mut backlog = Backlog::after(10);
        let (many, few) = (AppId::parse("many").expect("valid"), AppId::parse("few").expect("valid"));
        for position in 11..=20 {
            backlog.look(position, Some(&many));
        }
        backlog.look(21, None);
        backlog.look(22, Some(&few));
        backlog.look(23, None);
        let order: Vec<u64> = std::iter::from_fn(|| {
            let next = backlog.next()?;
            backlog.done(next);
            Some(next)
        })
        .collect();
        assert_eq!(order[..4], [11, 22, 12, 13]);
        assert_eq!((order.len(), backlog.position()), (11, 23));
        let mut backlog = Backlog::after(10);
        backlog.look(11, Some(&many));
        backlog.look(12, Some(&few));
        assert_eq!((backlog.next(), backlog.next(), backlog.position()), (Some(11), Some(12), 10));
        backlog.done(12);
        assert_eq!(backlog.position(), 10, "the first one is not sent yet");
        backlog.done(11);
        assert_eq!(backlog.position(), 12);
    }
}
