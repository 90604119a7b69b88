//! Failed logins of one account: how many guesses anyone gets, however many try at once.
//!
//! A guess's outcome is told only after its failure is in the log (or, for a right password, after the session
//! is started under a guard on this stream). So the number of guesses that anyone learns something from is decided
//! here, not by how many hashes ran in parallel.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{EventInfo, Stream, StreamId};
use crate::ids::UserId;

/// How many guesses, and how long a lock. Each further lock within a day of the last lasts twice as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockoutPolicy {
    /// Failures within `window` that lock the account.
    pub failures: u32,
    /// Seconds in which failures add up.
    pub window: u32,
    /// Seconds of the first lock.
    pub first_lock: u32,
    /// Seconds of the longest lock.
    pub longest_lock: u32,
}

impl Default for LockoutPolicy {
    fn default() -> Self {
        Self { failures: 10, window: 900, first_lock: 60, longest_lock: 900 }
    }
}

/// What can be asked of a lockout.
#[derive(Clone, Debug)]
pub enum LockoutCommand {
    /// Count a failed login.
    RecordFailure {
        /// Whose account.
        user_id: UserId,
        /// What counts.
        policy: LockoutPolicy,
        /// The time.
        at: Timestamp,
    },
    /// Forget failures and lock.
    Unlock {
        /// Whose account.
        user_id: UserId,
        /// The time.
        at: Timestamp,
    },
}

/// The account is locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins")]
pub struct AccountIsLocked {
    /// Until when.
    pub until: Timestamp,
}

/// A login was refused for its password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoginFailed {
    /// Whose account.
    pub user_id: UserId,
    /// Failures in this window, with this one.
    pub failures: u32,
    /// When.
    pub at: Timestamp,
}

/// Too many logins failed: none is tried before `until`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccountLocked {
    /// Whose account.
    pub user_id: UserId,
    /// The end of the lock.
    pub until: Timestamp,
    /// When.
    pub at: Timestamp,
}

/// An admin ended the lock and the count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccountUnlocked {
    /// Whose account.
    pub user_id: UserId,
    /// When.
    pub at: Timestamp,
}

/// The events of a lockout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
#[expect(missing_docs, reason = "each variant's payload is documented")]
pub enum LockoutEvent {
    #[serde(rename = "LoginFailed")]
    LoginFailed(LoginFailed),
    #[serde(rename = "AccountLocked")]
    AccountLocked(AccountLocked),
    #[serde(rename = "AccountUnlocked")]
    AccountUnlocked(AccountUnlocked),
}

impl EventInfo for LockoutEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::LoginFailed(_) => "LoginFailed",
            Self::AccountLocked(_) => "AccountLocked",
            Self::AccountUnlocked(_) => "AccountUnlocked",
        }
    }

    fn person(&self) -> Option<UserId> {
        Some(match self {
            Self::LoginFailed(event) => event.user_id,
            Self::AccountLocked(event) => event.user_id,
            Self::AccountUnlocked(event) => event.user_id,
        })
    }
}

impl DomainEvent for LockoutEvent {
    fn event_type(&self) -> String {
        self.name().to_owned()
    }

    fn event_version(&self) -> String {
        self.version().to_string()
    }
}

/// The failed logins of one account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lockout {
    failures: u32,
    window_start: Timestamp,
    locked_until: Option<Timestamp>,
    locks: u32,
}

impl Lockout {
    /// Refuses while the account is locked.
    pub fn require_open(&self, at: Timestamp) -> Result<(), AccountIsLocked> {
        match self.locked_until {
            Some(until) if at < until => Err(AccountIsLocked { until }),
            _ => Ok(()),
        }
    }

    fn decide(&self, command: &LockoutCommand) -> Result<Vec<LockoutEvent>, AccountIsLocked> {
        match *command {
            LockoutCommand::RecordFailure { user_id, policy, at } => {
                self.require_open(at)?;
                let failures = self.failures_at(at, policy) + 1;
                let mut events = vec![LockoutEvent::LoginFailed(LoginFailed { user_id, failures, at })];
                if failures >= policy.failures {
                    let until = at + self.lock_duration(at, policy);
                    events.push(LockoutEvent::AccountLocked(AccountLocked { user_id, until, at }));
                }
                Ok(events)
            }
            LockoutCommand::Unlock { user_id, at } if self.failures > 0 || self.locked_until.is_some() => {
                Ok(vec![LockoutEvent::AccountUnlocked(AccountUnlocked { user_id, at })])
            }
            LockoutCommand::Unlock { .. } => Ok(vec![]),
        }
    }

    fn failures_at(&self, at: Timestamp, policy: LockoutPolicy) -> u32 {
        let window = SignedDuration::from_secs(policy.window.into());
        if self.failures > 0 && at.duration_since(self.window_start) <= window { self.failures } else { 0 }
    }

    fn lock_duration(&self, at: Timestamp, policy: LockoutPolicy) -> SignedDuration {
        const A_DAY: SignedDuration = SignedDuration::from_hours(24);
        let recent = self.locked_until.is_some_and(|end| at.duration_since(end) < A_DAY);
        let doublings = if recent { self.locks.min(20) } else { 0 };
        let seconds = (u64::from(policy.first_lock) << doublings).min(policy.longest_lock.into());
        SignedDuration::from_secs(seconds.cast_signed())
    }
}

impl Stream for Lockout {
    type Id = UserId;

    fn stream(id: &UserId) -> StreamId {
        StreamId::lockout(*id)
    }
}

impl Aggregate for Lockout {
    const TYPE: &'static str = "lockout";
    type Command = LockoutCommand;
    type Event = LockoutEvent;
    type Error = AccountIsLocked;
    type Services = ();

    async fn handle(
        &mut self,
        command: LockoutCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), AccountIsLocked> {
        for event in self.decide(&command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: LockoutEvent) {
        match event {
            LockoutEvent::LoginFailed(LoginFailed { failures, at, .. }) => {
                if failures == 1 {
                    self.window_start = at;
                }
                self.failures = failures;
            }
            LockoutEvent::AccountLocked(AccountLocked { until, at, .. }) => {
                let recent = self
                    .locked_until
                    .is_some_and(|end| at.duration_since(end) < SignedDuration::from_hours(24));
                self.locks = if recent { self.locks + 1 } else { 1 };
                self.locked_until = Some(until);
                self.failures = 0;
            }
            LockoutEvent::AccountUnlocked(_) => *self = Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use cqrs_es::test::TestFramework;

    use super::*;

    type LockoutTest = TestFramework<Lockout>;

    fn user_id() -> UserId {
        UserId(uuid::Uuid::from_u128(7))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("in range")
    }

    fn failed(failures: u32, second: i64) -> LockoutEvent {
        LockoutEvent::LoginFailed(LoginFailed { user_id: user_id(), failures, at: at(second) })
    }

    fn locked(second: i64, seconds: i64) -> LockoutEvent {
        let until = at(second + seconds);
        LockoutEvent::AccountLocked(AccountLocked { user_id: user_id(), until, at: at(second) })
    }

    fn fail(second: i64) -> LockoutCommand {
        let policy = LockoutPolicy { failures: 3, ..LockoutPolicy::default() };
        LockoutCommand::RecordFailure { user_id: user_id(), policy, at: at(second) }
    }

    #[tokio::test]
    async fn failures_add_up_to_a_lock() {
        LockoutTest::with(())
            .given(vec![failed(1, 0), failed(2, 1)])
            .when_async(fail(2))
            .await
            .then_expect_events(vec![failed(3, 2), locked(2, 60)]);
    }

    #[tokio::test]
    async fn a_quiet_window_starts_the_count_again() {
        LockoutTest::with(())
            .given(vec![failed(1, 0), failed(2, 1)])
            .when_async(fail(901))
            .await
            .then_expect_events(vec![failed(1, 901)]);
    }

    #[tokio::test]
    async fn a_locked_account_writes_nothing() {
        LockoutTest::with(())
            .given(vec![failed(3, 0), locked(0, 60)])
            .when_async(fail(59))
            .await
            .then_expect_error(AccountIsLocked { until: at(60) });
    }

    #[tokio::test]
    async fn the_next_lock_lasts_twice_as_long() {
        LockoutTest::with(())
            .given(vec![failed(3, 0), locked(0, 60), failed(1, 61), failed(2, 62)])
            .when_async(fail(63))
            .await
            .then_expect_events(vec![failed(3, 63), locked(63, 120)]);
    }

    #[tokio::test]
    async fn an_admin_unlocks() {
        let command = LockoutCommand::Unlock { user_id: user_id(), at: at(5) };
        LockoutTest::with(())
            .given(vec![failed(3, 0), locked(0, 60)])
            .when_async(command)
            .await
            .then_expect_events(vec![LockoutEvent::AccountUnlocked(AccountUnlocked {
                user_id: user_id(),
                at: at(5),
            })]);
    }
}
