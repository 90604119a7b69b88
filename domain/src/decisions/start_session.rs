//! Starting a session: the same for every login method.

use jiff::Timestamp;

use super::enter::{MayNotEnter, may_enter};
use crate::app::App;
use crate::app_id::AppId;
use crate::draft::Draft;
use crate::ids::{SessionId, UserId};
use crate::session::{LoginMethod, Session, SessionCommand, SessionError};
use crate::user::{Client, User};

/// Starts a session for a person who has presented the credentials of the login method.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct StartSession {
    /// The new session.
    pub session_id: SessionId,
    /// The login method.
    pub method: LoginMethod,
    pub client: Client,
    pub at: Timestamp,
    /// The latest time that events show ([`SessionCommand::Start`]).
    pub latest: Timestamp,
}

/// Why no session starts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// The app does not let the person in.
    #[error(transparent)]
    MayNotEnter(#[from] MayNotEnter),
    /// A session has this id.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// How long a session lasts, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lives {
    /// The maximum lifetime, however often it is refreshed.
    pub ttl: u32,
    /// The lifetime without a refresh.
    pub idle_ttl: u32,
}

impl StartSession {
    /// Decides it: the app is active and lets this person in.
    ///
    /// # Errors
    /// See [`NotStarted`].
    pub fn decide(&self, app: &App, user: &User, session: &mut Draft<Session>) -> Result<(), NotStarted> {
        let (app_id, user_id) = may_enter(app, user)?;
        let settings = &app.settings;
        let lives = Lives { ttl: settings.refresh_token_ttl, idle_ttl: settings.refresh_idle_ttl };
        Ok(self.begin((app_id, user_id), user, lives, session)?)
    }

    /// Starts it for a person who may enter.
    pub(super) fn begin(
        &self,
        (app_id, user_id): (&AppId, UserId),
        user: &User,
        Lives { ttl, idle_ttl }: Lives,
        session: &mut Draft<Session>,
    ) -> Result<(), SessionError> {
        session.execute(SessionCommand::Start {
            session_id: self.session_id,
            user_id,
            app_id: app_id.clone(),
            method: self.method,
            epoch: user.epoch,
            ttl,
            idle_ttl,
            client: self.client.clone(),
            at: self.at,
            latest: self.latest,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::enter::AppClosed;
    use super::super::testing::*;
    use super::*;
    use crate::claims::{ClaimChange, Claimed};

    pub(in super::super) fn start(method: LoginMethod) -> StartSession {
        StartSession { session_id: SESSION, method, client: Client::default(), at: at(10), latest: at(10) }
    }

    #[test]
    fn begins_for_whom_the_app_lets_in_and_takes_a_place_in_their_list() {
        let mut session = Draft::new();
        start(LoginMethod::Password).decide(&app(), &registered(), &mut session).expect("begins");
        assert_eq!(session.decided(), ["SessionStarted"]);
        let place = Claimed::Session { user_id: USER, session_id: SESSION };
        assert!(matches!(session.claims(), [ClaimChange::TakeUntil(taken, _)] if *taken == place));
        assert_eq!(session.owner.as_ref().map(|owner| owner.user_id), Some(USER));
        // A session of an earlier epoch would end at once.
        assert!(registered().keeps(&session));
    }

    #[test]
    fn is_of_the_present_epoch() {
        let unbanned = UserEvent::UserUnbanned(crate::user::UserUnbanned { user_id: USER, at: at(2) });
        let user = user([banned(), unbanned]);
        let mut session = Draft::new();
        start(LoginMethod::MagicLink).decide(&app(), &user, &mut session).expect("begins");
        assert_eq!((user.epoch, session.epoch), (1, 1));
    }

    #[test]
    fn begins_for_nobody_else() {
        for (app, user, why) in [
            (app(), user([banned()]), MayNotEnter::Banned),
            (disabled(), registered(), MayNotEnter::App(AppClosed::Disabled)),
            (Draft::new(), registered(), MayNotEnter::App(AppClosed::Absent)),
            (app(), Draft::new(), MayNotEnter::NoSuchUser),
        ] {
            let mut session = Draft::new();
            let refused = start(LoginMethod::Password).decide(&app, &user, &mut session);
            assert_eq!(refused, Err(NotStarted::MayNotEnter(why)));
            assert!(session.events().is_empty() && session.claims().is_empty());
        }
    }

    #[test]
    fn begins_once() {
        let refused = start(LoginMethod::Password).decide(&app(), &registered(), &mut session(0));
        assert_eq!(refused, Err(NotStarted::Session(SessionError::Exists)));
    }

    use crate::user::UserEvent;
}
