//! The history of failed logins, decided again under another policy: where it would have gone another way.
//!
//! What the log holds is decided again by the lockout itself. It holds no attempt that was refused while the account was
//! locked, so under a more lenient policy there may have been more guesses than are seen here.

use cqrs_es::Aggregate;
use jiff::Timestamp;

use super::{AccountIsLocked, Lockout, LockoutCommand, LockoutEvent, LockoutPolicy};

/// One account's failed logins under another policy. What was decided before is taken as it was.
#[derive(Clone, Debug)]
pub struct Replay {
    policy: LockoutPolicy,
    in_force: LockoutPolicy,
    recorded: Lockout,
    decided: Lockout,
}

/// Where the other policy would have decided otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A guess that was evaluated would have been refused.
    GuessRefused {
        /// Until when the account would have been locked.
        until: Timestamp,
    },
    /// A guess would have locked the account.
    Locked {
        /// Until when.
        until: Timestamp,
    },
    /// A guess that locked the account would not have.
    NotLocked,
    /// A guess would have locked the account for another time.
    LockedUntil {
        /// Until when.
        until: Timestamp,
    },
    /// A login would have been refused, unless it came from a device that had been in the account before: a session does
    /// not say so.
    LoginRefused {
        /// Until when the account would have been locked.
        until: Timestamp,
    },
}

impl Replay {
    /// Goes on from this state under another policy than the one in force.
    pub fn new(state: &Lockout, policy: LockoutPolicy, in_force: LockoutPolicy) -> Self {
        Self { policy, in_force, recorded: state.clone(), decided: state.clone() }
    }

    /// Decides anew what led to these events, which were written together.
    pub fn again(&mut self, events: &[LockoutEvent]) -> Option<Difference> {
        for event in events {
            self.recorded.apply(event.clone());
        }
        let (user_id, device, at) = match events.first()? {
            LockoutEvent::LoginFailed(event) => (event.user_id, event.device_id, event.at),
            LockoutEvent::AccountLocked(event) => (event.user_id, event.device_id, event.at),
            // Somebody wanted it so.
            LockoutEvent::AccountUnlocked(_) => {
                self.decided.apply(events.first()?.clone());
                return None;
            }
        };
        let command = LockoutCommand::RecordFailure { user_id, device, policy: self.policy, at };
        let decided = match self.decided.decide(&command) {
            Ok(decided) => decided,
            Err(AccountIsLocked { until }) => return Some(Difference::GuessRefused { until }),
        };
        let difference = match (lock(events), lock(&decided)) {
            (recorded, decided) if recorded == decided => None,
            (_, None) => Some(Difference::NotLocked),
            (None, Some(until)) => Some(Difference::Locked { until }),
            (Some(_), Some(until)) => Some(Difference::LockedUntil { until }),
        };
        for event in decided {
            self.decided.apply(event);
        }
        difference
    }

    /// Decides anew whether a right password was looked at.
    pub fn login(&self, at: Timestamp) -> Option<Difference> {
        // If strangers were locked out in truth, it came from a known device.
        self.recorded.require_open(None, self.in_force, at).ok()?;
        let locked = self.decided.require_open(None, self.policy, at).err()?;
        Some(Difference::LoginRefused { until: locked.until })
    }
}

/// Until when these events lock.
fn lock(events: &[LockoutEvent]) -> Option<Timestamp> {
    events.iter().find_map(|event| match event {
        LockoutEvent::AccountLocked(event) => Some(event.until),
        LockoutEvent::LoginFailed(_) | LockoutEvent::AccountUnlocked(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{DeviceId, UserId};

    fn id(number: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(number)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("in range")
    }

    fn policy(failures: u32, window: u32) -> LockoutPolicy {
        LockoutPolicy { failures, window, ..LockoutPolicy::default() }
    }

    /// What guesses and unlocks at these seconds led to: the events that were written together.
    fn history(policy: LockoutPolicy, steps: &[(Option<u8>, i64, bool)]) -> Vec<Vec<LockoutEvent>> {
        let (mut lockout, mut history) = (Lockout::default(), Vec::new());
        for (device, second, is_unlock) in steps {
            let (user_id, at) = (UserId(id(7)), at(*second));
            let device = device.map(|device| DeviceId(id(device.into())));
            let command = if *is_unlock {
                LockoutCommand::Unlock { user_id, at }
            } else {
                LockoutCommand::RecordFailure { user_id, device, policy, at }
            };
            let events = lockout.decide(&command).unwrap_or_default();
            for event in &events {
                lockout.apply(event.clone());
            }
            history.push(events);
        }
        history.retain(|events| !events.is_empty());
        history
    }

    fn again(
        in_force: LockoutPolicy,
        other: LockoutPolicy,
        steps: &[(Option<u8>, i64, bool)],
    ) -> Vec<Option<Difference>> {
        let mut replay = Replay::new(&Lockout::default(), other, in_force);
        history(in_force, steps).iter().map(|events| replay.again(events)).collect()
    }

    #[test]
    fn a_stricter_policy_locks_earlier_and_refuses_what_follows() {
        let steps: Vec<_> = (0..4).map(|second| (None, second, false)).collect();
        let found = again(policy(10, 900), policy(2, 900), &steps);
        let until = at(1 + 60);
        let refused = Some(Difference::GuessRefused { until });
        assert_eq!(found, [None, Some(Difference::Locked { until }), refused, refused]);
    }

    #[test]
    fn a_more_lenient_policy_does_not_lock() {
        let steps: Vec<_> = (0..3).map(|second| (None, second, false)).collect();
        assert_eq!(again(policy(3, 900), policy(9, 900), &steps), [None, None, Some(Difference::NotLocked)]);
        let longer = LockoutPolicy { first_lock: 600, ..policy(3, 900) };
        let until = at(2 + 600);
        assert_eq!(again(policy(3, 900), longer, &steps)[2], Some(Difference::LockedUntil { until }));
    }

    #[test]
    fn a_login_is_refused_while_strangers_would_have_been_locked_out() {
        let in_force = policy(3, 900);
        let mut replay = Replay::new(&Lockout::default(), policy(2, 900), in_force);
        for events in history(in_force, &[(None, 0, false), (None, 1, false)]) {
            replay.again(&events);
        }
        assert_eq!(replay.login(at(2)), Some(Difference::LoginRefused { until: at(61) }));
        assert_eq!(replay.login(at(61)), None);
        // In truth they were locked out, too: it came from a known device.
        for events in history(in_force, &[(None, 0, false), (None, 1, false), (None, 2, false)]).drain(2..) {
            replay.again(&events);
        }
        assert_eq!(replay.login(at(3)), None);
    }

    proptest! {
        #[test]
        fn the_policy_in_force_differs_nowhere(
            steps in prop::collection::vec((prop::option::of(0..3_u8), 0..200_i64, prop::bool::weighted(0.05)), 0..80),
            failures in 1..5_u32,
            window in 1..2_000_u32,
            taken in 0..40_usize,
        ) {
            // Seconds between them, at times backwards.
            let mut second = 0;
            let steps: Vec<_> = steps.into_iter().map(|(device, pause, unlock)| {
                second += pause - 20;
                (device, second, unlock)
            }).collect();
            let policy = policy(failures, window);
            let history = history(policy, &steps);
            // What came before is taken as it was.
            let (before, rest) = history.split_at(taken.min(history.len()));
            let mut state = Lockout::default();
            before.iter().flatten().for_each(|event| state.apply(event.clone()));
            let mut replay = Replay::new(&state, policy, policy);
            for events in rest {
                prop_assert_eq!(replay.again(events), None);
                prop_assert_eq!(replay.login(at(second)), None);
            }
        }
    }
}
