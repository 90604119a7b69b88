//! One-time tokens as the log knows them: numbers with an end. The tokens themselves are derived from the number and a key
//! that is not in the log.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// How many tokens of one purpose can be good at a time. Whoever asks for one more ends the oldest.
pub const MAX_LIVE: usize = 5;

/// What the token of a user says about itself: whose it is, and which of its purpose. The purpose is part of the key that it
/// is derived with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserToken {
    /// Whose.
    pub user_id: UserId,
    /// Its number.
    pub generation: u32,
}

/// The tokens of one purpose: each is good until its time, or until one of them is used. A later one does not end those
/// before it, or else anybody could make somebody's mails useless by asking for more of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneTimeTokens<T> {
    last: u32,
    live: BTreeMap<u32, Live<T>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Live<T> {
    expires_at: Timestamp,
    what: T,
}

impl<T> Default for OneTimeTokens<T> {
    fn default() -> Self {
        Self { last: 0, live: BTreeMap::new() }
    }
}

impl<T> OneTimeTokens<T> {
    /// The number of the next one: no number comes twice.
    pub fn next(&self) -> u32 {
        self.last + 1
    }

    /// What the token of this number is for, if it is good at this time.
    pub fn get(&self, generation: u32, at: Timestamp) -> Option<&T> {
        let token = self.live.get(&generation)?;
        (at < token.expires_at).then_some(&token.what)
    }

    /// Keeps a new one.
    pub(crate) fn issue(&mut self, generation: u32, expires_at: Timestamp, what: T, at: Timestamp) {
        self.last = generation;
        self.live.retain(|_, token| at < token.expires_at);
        self.live.insert(generation, Live { expires_at, what });
        while self.live.len() > MAX_LIVE {
            self.live.pop_first();
        }
    }

    /// Ends all of them.
    pub(crate) fn end(&mut self) {
        self.live.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("in range")
    }

    #[test]
    fn several_are_good_until_their_time_or_until_all_end() {
        let mut tokens = OneTimeTokens::default();
        assert_eq!(tokens.next(), 1);
        tokens.issue(1, at(10), "first", at(0));
        tokens.issue(2, at(15), "second", at(5));
        assert_eq!((tokens.get(1, at(9)), tokens.get(2, at(9))), (Some(&"first"), Some(&"second")));
        assert_eq!((tokens.get(1, at(10)), tokens.get(2, at(10))), (None, Some(&"second")));
        assert_eq!((tokens.get(0, at(0)), tokens.get(3, at(0))), (None, None));
        tokens.end();
        assert_eq!(tokens.get(2, at(6)), None);
        assert_eq!(tokens.next(), 3, "a number never comes back");
    }

    #[test]
    fn their_number_is_bounded() {
        let mut tokens = OneTimeTokens::default();
        for generation in 1..=20 {
            tokens.issue(generation, at(100), (), at(0));
        }
        let live: Vec<u32> = (0..30).filter(|&generation| tokens.get(generation, at(1)).is_some()).collect();
        assert_eq!(live, [16, 17, 18, 19, 20]);
    }
}
