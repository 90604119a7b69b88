//! The failed logins of strangers as a node tells them: by address, whether or not anybody has it.
//!
//! The log has those of accounts, and decides whether a guess counts; but what a stranger is *told* must not depend on it, or
//! else a restart or another node, which know the locks of accounts and of nothing else, would tell which address is one. So a
//! stranger hears 429 by what this node remembers alone. Where it remembers nothing of a lock that is in the log, a guess is
//! answered like a wrong one, be it right or not. What is forgotten, at a restart or because there is too much of it, is
//! forgotten for known and unknown addresses alike.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::lockout::{AccountIsLocked, Lockout, LockoutCommand, LockoutPolicy};
use domain::{AppId, Draft, Loaded, Timestamp, UserId};
use quick_cache::sync::Cache;

/// How many addresses are remembered.
const REMEMBERED: usize = 100_000;

/// What is remembered of all addresses.
pub(crate) struct Strangers(Cache<[u8; 32], Arc<Mutex<Remembered>>>);

#[derive(Default)]
struct Remembered {
    lockout: Lockout,
    /// The last end of all locks that it took note of.
    cleared_at: Option<Timestamp>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl Strangers {
    /// Those who guess at this address.
    pub fn at(&self, app_id: &AppId, name: &str) -> StrangersAt {
        // Hashed so that no address stays in memory, and so that a long one takes no more room.
        let text = [app_id.as_str().as_bytes(), &[0], name.as_bytes()].concat();
        let mut key = [0; 32];
        key.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text).as_ref());
        let made = self.0.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Arc::default()));
        StrangersAt(made.unwrap_or_else(|never| match never {}))
    }
}

/// What is remembered of one address.
#[derive(Clone)]
pub(crate) struct StrangersAt(Arc<Mutex<Remembered>>);

impl StrangersAt {
    /// Refuses while they are locked out.
    pub fn require_open(&self, policy: LockoutPolicy, at: Timestamp) -> Result<(), AccountIsLocked> {
        self.remembered().lockout.require_open(None, policy, at)
    }

    /// Forgets what was before the account's owner or an admin ended its locks.
    pub fn forget_before(&self, cleared_at: Option<Timestamp>) {
        let mut remembered = self.remembered();
        if cleared_at > remembered.cleared_at {
            *remembered = Remembered { lockout: Lockout::default(), cleared_at };
        }
    }

    /// Adds a failure, unless they are locked out.
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
