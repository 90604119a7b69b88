//! An access token that an admin creates for a user, for tests and support. It belongs to a session of its own.

use super::enter::MayNotEnter;
use super::start_session::{Lives, StartSession};
use crate::app::App;
use crate::draft::Draft;
use crate::session::{Session, SessionError};
use crate::user::User;

/// Starts such a session.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct MakeTestToken {
    /// The lifetime of the token and its session, in seconds.
    pub ttl: u32,
    /// Whether the caller is a full admin of the app.
    pub full_admin: bool,
    /// Whether the caller is a user and not an API key.
    pub by_user: bool,
    pub start: StartSession,
}

/// Why no token is created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTestToken {
    /// The app is disabled.
    #[error("the app is disabled")]
    AppDisabled,
    /// The person is banned.
    #[error("the user is banned")]
    Banned,
    /// Power would grow by a detour.
    #[error("only a full admin can create a token for an admin")]
    OfAdmin,
    /// A script in an admin's page must not obtain a token.
    #[error("in cookie mode only an API key can create a token")]
    CookieMode,
    /// There is no such app or user.
    #[error(transparent)]
    MayNotEnter(MayNotEnter),
    /// A session has this id.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl MakeTestToken {
    /// Decides it. The address need not be verified, because it is not the person who logs in.
    ///
    /// # Errors
    /// See [`NoTestToken`].
    pub fn decide(&self, app: &App, user: &User, session: &mut Draft<Session>) -> Result<(), NoTestToken> {
        let Self { ttl, full_admin, by_user, start } = self;
        Self::require_may_be_made(app, user, *full_admin, *by_user)?;
        let own = app.id.as_ref().zip(user.id).filter(|(app_id, _)| user.is_of(app_id));
        let (app_id, user_id) = own.ok_or(NoTestToken::MayNotEnter(MayNotEnter::NoSuchUser))?;
        let lives = Lives { ttl: *ttl, idle_ttl: *ttl };
        Ok(start.begin((app_id, user_id), user, lives, session)?)
    }

    /// Whether a token may be created, or returned again.
    ///
    /// # Errors
    /// See [`NoTestToken`].
    pub fn require_may_be_made(
        app: &App,
        user: &User,
        full_admin: bool,
        by_user: bool,
    ) -> Result<(), NoTestToken> {
        if app.disabled {
            return Err(NoTestToken::AppDisabled);
        }
        if user.banned {
            return Err(NoTestToken::Banned);
        }
        if app.is_admin(user) && !full_admin {
            return Err(NoTestToken::OfAdmin);
        }
        if app.settings.cookies && by_user {
            return Err(NoTestToken::CookieMode);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::start_session::tests::start;
    use super::super::testing::*;
    use super::*;
    use crate::app_id::AppId;
    use crate::session::LoginMethod;

    fn make(full_admin: bool, by_user: bool) -> MakeTestToken {
        MakeTestToken { ttl: 60, full_admin, by_user, start: start(LoginMethod::Admin) }
    }

    #[test]
    fn lasts_as_long_as_it_was_asked_for_and_needs_no_verified_address() {
        let strict = app_with(AppId::default_app(), |settings| settings.require_verified_email = true);
        let mut session = Draft::new();
        make(false, false).decide(&strict, &registered(), &mut session).expect("is made");
        assert_eq!((session.expires_at, session.idle_expires_at), (at(70), at(70)));
    }

    #[test]
    fn gives_nobody_more_power_than_they_have() {
        let cookies = app_with(AppId::default_app(), |settings| settings.cookies = true);
        for (app, user, (full_admin, by_user), why) in [
            (app(), user([admin()]), (false, false), NoTestToken::OfAdmin),
            (cookies, registered(), (true, true), NoTestToken::CookieMode),
            (disabled(), registered(), (true, false), NoTestToken::AppDisabled),
            (app(), user([banned()]), (true, false), NoTestToken::Banned),
            (another_app(), registered(), (true, false), NoTestToken::MayNotEnter(MayNotEnter::NoSuchUser)),
        ] {
            let mut session = Draft::new();
            assert_eq!(make(full_admin, by_user).decide(&app, &user, &mut session), Err(why));
            assert!(session.events().is_empty());
        }
        make(true, false).decide(&app(), &user([admin()]), &mut Draft::new()).expect("is made");
    }
}
