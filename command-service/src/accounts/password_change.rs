//! Changing the password with the old one.

use crate::sessions::login::too_many;
use dispatcher::Reads;
use domain::decisions::{ChangePassword, NotChanged};
use domain::lockout::LockoutPolicy;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatcher::{Committed, Context, Work};
use domain::lockout::Lockout;
use domain::password::{Password, PasswordHash};
use domain::session::RevocationReason;
use domain::user::{User, UserError, UserEvent};
use domain::{Event, Timestamp};
use http_kit::auth::UserCaller;
use http_kit::cookies::{Credentials, SetCookies};
use http_kit::extract::{AppScope, Body};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::problems;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::callers::known_client::device_of;
use crate::callers::live::LiveCaller;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(change))
}

/// The current password and the new one.
#[derive(Deserialize, ToSchema)]
#[schema(as = PasswordChangeRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordChange {
    /// The current password.
    #[schema(value_type = String, format = Password)]
    old_password: SecretString,
    /// The new password.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    new_password: SecretString,
}

/// Change your password.
///
/// All other sessions end. Wrong passwords count as failed logins of this device, so that a stolen session cannot be used
/// to guess the password.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/password/change", tag = "me", operation_id = "change_password",
    security(("user" = [])),
    params(("app_id" = String, Path, description = "The app")), request_body = PasswordChange,
    responses((status = 204, description = "The password was changed"),
        (status = 401, description = "`unauthenticated`, or `invalid_credentials` for a wrong password"),
        (status = 422, description = "`weak_password`, `idempotency_key_reused`"),
        (status = 429, description = "`rate_limited`: too many requests, or too many wrong passwords")))]
pub(crate) async fn change(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<Body<PasswordChange>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let Body { value: body, idempotency } = body?;
    let mut context = service.context(&request, &app_id, caller.actor(), idempotency);
    if let Some(done) = service.dispatcher.replayed::<(), Problem>(&mut context).await? {
        return service.changed(&caller, &done).await;
    }
    let min_length = caller.app.state.settings.password_min_length;
    let new = service.new_password(body.new_password.expose_secret(), min_length, "/new_password").await?;
    let old = Password::new(body.old_password.expose_secret());
    let checked = service.check_own_password(&caller, &old, &context).await?;
    let new = service.passwords.hash(&new).await?;

    let (user_id, session_id, at) = (caller.user_id, caller.session_id, context.at);
    let policy = service.settings.lockout;
    let mut reads = Reads::new();
    let live = LiveCaller::read(&caller, &mut reads);
    let lockout = reads.of::<Lockout>(&user_id);
    let change = ChangePassword { checked, new, session_id, policy, at };
    let decide = move |work: &mut Work| {
        live.require(work, at)?;
        let (lockout, user) = work.drafts((lockout, live.user));
        change.decide(lockout, user).map_err(|why| not_changed(why, policy, at))
    };
    let reason = RevocationReason::PasswordChanged;
    let done = service.run_ending_sessions(user_id, reason, context, reads, decide).await?;
    service.changed(&caller, &done).await
}

impl CommandService {
    /// The former device token ended with the other sessions, so a new one is issued.
    async fn changed(&self, caller: &UserCaller, done: &Committed<()>) -> Result<Response, Problem> {
        let user = self.repository.load::<User>(&caller.user_id).await?;
        let (device, at) = (device_of(caller.session_id), password_set_at(&done.events));
        let set =
            at.map(|at| self.with_device(SetCookies::default(), &caller.app.state, &user.state, device, at));
        Ok((set.unwrap_or_default(), Done::no_content(done.position)).into_response())
    }

    /// The hash of the caller's password, if it matches. A wrong one counts as a failed login: 401 `invalid_credentials`, or
    /// 429 after too many. Guard any decision that relies on a match with [`locked_out`].
    pub(crate) async fn check_own_password(
        &self,
        caller: &UserCaller,
        password: &Password,
        context: &Context,
    ) -> Result<PasswordHash, Problem> {
        let (user_id, device) = (caller.user_id, device_of(caller.session_id));
        let lockout = self.repository.load::<Lockout>(&user_id).await?;
        if lockout.state.require_open(Some(device), self.settings.lockout, context.at).is_err() {
            return Err(self.record_failure(user_id, Some(device), context.clone()).await);
        }
        let hash = caller.user.state.password_hash.as_ref();
        match (self.passwords.verify(password, hash).await?, hash) {
            (true, Some(hash)) => Ok(hash.clone()),
            _ => Err(self.record_failure(user_id, Some(device), context.clone()).await),
        }
    }
}

/// When these events set the password.
pub(crate) fn password_set_at(events: &[Event]) -> Option<Timestamp> {
    events.iter().find_map(|event| match event {
        Event::User(UserEvent::PasswordChanged(event)) => Some(event.at),
        Event::User(UserEvent::PasswordReset(event)) => Some(event.at),
        _ => None,
    })
}

/// The refusal for a correct password that came too late or was replaced meanwhile.
pub(crate) fn not_changed(why: NotChanged, policy: LockoutPolicy, at: Timestamp) -> Problem {
    match why {
        NotChanged::Locked(locked) => too_many(policy, &locked, at),
        NotChanged::User(UserError::OtherPassword) => Problem::new(problems::INVALID_CREDENTIALS),
        NotChanged::User(other) => Problem::internal(other),
    }
}
