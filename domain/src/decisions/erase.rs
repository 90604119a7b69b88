//! A person erases their own account.

use jiff::{SignedDuration, Timestamp};

use super::own_password::NotChanged;
use crate::draft::Draft;
use crate::ids::{DeviceId, SessionId};
use crate::lockout::{Lockout, LockoutPolicy};
use crate::password::PasswordHash;
use crate::session::{LoginMethod, Session};
use crate::user::{ErasureReason, User, UserCommand, UserError};

/// How long after its start a session counts as fresh: its holder has just shown who they are.
pub const REAUTHENTICATION: SignedDuration = SignedDuration::from_mins(10);

/// By how much the clocks of nodes may differ.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(1);

/// Erases the account of whoever asks. It cannot be undone, so a session that may have been stolen long after its start is
/// not enough.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct EraseOneself {
    /// The hash that the password was checked against, if one was given.
    pub checked: Option<PasswordHash>,
    /// The requesting session.
    pub session_id: SessionId,
    /// How many guesses it allows.
    pub policy: LockoutPolicy,
    pub at: Timestamp,
}

/// Why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotErased {
    /// There is no password, and the session is not fresh.
    #[error("the login is too long ago")]
    Stale,
    /// As a change of the password would be.
    #[error(transparent)]
    Password(#[from] NotChanged),
}

impl EraseOneself {
    /// Decides it. As for other uses of the password, the lockout comes first.
    ///
    /// # Errors
    /// See [`NotErased`].
    pub fn decide(
        &self,
        lockout: &Lockout,
        session: &Session,
        user: &mut Draft<User>,
    ) -> Result<(), NotErased> {
        let Self { checked, session_id, policy, at } = self;
        if let Some(checked) = checked {
            lockout.require_open(Some(DeviceId::of(*session_id)), *policy, *at).map_err(NotChanged::from)?;
            if user.password_hash.as_ref() != Some(checked) {
                return Err(NotChanged::from(UserError::OtherPassword).into());
            }
        } else if !is_fresh(session, *at) {
            return Err(NotErased::Stale);
        }
        let erase = UserCommand::Erase { reason: ErasureReason::Requested, at: *at };
        Ok(user.execute(erase).map_err(NotChanged::from)?)
    }
}

/// Whether the session began so recently that its holder need not show again who they are. One that an admin started shows
/// nothing about the person.
pub fn is_fresh(session: &Session, at: Timestamp) -> bool {
    let by_person = session.owner.as_ref().is_some_and(|owner| owner.method != LoginMethod::Admin);
    // A login in the future was on a node whose clock is ahead: how long ago it was is not known.
    let age = at.duration_since(session.started_at);
    by_person && (-CLOCKS_DIFFER..REAUTHENTICATION).contains(&age)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::claims::{ClaimChange, Claimed};
    use crate::lockout::{AccountLocked, LockoutEvent};
    use crate::session::{SessionEvent, SessionStarted};

    fn erase(checked: Option<&str>, second: i64) -> EraseOneself {
        EraseOneself {
            checked: checked.map(hash),
            session_id: SESSION,
            policy: LockoutPolicy::default(),
            at: at(second),
        }
    }

    #[test]
    fn needs_the_password_or_a_fresh_session() {
        for (checked, second) in [(Some("$argon2id$1"), 90_000), (None, 599)] {
            let mut user = registered();
            erase(checked, second).decide(&Draft::new(), &session(0), &mut user).expect("is erased");
            assert_eq!(user.decided(), ["UserErased"]);
            assert!(user.erased && !user.keeps(&session(0)));
            let address =
                Claimed::Email { app_id: app().id.clone().expect("it exists"), email: Some(email()) };
            assert!(user.claims().contains(&ClaimChange::Release(address)));
            assert!(user.claims().contains(&ClaimChange::Take(Claimed::Erased(USER))));
        }
        let mut user = registered();
        let refused = erase(None, -61).decide(&Draft::new(), &session(0), &mut registered());
        assert_eq!(refused, Err(NotErased::Stale), "its start is in the future");
        let refused = erase(None, 600).decide(&Draft::new(), &session(0), &mut user);
        assert_eq!(refused, Err(NotErased::Stale));
        let refused = erase(Some("$argon2id$0"), 1).decide(&Draft::new(), &session(0), &mut user);
        assert_eq!(refused, Err(NotErased::Password(NotChanged::User(UserError::OtherPassword))));
        assert!(user.events().is_empty());
    }

    #[test]
    fn a_session_that_an_admin_started_is_never_fresh() {
        let started = SessionEvent::SessionStarted(SessionStarted {
            session_id: SESSION,
            user_id: USER,
            app_id: app().id.clone().expect("it exists"),
            method: LoginMethod::Admin,
            epoch: 0,
            expires_at: at(1_000),
            idle_expires_at: at(100),
            at: at(0),
            personal: crate::personal::Personal::default(),
        });
        let refused = erase(None, 1).decide(&Draft::new(), &Draft::given([started]), &mut registered());
        assert_eq!(refused, Err(NotErased::Stale));
    }

    #[test]
    fn the_lock_of_the_device_comes_before_the_password() {
        let locked = Draft::<Lockout>::given([LockoutEvent::AccountLocked(AccountLocked {
            user_id: USER,
            device_id: Some(DeviceId::of(SESSION)),
            until: at(1_000),
            at: at(0),
        })]);
        let refused = erase(Some("$argon2id$1"), 10).decide(&locked, &session(0), &mut registered());
        assert!(matches!(refused, Err(NotErased::Password(NotChanged::Locked(_)))), "{refused:?}");
    }

    #[test]
    fn nobody_is_erased_twice() {
        let refused = erase(None, 1).decide(&Draft::new(), &session(0), &mut user([erased()]));
        assert_eq!(refused, Err(NotErased::Password(NotChanged::User(UserError::Absent))));
    }
}
