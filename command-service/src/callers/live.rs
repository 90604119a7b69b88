//! Callers whose session is live, and still is when a decision is made.

use dispatcher::{Handle, Reads, Work};
use domain::app::App;
use domain::decisions;
use domain::session::Session;
use domain::user::User;
use domain::{AppId, Timestamp};
use http_kit::auth::UserCaller;
use http_kit::problem::Problem;

use crate::api::refusals::not_live;

/// A caller whose session must be live when the decision is made, not only when the request arrived.
#[derive(Clone)]
pub(crate) struct LiveCaller {
    app_id: AppId,
    pub app: Handle<App>,
    pub user: Handle<User>,
    pub session: Handle<Session>,
}

impl LiveCaller {
    /// Reads what determines whether it is live.
    pub fn read(caller: &UserCaller, reads: &mut Reads) -> Self {
        Self {
            app_id: caller.app_id.clone(),
            app: reads.of(&caller.app_id),
            user: reads.of(&caller.user_id),
            session: reads.of(&caller.session_id),
        }
    }

    /// 401 if the session, user or app has ended meanwhile.
    pub fn require(&self, work: &Work, at: Timestamp) -> Result<(), Problem> {
        let Self { app_id, app, user, session } = self;
        let live = decisions::require_live(work.get(*app), work.get(*user), work.get(*session), app_id, at);
        live.map_err(|_| Problem::invalid_token())
    }
}

/// Refuses credentials whose session, user or app has ended.
pub(crate) fn require_live(
    app: &App,
    user: &User,
    session: &Session,
    app_id: &AppId,
    at: Timestamp,
) -> Result<(), Problem> {
    decisions::require_live(app, user, session, app_id, at).map_err(not_live)
}
