//! Callers whose session lives, and still does when a decision is made.

use dispatcher::{Read, Work};
use domain::app::App;
use domain::session::{Session, SessionError};
use domain::user::User;
use domain::{AppId, SessionId, Timestamp, UserId};
use http_kit::auth::UserCaller;
use http_kit::problem::Problem;
use schemas::problems;

/// A caller whose session must still live when the decision is made, not only when the request came in.
#[derive(Clone)]
#[expect(clippy::struct_field_names, reason = "these are the names everywhere")]
pub(crate) struct LiveCaller {
    app_id: AppId,
    user_id: UserId,
    session_id: SessionId,
}

impl LiveCaller {
    pub fn of(caller: &UserCaller) -> Self {
        Self { app_id: caller.app_id.clone(), user_id: caller.user_id, session_id: caller.session_id }
    }

    /// 401 if session, user or app are over by now.
    pub fn require(&self, work: &Work, at: Timestamp) -> Result<(), Problem> {
        let app = work.get::<App>(&self.app_id);
        let user = work.get::<User>(&self.user_id);
        let session = work.get::<Session>(&self.session_id);
        require_live(app, user, session, &self.app_id, at).map_err(|_| Problem::unauthenticated())
    }
}

/// The streams that [`LiveCaller::require`] looks at.
pub(crate) fn live_reads(caller: &UserCaller) -> Vec<Read> {
    vec![
        Read::of::<App>(&caller.app_id),
        Read::of::<User>(&caller.user_id),
        Read::of::<Session>(&caller.session_id),
    ]
}

/// Refuses the credentials of a session that is over, or whose user or app is.
pub(crate) fn require_live(
    app: &App,
    user: &User,
    session: &Session,
    app_id: &AppId,
    at: Timestamp,
) -> Result<(), Problem> {
    let owner = session.require_live(at).map_err(session_problem)?;
    let active = app.is_active() && user.is_active() && user.is_of(app_id) && user.keeps(session);
    if active && owner.app_id == *app_id && user.id == Some(owner.user_id) {
        Ok(())
    } else {
        Err(Problem::new(problems::SESSION_REVOKED))
    }
}

/// What the holder of a refresh token is told.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(crate) fn session_problem(error: SessionError) -> Problem {
    Problem::new(match error {
        SessionError::Absent | SessionError::Exists => problems::INVALID_REFRESH_TOKEN,
        SessionError::Revoked => problems::SESSION_REVOKED,
        SessionError::Expired => problems::SESSION_EXPIRED,
    })
}
