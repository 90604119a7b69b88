//! The mails that are asked for and not sent yet: found ahead of the one that is being sent, and served app by app in turns,
//! so that an app which asks for very many does not keep those of others waiting.

use std::collections::{BTreeSet, VecDeque};

use domain::AppId;

use http_kit::fair_queue::{Items, Turns};

/// How many are known ahead at most: of what is behind them, nothing is known.
const MOST: usize = 100_000;

/// The positions of the events that ask.
pub(super) struct Backlog {
    turns: Turns<AppId, VecDeque<u64>>,
    unsent: BTreeSet<u64>,
    /// The position up to which they are known.
    looked_at: u64,
}

impl Backlog {
    /// Of what comes behind a position.
    pub fn after(position: u64) -> Self {
        Self { turns: Turns::default(), unsent: BTreeSet::new(), looked_at: position }
    }

    /// Up to where it has looked.
    pub fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// Whether more may be looked for.
    pub fn has_room(&self) -> bool {
        self.unsent.len() < MOST
    }

    /// Takes note of an event that has been looked at.
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

    /// The next one, in turn. It stays unsent until it is [`Backlog::done`].
    pub fn next(&mut self) -> Option<u64> {
        self.turns.first()
    }

    /// Nothing is left to do for an event.
    pub fn done(&mut self, position: u64) {
        self.unsent.remove(&position);
    }

    /// The position up to which everything is done.
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
