//! What a logged-in user may do after confirming their password.

use jiff::Timestamp;

use crate::app::App;
use crate::draft::Draft;
use crate::email::Email;
use crate::ids::{DeviceId, SessionId};
use crate::lockout::{AccountIsLocked, Lockout, LockoutPolicy};
use crate::password::PasswordHash;
use crate::settings::SentBy;
use crate::user::{Client, MailboxCommand, User, UserError};

/// Why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// Too many wrong passwords came from this device.
    #[error(transparent)]
    Locked(#[from] AccountIsLocked),
    /// The user refused.
    #[error(transparent)]
    User(#[from] UserError),
}

/// Changes the password. All sessions but the requesting one end.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct ChangePassword {
    /// The hash that the old password was checked against.
    pub checked: PasswordHash,
    /// The hash of the new one.
    pub new: PasswordHash,
    /// The requesting session.
    pub session_id: SessionId,
    /// How many guesses it allows.
    pub policy: LockoutPolicy,
    pub at: Timestamp,
}

impl ChangePassword {
    /// Decides it. The lockout comes first: a correct guess that came too late must be indistinguishable from a wrong
    /// one.
    ///
    /// # Errors
    /// See [`NotChanged`].
    pub fn decide(&self, lockout: &Lockout, user: &mut Draft<User>) -> Result<(), NotChanged> {
        let Self { checked, new, session_id, policy, at } = self.clone();
        lockout.require_open(Some(DeviceId::of(session_id)), policy, at)?;
        Ok(user.execute(MailboxCommand::ChangePassword { checked, new, session_id, at }.into())?)
    }
}

/// Requests a change of address.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct RequestEmailChange {
    /// The new address.
    pub new_email: Email,
    /// The hash that the password was checked against.
    pub checked: PasswordHash,
    /// The requesting session.
    pub session_id: SessionId,
    /// How many guesses it allows.
    pub policy: LockoutPolicy,
    pub client: Client,
    pub at: Timestamp,
}

impl RequestEmailChange {
    /// Decides it. As in [`ChangePassword`], the lockout comes first.
    ///
    /// # Errors
    /// See [`NotChanged`].
    pub fn decide(&self, app: &App, lockout: &Lockout, user: &mut Draft<User>) -> Result<(), NotChanged> {
        let Self { new_email, checked, session_id, policy, client, at } = self.clone();
        lockout.require_open(Some(DeviceId::of(session_id)), policy, at)?;
        let (delivery, ttl) = (SentBy::Platform, app.settings.email_verification_ttl);
        let request =
            MailboxCommand::RequestEmailChange { new_email, checked, session_id, delivery, ttl, client, at };
        Ok(user.execute(request.into())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::lockout::{AccountLocked, LockoutEvent};

    fn change(checked: &str) -> ChangePassword {
        ChangePassword {
            checked: hash(checked),
            new: hash("$argon2id$2"),
            session_id: SESSION,
            policy: LockoutPolicy::default(),
            at: at(10),
        }
    }

    #[test]
    fn keeps_the_session_that_asks_and_ends_the_others() {
        let mut user = registered();
        change("$argon2id$1").decide(&Draft::new(), &mut user).expect("is changed");
        assert_eq!(user.decided(), ["PasswordChanged"]);
        assert!(user.keeps(&session(0)));
    }

    #[test]
    fn the_lock_of_the_device_comes_before_the_password() {
        let locked = Draft::<Lockout>::given([LockoutEvent::AccountLocked(AccountLocked {
            user_id: USER,
            device_id: Some(DeviceId::of(SESSION)),
            until: at(1_000),
            at: at(0),
        })]);
        let mut user = registered();
        for checked in ["$argon2id$1", "$argon2id$0"] {
            let refused = change(checked).decide(&locked, &mut user);
            assert!(matches!(refused, Err(NotChanged::Locked(_))), "{refused:?}");
        }
        let refused = change("$argon2id$0").decide(&Draft::new(), &mut user);
        assert_eq!(refused, Err(NotChanged::User(UserError::OtherPassword)));
        let request = RequestEmailChange {
            new_email: Email::parse("new@example.com").expect("valid"),
            checked: hash("$argon2id$1"),
            session_id: SESSION,
            policy: LockoutPolicy::default(),
            client: Client::default(),
            at: at(10),
        };
        assert!(matches!(request.decide(&app(), &locked, &mut user), Err(NotChanged::Locked(_))));
        assert!(user.events().is_empty());
        request.decide(&app(), &Draft::new(), &mut user).expect("is asked for");
        assert_eq!(user.decided(), ["EmailChangeRequested"]);
    }
}
