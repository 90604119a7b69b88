//! Whether a session's credentials are still valid.

use jiff::Timestamp;

use crate::app::App;
use crate::app_id::AppId;
use crate::session::{Session, SessionError};
use crate::user::User;

/// Why they are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLive {
    /// The session itself has ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Its user or its app has ended it, or it belongs to another one.
    #[error("the session has ended")]
    Over,
}

/// Refuses the credentials of a session that has ended, or whose user or app has.
///
/// # Errors
/// See [`NotLive`].
pub fn require_live(
    app: &App,
    user: &User,
    session: &Session,
    app_id: &AppId,
    at: Timestamp,
) -> Result<(), NotLive> {
    let owner = session.require_live(at)?;
    let active = app.is_active()
        && app.id.as_ref() == Some(app_id)
        && user.is_active()
        && user.is_of(app_id)
        && user.keeps(session);
    if active && owner.app_id == *app_id && user.id == Some(owner.user_id) {
        Ok(())
    } else {
        Err(NotLive::Over)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn session_user_and_app_must_all_go_on() {
        let app_id = AppId::default_app();
        let live = |app: &App, user: &User, session: &Session, second| {
            require_live(app, user, session, &app_id, at(second))
        };
        assert_eq!(live(&app(), &registered(), &session(0), 10), Ok(()));
        assert_eq!(
            live(&app(), &registered(), &session(0), 100),
            Err(NotLive::Session(SessionError::Expired))
        );
        let none = Draft::<Session>::new();
        assert_eq!(live(&app(), &registered(), &none, 10), Err(NotLive::Session(SessionError::Absent)));
        assert_eq!(live(&app(), &user([banned()]), &session(0), 10), Err(NotLive::Over));
        assert_eq!(live(&app(), &registered(), &session(1), 10), Err(NotLive::Over));
        assert_eq!(live(&disabled(), &registered(), &session(0), 10), Err(NotLive::Over));
        assert_eq!(live(&another_app(), &registered(), &session(0), 10), Err(NotLive::Over));
        let other = AppId::parse("other").expect("valid");
        let elsewhere = app_with(other.clone(), |_| {});
        let refused = require_live(&elsewhere, &registered(), &session(0), &other, at(10));
        assert_eq!(refused, Err(NotLive::Over));
    }
}
