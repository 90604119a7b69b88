//! Logout: ending one session.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatcher::{Context, Reads, Work};
use domain::session::{RevocationReason, Session, SessionCommand};
use domain::{AppId, SessionId, UserId};
use http_kit::cookies::{Credentials, SetCookies};
use http_kit::extract::{AppScope, OptionalBody};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(logout))
}

/// A refresh token of the session, or nothing if the request carries an access token or a cookie.
#[derive(Deserialize, ToSchema)]
#[schema(as = LogoutRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogoutBody {
    /// Any refresh token of the session.
    #[schema(example = "wwr_…")]
    refresh_token: Option<String>,
}

/// Log out.
///
/// Ends the session of the refresh token or access token; in cookie mode the cookie is enough. Repeating it changes
/// nothing.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/logout", tag = "auth", operation_id = "logout",
    params(("app_id" = String, Path, description = "The app")), request_body = Option<LogoutBody>,
    security((), ("user" = [])),
    responses((status = 204, description = "The session has ended"),
        (status = 401, description = "`invalid_refresh_token`, `unauthenticated`"),
        (status = 403, description = "`forbidden`: the token came as a cookie without its `X-CSRF-Token`")))]
pub(crate) async fn logout(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    OptionalBody { value: body, idempotency }: OptionalBody<LogoutBody>,
) -> Result<Response, Problem> {
    let app = service.authenticator.existing_app(&app_id).await?;
    let (session_id, user_id) = if let Some(text) = body.and_then(|body| body.refresh_token) {
        let known = service.session_of(&app_id, &text).await?;
        (known.token.session_id, known.user_id)
    } else if let Some(known) = service.session_of_cookie(&app_id, &app.state, &credentials).await? {
        (known.token.session_id, known.user_id)
    } else {
        // Ending a session that has already ended is not an error, so only the token itself is verified.
        let claims = service.access_tokens.verify(&app.state, credentials.bearer()?, service.clock.now());
        let claims = claims.map_err(|_| Problem::invalid_token())?;
        (claims.sid, claims.sub)
    };
    let context = service.context(&request, &app_id, Actor::user(user_id), idempotency);
    let position =
        service.end_session(&app_id, session_id, user_id, RevocationReason::Logout, context).await?;
    Ok((SetCookies::cleared(&app.state, service.access_tokens.public_url()), Done::no_content(position))
        .into_response())
}

impl CommandService {
    /// Ends a session, whatever its state. Returns the resulting position in the log.
    pub(crate) async fn end_session(
        &self,
        app_id: &AppId,
        session_id: SessionId,
        user_id: UserId,
        reason: RevocationReason,
        context: Context,
    ) -> Result<u64, Problem> {
        let (at, app_id) = (context.at, app_id.clone());
        let (reads, session) = Reads::one::<Session>(&session_id);
        let decide = move |work: &mut Work| {
            let owner = work.get(session).owner.as_ref();
            if !owner.is_some_and(|owner| owner.user_id == user_id && owner.app_id == app_id) {
                return Err(Problem::invalid_token());
            }
            let revoke = SessionCommand::Revoke { reason, at };
            work.execute(session, revoke).map_err(Problem::internal)
        };
        let done = self.dispatcher.run(context, reads, decide).await?;
        Ok(done.position)
    }
}
