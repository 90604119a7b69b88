//! Erasure of the caller's own account.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatcher::{Reads, Work};
use domain::decisions::{EraseOneself, NotErased};
use domain::lockout::Lockout;
use domain::password::Password;
use domain::session::RevocationReason;
use http_kit::cookies::{Credentials, SetCookies};
use http_kit::extract::{AppScope, OptionalBody};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::problems;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::password_change::not_changed;
use crate::CommandService;
use crate::callers::live::LiveCaller;
use crate::erase::Erased;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(erase))
}

/// Shows that the person is there, and not only somebody with their token.
#[derive(Deserialize, ToSchema)]
#[schema(as = ErasureRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reauthentication {
    /// The account's password. Without it, the login must be at most ten minutes ago.
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
}

/// Erase your own account.
///
/// The key of your data is destroyed, so that nothing in the history says any more who you were. All sessions end, and the
/// address becomes available again. This cannot be undone. It needs the password, or a session whose login is at most ten
/// minutes old. Wrong passwords count as failed logins of this device.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/auth/me", tag = "me", operation_id = "erase_me",
    security(("user" = [])),
    params(("app_id" = String, Path, description = "The app")), request_body = Option<Reauthentication>,
    responses((status = 200, description = "The account was erased", body = Erased),
        (status = 401, description = "`unauthenticated`, or `invalid_credentials` for a wrong password"),
        (status = 403, description = "`reauthentication_required`"),
        (status = 429, description = "`rate_limited`: too many requests, or too many wrong passwords")))]
pub(crate) async fn erase(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<OptionalBody<Reauthentication>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let OptionalBody { value: body, idempotency } = body?;
    let context = service.context(&request, &app_id, caller.actor(), idempotency);
    let checked = match body.and_then(|body| body.password) {
        Some(password) => {
            let password = Password::new(password.expose_secret());
            Some(service.check_own_password(&caller, &password, &context).await?)
        }
        None => None,
    };
    let (user_id, session_id, at) = (caller.user_id, caller.session_id, context.at);
    let policy = service.settings.lockout;
    let mut reads = Reads::new();
    let live = LiveCaller::read(&caller, &mut reads);
    let lockout = reads.of::<Lockout>(&user_id);
    let erase = EraseOneself { checked, session_id, policy, at };
    let decide = move |work: &mut Work| {
        live.require(work, at)?;
        let (lockout, session, user) = work.drafts((lockout, live.session, live.user));
        erase.decide(lockout, session, user).map_err(|why| match why {
            NotErased::Stale => Problem::new(problems::REAUTHENTICATION_REQUIRED),
            NotErased::Password(why) => not_changed(why, policy, at),
        })
    };
    let reason = RevocationReason::Erased;
    let done = service.run_ending_sessions(user_id, reason, context.clone(), reads, decide).await?;
    let cleared = SetCookies::cleared(&caller.app.state, service.access_tokens.public_url());
    let answer = service.finish_erasure(user_id, done.position, context).await?;
    Ok((cleared, answer).into_response())
}
