//! Decisions of admins, made only while they are still entitled to them.
//!
//! A caller is checked when the request comes in, and hashing a password or waiting for a turn takes a while: by then the
//! role or the key may be gone. So what entitles the caller is read again with each decision, and guarded by its append.

use dispatcher::{Committed, Context, DispatchError, Read, Work};
use domain::app::App;
use domain::user::User;
use domain::{AppId, Timestamp, UserId};
use http_kit::auth::{AdminCaller, Caller};
use http_kit::problem::Problem;
use schemas::problems;

use crate::CommandService;
use crate::callers::live::{LiveCaller, live_reads};

impl CommandService {
    /// Runs a decision of an admin. 401 or 403 if they are none any more when it is made.
    pub(crate) async fn run_as<T: Send + 'static>(
        &self,
        caller: &AdminCaller,
        context: Context,
        mut reads: Vec<Read>,
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, DispatchError<Problem>> {
        let (caller, at) = (caller.clone(), context.at);
        match &caller.caller {
            Caller::User(user) => reads.extend(live_reads(user)),
            Caller::ApiKey { app_id, .. } => reads.push(Read::of::<App>(app_id)),
        }
        let decide = move |work: &mut Work| {
            require_entitled(&caller, work, at)?;
            decide(work)
        };
        self.dispatcher.run(context, reads, decide).await
    }
}

/// 404 unless the user is one of the app; 403 if they are an admin and the caller may not do everything in the app. Power
/// would grow by a detour, if a key could let an admin in, put one out, or become what an admin trusts.
pub(crate) fn require_may_act_on(caller: &AdminCaller, user: &User, app_id: &AppId) -> Result<(), Problem> {
    if !user.is_of(app_id) {
        return Err(Problem::not_found());
    }
    if user.is_admin() && !caller.full_admin {
        return Err(Problem::forbidden().detail("only a full admin acts on a user with the role admin"));
    }
    Ok(())
}

/// [`require_may_act_on`] as a decision sees the user.
pub(crate) fn require_target(
    work: &Work,
    caller: &AdminCaller,
    user_id: UserId,
    app_id: &AppId,
) -> Result<(), Problem> {
    require_may_act_on(caller, work.get::<User>(&user_id), app_id)
}

/// When the caller's own key ends, if it is a key and does.
pub(crate) fn end_of_own_key(caller: &AdminCaller, work: &Work) -> Option<Timestamp> {
    match &caller.caller {
        Caller::User(_) => None,
        Caller::ApiKey { key_id, app_id } => work.get::<App>(app_id).api_keys.get(key_id)?.expires_at,
    }
}

fn require_entitled(caller: &AdminCaller, work: &Work, at: Timestamp) -> Result<(), Problem> {
    match &caller.caller {
        Caller::User(user) => {
            LiveCaller::of(user).require(work, at)?;
            if work.get::<User>(&user.user_id).is_admin() { Ok(()) } else { Err(Problem::forbidden()) }
        }
        // What a key may do never changes: it is live, or it is not.
        Caller::ApiKey { key_id, app_id } => {
            let app = work.get::<App>(app_id);
            if !app.api_keys.get(key_id).is_some_and(|key| key.is_live(at)) {
                return Err(Problem::unauthenticated());
            }
            if app.disabled { Err(Problem::new(problems::APP_DISABLED)) } else { Ok(()) }
        }
    }
}
