//! The next tokens of a session, for a refresh token.

use jiff::Timestamp;

use super::live::{NotLive, require_live};
use crate::app::App;
use crate::app_id::AppId;
use crate::draft::Draft;
use crate::session::{Session, SessionCommand, SessionError};
use crate::user::{Client, User};

/// Uses a refresh token.
#[derive(Clone, Debug)]
pub struct RefreshSession {
    /// In which app.
    pub app_id: AppId,
    /// The generation in the token.
    pub generation: u32,
    /// Where from.
    pub client: Client,
    /// The time.
    pub at: Timestamp,
    /// The latest time that events show ([`SessionCommand::Start`]).
    pub latest: Timestamp,
}

/// What became of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It continues with its newest token.
    Continued,
    /// The token was used before, so the session was ended. Anybody may hold such a token.
    EndedByReuse,
}

/// Why there are no next tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRefreshed {
    /// The session, its user or its app is not active.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// The session refused.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl RefreshSession {
    /// Decides it.
    ///
    /// # Errors
    /// See [`NotRefreshed`].
    pub fn decide(
        &self,
        app: &App,
        user: &User,
        session: &mut Draft<Session>,
    ) -> Result<Refreshed, NotRefreshed> {
        let Self { app_id, generation, client, at, latest } = self;
        require_live(app, user, session, app_id, *at)?;
        session.execute(SessionCommand::Refresh {
            generation: *generation,
            grace: app.settings.refresh_grace,
            idle_ttl: app.settings.refresh_idle_ttl,
            client: client.clone(),
            at: *at,
            latest: *latest,
        })?;
        Ok(if session.revoked { Refreshed::EndedByReuse } else { Refreshed::Continued })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::session::{SessionEvent, SessionRefreshed};

    fn refresh(generation: u32, second: i64) -> RefreshSession {
        let (app_id, at) = (AppId::default_app(), at(second));
        RefreshSession { app_id, generation, client: Client::default(), at, latest: at }
    }

    /// A session whose first token was used at this second.
    fn used(second: i64) -> Draft<Session> {
        let started = session(0);
        let refreshed = SessionRefreshed {
            session_id: SESSION,
            user_id: USER,
            generation: started.generation + 1,
            idle_expires_at: at(second + 100),
            at: at(second),
            personal: crate::personal::Personal::default(),
        };
        session_with(0, [SessionEvent::SessionRefreshed(refreshed)])
    }

    #[test]
    fn gives_the_next_token_once_and_the_same_again_within_the_grace() {
        let app = app_with(AppId::default_app(), |settings| {
            (settings.refresh_grace, settings.refresh_idle_ttl) = (10, 50);
        });
        let mut session = session(0);
        let first = session.generation;
        let refreshed = refresh(first, 10).decide(&app, &registered(), &mut session);
        assert_eq!(refreshed, Ok(Refreshed::Continued));
        assert_eq!(session.decided(), ["SessionRefreshed"]);
        assert_eq!((session.generation, session.idle_expires_at), (first + 1, at(60)));

        let mut session = used(10);
        assert_eq!(refresh(first, 15).decide(&app, &registered(), &mut session), Ok(Refreshed::Continued));
        assert_eq!(session.decided(), [""; 0]);
    }

    #[test]
    fn ends_a_session_whose_token_is_used_again_after_the_grace() {
        let app = app_with(AppId::default_app(), |settings| settings.refresh_grace = 10);
        let mut session = used(10);
        let first = session.generation - 1;
        let reused = refresh(first, 30).decide(&app, &registered(), &mut session);
        assert_eq!(reused, Ok(Refreshed::EndedByReuse));
        assert_eq!(session.decided(), ["RefreshTokenReused", "SessionRevoked"]);
    }

    #[test]
    fn needs_an_active_session_user_and_app() {
        let over = NotRefreshed::NotLive(NotLive::Over);
        let expired = NotRefreshed::NotLive(NotLive::Session(SessionError::Expired));
        for (app, user, mut session, second, why) in [
            (app(), registered(), session(0), 100, expired),
            (app(), user([banned()]), session(0), 10, over.clone()),
            (app(), user([erased()]), session(0), 10, over.clone()),
            (app(), registered(), session(1), 10, over.clone()),
            (disabled(), registered(), session(0), 10, over.clone()),
            (Draft::new(), registered(), session(0), 10, over),
        ] {
            let generation = session.generation;
            assert_eq!(refresh(generation, second).decide(&app, &user, &mut session), Err(why));
            assert!(session.events().is_empty());
        }
        let elsewhere = RefreshSession { app_id: another_app().id.clone().expect("an id"), ..refresh(0, 10) };
        let refused = elsewhere.decide(&another_app(), &registered(), &mut session(0));
        assert_eq!(refused, Err(NotRefreshed::NotLive(NotLive::Over)));
    }

    #[test]
    fn a_token_that_was_never_made_changes_nothing() {
        let mut session = session(0);
        let later = session.generation + 1;
        let refused = refresh(later, 10).decide(&app(), &registered(), &mut session);
        assert_eq!(refused, Err(NotRefreshed::Session(SessionError::Absent)));
        assert!(session.events().is_empty());
    }
}
