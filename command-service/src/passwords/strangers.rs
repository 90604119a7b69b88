//! Failed logins of strangers as a node reports them: per address, whether or not it has an account.
//!
//! The log records the failures of accounts and decides whether a guess counts. But what a stranger *sees* must not depend on
//! it: a restarted node, or another one, knows only the lockouts of accounts, and would reveal which addresses have one. So a
//! stranger's 429 depends only on this node's memory. If a lockout is in the log but not in memory, every guess, correct or
//! not, is answered like a wrong one. What is forgotten, in a restart or an eviction, is forgotten for known and unknown
//! addresses alike.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::lockout::{AccountIsLocked, Lockout, LockoutCommand, LockoutPolicy};
use domain::{AppId, Draft, Loaded, Timestamp, UserId};
use quick_cache::sync::Cache;

/// How many addresses are remembered.
const REMEMBERED: usize = 100_000;

/// The remembered failures of all addresses.
pub(crate) struct Strangers(Cache<[u8; 32], Arc<Mutex<Remembered>>>);

#[derive(Default)]
struct Remembered {
    lockout: Lockout,
    /// The latest time at which locks were cleared.
    cleared_at: Option<Timestamp>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl Strangers {
    /// The failures of strangers at this address.
    pub fn at(&self, app_id: &AppId, name: &str) -> StrangersAt {
        // Hashed so that no address stays in memory, and long ones take no more space.
        let text = [app_id.as_str().as_bytes(), &[0], name.as_bytes()].concat();
        let mut key = [0; 32];
        key.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text).as_ref());
        let made = self.0.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Arc::default()));
        StrangersAt(made.unwrap_or_else(|never| match never {}))
    }
}

/// The remembered failures of one address.
#[derive(Clone)]
pub(crate) struct StrangersAt(Arc<Mutex<Remembered>>);

impl StrangersAt {
    /// Refuses while strangers are locked out.
    pub fn require_open(&self, policy: LockoutPolicy, at: Timestamp) -> Result<(), AccountIsLocked> {
        self.remembered().lockout.require_open(None, policy, at)
    }

    /// Forgets failures from before the account's owner or an admin cleared its locks.
    pub fn forget_before(&self, cleared_at: Option<Timestamp>) {
        let mut remembered = self.remembered();
        if cleared_at > remembered.cleared_at {
            *remembered = Remembered { lockout: Lockout::default(), cleared_at };
        }
    }

    /// Adds a failure, unless strangers are locked out.
    pub fn fail(&self, policy: LockoutPolicy, at: Timestamp) -> Result<(), AccountIsLocked> {
        let mut remembered = self.remembered();
        let user_id = UserId(uuid::Uuid::nil());
        let command = LockoutCommand::RecordFailure { user_id, device: None, policy, at };
        let mut lockout = Draft::of(Arc::new(Loaded { version: 0, state: remembered.lockout.clone() }));
        lockout.execute(command)?;
        remembered.lockout = lockout.clone();
        Ok(())
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
