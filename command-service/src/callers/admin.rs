//! Decisions of admins, made only while the admin is still entitled.
//!
//! A caller is checked when the request arrives, but hashing a password or waiting in a queue takes time: the role or the
//! key may be gone by then. So the caller's entitlement is read again with each decision and guarded by its append.

use dispatcher::{Committed, Context, DispatchError, Handle, Reads, Work};
use domain::app::App;
use domain::decisions::MayActOn;
use domain::decisions::admin::{require_admin, require_key};
use domain::user::User;
use domain::{ApiKeyId, AppId, Timestamp};
use http_kit::auth::{AdminCaller, Caller};
use http_kit::problem::Problem;

use crate::CommandService;
use crate::api::refusals::{may_not_act, not_entitled};
use crate::callers::live::LiveCaller;

impl CommandService {
    /// Runs a decision of an admin. 401 or 403 if the admin is no longer entitled when it is made.
    pub(crate) async fn run_as<T: Send + 'static>(
        &self,
        caller: &AdminCaller,
        context: Context,
        mut reads: Reads,
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, DispatchError<Problem>> {
        let (entitled, at) = (Entitled::read(caller, &mut reads), context.at);
        let decide = move |work: &mut Work| {
            entitled.require(work, at)?;
            decide(work)
        };
        self.dispatcher.run(context, reads, decide).await
    }
}

/// The source of a caller's entitlement.
enum Entitled {
    /// The admin role, in a live session.
    Admin(AppId, LiveCaller),
    /// A key of an app.
    Key(ApiKeyId, Handle<App>),
}

impl Entitled {
    fn read(caller: &AdminCaller, reads: &mut Reads) -> Self {
        match &caller.caller {
            Caller::User(user) => Self::Admin(user.app_id.clone(), LiveCaller::read(user, reads)),
            Caller::ApiKey { key_id, app_id } => Self::Key(*key_id, reads.of(app_id)),
        }
    }

    fn require(&self, work: &Work, at: Timestamp) -> Result<(), Problem> {
        let entitled = match self {
            Self::Admin(app_id, LiveCaller { app, user, session, .. }) => {
                require_admin(work.get(*app), work.get(*user), work.get(*session), app_id, at)
            }
            Self::Key(key_id, app) => require_key(work.get(*app), *key_id, at).map(drop),
        };
        entitled.map_err(not_entitled)
    }
}

/// 404 unless the user belongs to the app; 403 if they are an admin and the caller is not a full admin.
pub(crate) fn require_may_act_on(
    caller: &AdminCaller,
    app: &App,
    user: &User,
    app_id: &AppId,
) -> Result<(), Problem> {
    let may = MayActOn { app_id: app_id.clone(), full_admin: caller.full_admin };
    may.decide(app, user).map_err(may_not_act)
}

/// The caller's own key, if it is one.
#[derive(Clone, Copy)]
pub(crate) struct OwnKey(Option<(ApiKeyId, Handle<App>)>);

impl OwnKey {
    pub fn read(caller: &AdminCaller, reads: &mut Reads) -> Self {
        match &caller.caller {
            Caller::User(_) => Self(None),
            Caller::ApiKey { key_id, app_id } => Self(Some((*key_id, reads.of(app_id)))),
        }
    }

    /// When it expires, if ever.
    pub fn end(self, work: &Work) -> Option<Timestamp> {
        let (key_id, app) = self.0?;
        work.get(app).api_keys.get(&key_id)?.expires_at
    }
}
