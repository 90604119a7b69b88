//! Login with a verified password.

use super::enter::{MayNotEnter, may_enter};
use super::start_session::{NotStarted, StartSession};
use crate::app::App;
use crate::app_id::AppId;
use crate::draft::Draft;
use crate::ids::DeviceId;
use crate::lockout::{Lockout, LockoutPolicy};
use crate::password::PasswordHash;
use crate::session::{Session, SessionError};
use crate::user::{User, UserCommand, UserError};

/// Starts a session after the password matched.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct LogIn {
    /// Into which app.
    pub app_id: AppId,
    /// The requesting device, if it has been in the account before.
    pub device: Option<DeviceId>,
    /// How many guesses an account allows.
    pub policy: LockoutPolicy,
    /// The hash that the password was checked against.
    pub checked: PasswordHash,
    /// A stronger hash of the same password, if one is due.
    pub rehashed: Option<PasswordHash>,
    pub start: StartSession,
}

/// Why the person is not logged in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLoggedIn {
    /// Too many logins have failed.
    #[error("too many logins have failed")]
    Locked,
    /// The checked hash is no longer the account's.
    #[error("the password was changed meanwhile")]
    HashChanged,
    /// The app does not let the person in.
    #[error(transparent)]
    MayNotEnter(#[from] MayNotEnter),
    /// The account refused.
    #[error(transparent)]
    User(#[from] UserError),
    /// The session refused.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<NotStarted> for NotLoggedIn {
    fn from(error: NotStarted) -> Self {
        match error {
            NotStarted::MayNotEnter(why) => Self::MayNotEnter(why),
            NotStarted::Session(error) => Self::Session(error),
        }
    }
}

impl LogIn {
    /// Decides it. The lockout comes first: a correct guess that came too late must be indistinguishable from a wrong
    /// one.
    ///
    /// # Errors
    /// See [`NotLoggedIn`].
    pub fn decide(
        &self,
        app: &App,
        lockout: &Lockout,
        user: &mut Draft<User>,
        session: &mut Draft<Session>,
    ) -> Result<(), NotLoggedIn> {
        let Self { app_id, device, policy, checked, rehashed, start } = self;
        lockout.require_open(*device, *policy, start.at).map_err(|_| NotLoggedIn::Locked)?;
        if !user.is_of(app_id) || user.password_hash.as_ref() != Some(checked) {
            return Err(NotLoggedIn::HashChanged);
        }
        may_enter(app, user)?;
        if let Some(new) = rehashed.clone() {
            user.execute(UserCommand::Rehash { old: checked.clone(), new, at: start.at })?;
        }
        Ok(start.decide(app, user, session)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::start_session::tests::start;
    use super::super::testing::*;
    use super::*;
    use crate::session::LoginMethod;

    fn log_in() -> LogIn {
        LogIn {
            app_id: AppId::default_app(),
            device: None,
            policy: LockoutPolicy::default(),
            checked: hash("$argon2id$1"),
            rehashed: None,
            start: start(LoginMethod::Password),
        }
    }

    #[test]
    fn begins_a_session_and_keeps_a_stronger_hash() {
        let (mut user, mut session) = (registered(), Draft::new());
        let log_in = LogIn { rehashed: Some(hash("$argon2id$2")), ..log_in() };
        log_in.decide(&app(), &Draft::new(), &mut user, &mut session).expect("is in");
        assert_eq!((user.decided(), session.decided()), (vec!["PasswordRehashed"], vec!["SessionStarted"]));
    }

    #[test]
    fn a_stranger_is_locked_out_and_a_known_device_is_not() {
        let (mut user, mut session) = (registered(), Draft::new());
        let refused = log_in().decide(&app(), &locked(), &mut user, &mut session);
        assert_eq!(refused, Err(NotLoggedIn::Locked));
        let known = LogIn { device: Some(DEVICE), ..log_in() };
        known.decide(&app(), &locked(), &mut user, &mut session).expect("is in");
    }

    /// Only a guess that counts may reveal that it is the correct password of a banned user.
    #[test]
    fn the_lock_comes_before_everything_and_the_password_before_the_rest() {
        let mut session = Draft::new();
        let mut banned = user([banned()]);
        let by = |checked: &str| LogIn { checked: hash(checked), ..log_in() };
        assert_eq!(
            by("$argon2id$1").decide(&app(), &locked(), &mut banned, &mut session),
            Err(NotLoggedIn::Locked)
        );
        assert_eq!(
            by("$argon2id$0").decide(&app(), &Draft::new(), &mut banned, &mut session),
            Err(NotLoggedIn::HashChanged)
        );
        assert_eq!(
            by("$argon2id$1").decide(&app(), &Draft::new(), &mut banned, &mut session),
            Err(NotLoggedIn::MayNotEnter(MayNotEnter::Banned))
        );
        assert!(session.events().is_empty());
    }
}
