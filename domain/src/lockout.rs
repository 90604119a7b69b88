//! Failed logins of one account, and the limit on guesses, however many clients try at once.
//!
//! The outcome of a guess is revealed only after its failure is in the log (or, for a right password, after the session
//! is started under a guard on this stream). So the number of guesses that reveal anything is decided here, and not by
//! the number of hashes computed in parallel.
//!
//! Devices that have been in the account before are counted separately: a stranger who guesses, or who only wants to
//! lock the owner out, locks out strangers. The number of counted devices is bounded, and so is the number of guesses.

pub mod replay;

use std::collections::BTreeMap;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claims::Claiming;
use crate::event::{EventInfo as _, Stream, StreamId, events};
use crate::ids::{DeviceId, UserId};
use crate::time::after;

/// How many devices are counted separately. Any more count as strangers.
pub const MAX_DEVICES: usize = 16;

/// A device that has been quiet for so long is forgotten, and a lock of so long ago makes the next no longer.
const A_DAY: SignedDuration = SignedDuration::from_hours(24);

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

/// The commands of a lockout.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum LockoutCommand {
    /// Count a failed login.
    RecordFailure {
        user_id: UserId,
        /// The device, if it has been in the account before.
        device: Option<DeviceId>,
        policy: LockoutPolicy,
        at: Timestamp,
    },
    /// Forget failures and lock.
    Unlock { user_id: UserId, at: Timestamp },
    /// The same for a caller without full rights: only after a window without a failure. Otherwise the holder of such a
    /// key could guess without limit, with an unlock after each attempt.
    UnlockWithCare { user_id: UserId, policy: LockoutPolicy, at: Timestamp },
}

/// The account is locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins")]
pub struct AccountIsLocked {
    /// Until when.
    pub until: Timestamp,
}

/// A login failed because of its password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoginFailed {
    /// The account.
    pub user_id: UserId,
    /// The number of failures in this window, including this one: of this device, or of all strangers together.
    pub failures: u32,
    /// The device, if it is a known device of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// When it happened.
    pub at: Timestamp,
}

/// Too many logins failed: until `until`, strangers or one device are locked out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccountLocked {
    /// The account.
    pub user_id: UserId,
    /// The device that is locked out; absent if strangers are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// The end of the lock.
    pub until: Timestamp,
    /// When it happened.
    pub at: Timestamp,
}

/// The lockout and its failures were cleared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccountUnlocked {
    /// The account.
    pub user_id: UserId,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of a lockout.
    pub enum LockoutEvent of "lockout", whose |event| Some(event.user_id);
    LoginFailed: open,
    AccountLocked: open,
    AccountUnlocked: open,
}

impl Claiming for LockoutEvent {}

/// The failed logins of one account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lockout {
    /// Those of all clients that have not been in the account before.
    #[serde(flatten)]
    strangers: Guesses,
    /// Those of each device that has.
    #[serde(default)]
    devices: BTreeMap<DeviceId, Guesses>,
    /// When all of them were last forgotten.
    #[serde(default)]
    cleared_at: Option<Timestamp>,
    /// When any guess was last wrong.
    #[serde(default)]
    last_failure: Option<Timestamp>,
}

/// The failed logins that are counted together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Guesses {
    failures: u32,
    window_start: Timestamp,
    locked_until: Option<Timestamp>,
    locks: u32,
}

impl Guesses {
    /// A lock that ends later than any lock that begins now can was made while a clock was ahead. It is cut to the
    /// longest lock, which the next guess records.
    fn require_open(&self, at: Timestamp, policy: LockoutPolicy) -> Result<(), AccountIsLocked> {
        match self.locked_until {
            Some(until) if at < until => {
                let latest = after(at, SignedDuration::from_secs(policy.longest_lock.into()));
                Err(AccountIsLocked { until: until.min(latest) })
            }
            _ => Ok(()),
        }
    }

    fn failures_at(&self, at: Timestamp, policy: LockoutPolicy) -> u32 {
        let window = SignedDuration::from_secs(policy.window.into());
        // A window that begins in the future was started by a clock that was ahead.
        if self.failures > 0 && at.duration_since(self.window_start).abs() <= window {
            self.failures
        } else {
            0
        }
    }

    fn lock_duration(&self, at: Timestamp, policy: LockoutPolicy) -> SignedDuration {
        let doublings = if self.was_locked_lately(at) { self.locks.min(20) } else { 0 };
        let seconds = (u64::from(policy.first_lock) << doublings).min(policy.longest_lock.into());
        SignedDuration::from_secs(seconds.cast_signed())
    }

    fn was_locked_lately(&self, at: Timestamp) -> bool {
        self.locked_until.is_some_and(|end| at.duration_since(end).abs() < A_DAY)
    }

    /// Whether it affects the next guess.
    fn counts(&self, at: Timestamp) -> bool {
        let lately = |then: Timestamp| at.duration_since(then).abs() < A_DAY;
        lately(self.window_start) || self.locked_until.is_some_and(|end| at < end || lately(end))
    }

    fn fail(&mut self, failures: u32, at: Timestamp) {
        if failures == 1 {
            self.window_start = at;
        }
        self.failures = failures;
    }

    fn lock(&mut self, until: Timestamp, at: Timestamp) {
        self.locks = if self.was_locked_lately(at) { self.locks + 1 } else { 1 };
        self.locked_until = Some(until);
        self.failures = 0;
    }
}

impl Lockout {
    /// Refuses while this device is locked out, or, for an unknown device, while strangers are.
    ///
    /// # Errors
    ///
    /// Returns the time when the client may try again.
    pub fn require_open(
        &self,
        device: Option<DeviceId>,
        policy: LockoutPolicy,
        at: Timestamp,
    ) -> Result<(), AccountIsLocked> {
        match self.counted(device, at) {
            Some(device) => {
                self.devices.get(&device).map_or(Ok(()), |guesses| guesses.require_open(at, policy))
            }
            None => self.strangers.require_open(at, policy),
        }
    }

    /// When an admin or the owner last ended all locks.
    pub fn cleared_at(&self) -> Option<Timestamp> {
        self.cleared_at
    }

    /// How a device counts: as itself, or as a stranger if too many others are counted.
    fn counted(&self, device: Option<DeviceId>, at: Timestamp) -> Option<DeviceId> {
        let others = || self.devices.iter().filter(|(other, it)| Some(**other) != device && it.counts(at));
        device.filter(|device| self.devices.contains_key(device) || others().count() < MAX_DEVICES)
    }

    fn decide(&self, command: &LockoutCommand) -> Result<Vec<LockoutEvent>, AccountIsLocked> {
        match *command {
            LockoutCommand::RecordFailure { user_id, device, policy, at } => {
                let device_id = self.counted(device, at);
                let none = Guesses::default();
                let guesses = match device_id {
                    Some(device) => self.devices.get(&device).unwrap_or(&none),
                    None => &self.strangers,
                };
                let lock =
                    |until| LockoutEvent::AccountLocked(AccountLocked { user_id, device_id, until, at });
                match (guesses.require_open(at, policy), guesses.locked_until) {
                    (Err(AccountIsLocked { until }), Some(written)) if until < written => {
                        return Ok(vec![lock(until)]);
                    }
                    (Err(locked), _) => return Err(locked),
                    (Ok(()), _) => {}
                }
                let failures = guesses.failures_at(at, policy) + 1;
                let failed = LoginFailed { user_id, failures, device_id, at };
                let mut events = vec![LockoutEvent::LoginFailed(failed)];
                if failures >= policy.failures {
                    events.push(lock(after(at, guesses.lock_duration(at, policy))));
                }
                Ok(events)
            }
            LockoutCommand::Unlock { user_id, at } if self.is_anything_counted() => {
                Ok(vec![LockoutEvent::AccountUnlocked(AccountUnlocked { user_id, at })])
            }
            LockoutCommand::Unlock { .. } => Ok(vec![]),
            LockoutCommand::UnlockWithCare { user_id, policy, at } => {
                let mut all = self.devices.values().chain([&self.strangers]);
                if all.all(|guesses| guesses.require_open(at, policy).is_ok()) {
                    return Ok(vec![]);
                }
                let quiet_from = self.last_failure.unwrap_or_default();
                let until = after(quiet_from, SignedDuration::from_secs(policy.window.into()));
                // A failure in the future was recorded by a clock that was ahead: it must not count for longer than a
                // window.
                if quiet_from <= at && at < until {
                    return Err(AccountIsLocked { until });
                }
                Ok(vec![LockoutEvent::AccountUnlocked(AccountUnlocked { user_id, at })])
            }
        }
    }

    fn is_anything_counted(&self) -> bool {
        let Guesses { failures, locked_until, .. } = &self.strangers;
        *failures > 0 || locked_until.is_some() || !self.devices.is_empty()
    }

    fn guesses(&mut self, device: Option<DeviceId>, at: Timestamp) -> &mut Guesses {
        let Some(device) = device else { return &mut self.strangers };
        self.devices.retain(|other, guesses| *other == device || guesses.counts(at));
        self.devices.entry(device).or_default()
    }
}

impl StreamId {
    /// The stream of a user's failed logins.
    pub fn lockout(id: UserId) -> Self {
        Self::new(LockoutEvent::AGGREGATE, id)
    }
}

impl Stream for Lockout {
    /// Every login looks at it, and few have failed before.
    const IS_OFTEN_ABSENT: bool = true;

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
            LockoutEvent::LoginFailed(LoginFailed { failures, device_id, at, .. }) => {
                self.last_failure = Some(at);
                self.guesses(device_id, at).fail(failures, at);
            }
            LockoutEvent::AccountLocked(AccountLocked { device_id, until, at, .. }) => {
                self.guesses(device_id, at).lock(until, at);
            }
            LockoutEvent::AccountUnlocked(AccountUnlocked { at, .. }) => {
                *self = Self { cleared_at: Some(at), ..Self::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests;
