//! One-time tokens as the log records them: numbers with an expiry. The tokens themselves are derived from the number
//! and a key that is not in the log.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// How many tokens of one purpose and kind can be valid at a time. A request for one more gets the newest again.
pub const MAX_LIVE: usize = 5;

/// The content of a user's token: whose it is, and its number within its purpose. The purpose is part of the key that
/// it is derived with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct UserToken {
    pub user_id: UserId,
    pub generation: u32,
}

/// The tokens of one purpose: each is valid until it expires, or until one of them is used. A later token does not end
/// earlier ones; otherwise anybody could void another person's mails by requesting more of them.
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
    /// The number of the next token. No number is reused.
    pub fn next(&self) -> u32 {
        self.last + 1
    }

    /// The token to send in answer to a request for one that lasts until `expires_at`, and when it expires: a new one,
    /// or the newest of the same kind if [`MAX_LIVE`] of them are valid.
    pub(crate) fn offer(
        &self,
        expires_at: Timestamp,
        at: Timestamp,
        is_of_kind: impl Fn(&T) -> bool,
    ) -> (u32, Timestamp) {
        let live = self.live.iter().filter(|(_, token)| at < token.expires_at && is_of_kind(&token.what));
        match live.clone().next_back() {
            Some((generation, newest)) if live.count() >= MAX_LIVE => (*generation, newest.expires_at),
            _ => (self.next(), expires_at),
        }
    }

    /// What the token of this number is for, if it is valid at this time.
    pub fn get(&self, generation: u32, at: Timestamp) -> Option<&T> {
        let token = self.live.get(&generation)?;
        (at < token.expires_at).then_some(&token.what)
    }

    /// Keeps a token that was offered. Older events issued a new one for every request, and each ended the oldest.
    pub(crate) fn issue(
        &mut self,
        generation: u32,
        expires_at: Timestamp,
        what: T,
        at: Timestamp,
        is_of_kind: impl Fn(&T) -> bool,
    ) {
        self.last = self.last.max(generation);
        self.live.retain(|_, token| at < token.expires_at);
        self.live.entry(generation).or_insert(Live { expires_at, what });
        let of_kind = self.live.iter().filter(|(_, token)| is_of_kind(&token.what));
        let too_many = of_kind.clone().count().saturating_sub(MAX_LIVE);
        let oldest: Vec<u32> = of_kind.map(|(generation, _)| *generation).take(too_many).collect();
        for generation in oldest {
            self.live.remove(&generation);
        }
    }

    /// The number of the newest, 0 if there was none.
    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    /// Those that are valid at this time.
    pub(crate) fn live(&self, at: Timestamp) -> impl Iterator<Item = &T> {
        self.live.values().filter(move |token| at < token.expires_at).map(|token| &token.what)
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
        tokens.issue(1, at(10), "first", at(0), |_| true);
        tokens.issue(2, at(15), "second", at(5), |_| true);
        assert_eq!((tokens.get(1, at(9)), tokens.get(2, at(9))), (Some(&"first"), Some(&"second")));
        assert_eq!((tokens.get(1, at(10)), tokens.get(2, at(10))), (None, Some(&"second")));
        assert_eq!((tokens.get(0, at(0)), tokens.get(3, at(0))), (None, None));
        tokens.end();
        assert_eq!(tokens.get(2, at(6)), None);
        assert_eq!(tokens.next(), 3, "a number is never reused");
    }

    #[test]
    fn their_number_is_bounded_and_none_is_ended_by_another() {
        let mut tokens = OneTimeTokens::default();
        let live = |tokens: &OneTimeTokens<bool>, second| {
            (0..30).filter(|&generation| tokens.get(generation, at(second)).is_some()).collect::<Vec<u32>>()
        };
        for second in 0..20 {
            let (generation, expires_at) = tokens.offer(at(100 + second), at(second), |kind| *kind);
            tokens.issue(generation, expires_at, true, at(second), |kind| *kind);
        }
        assert_eq!(live(&tokens, 20), [1, 2, 3, 4, 5]);
        assert_eq!(tokens.offer(at(120), at(20), |kind| *kind), (5, at(104)), "the newest again");
        // Another kind is counted separately.
        assert_eq!(tokens.offer(at(120), at(20), |kind| !*kind), (6, at(120)));
        tokens.issue(6, at(120), false, at(20), |kind| !*kind);
        assert_eq!(live(&tokens, 20), [1, 2, 3, 4, 5, 6]);
        // One place is free.
        assert_eq!(tokens.offer(at(200), at(100), |kind| *kind), (7, at(200)));
    }

    #[test]
    fn what_was_issued_before_is_bounded_as_it_was() {
        let mut tokens = OneTimeTokens::default();
        for generation in 1..=20 {
            tokens.issue(generation, at(100), (), at(0), |()| true);
        }
        let live: Vec<u32> = (0..30).filter(|&generation| tokens.get(generation, at(1)).is_some()).collect();
        assert_eq!(live, [16, 17, 18, 19, 20]);
    }
}
