//! Ending the caller's own sessions, as listed by the journal's claims; the route that lists them uses a read model.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::decisions::EndAccess;
use domain::session::{RevocationReason, Session, SessionCommand, SessionEvent};
use domain::{Event, SessionId};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, OptionalBody, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::callers::live::LiveCaller;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(revoke)).routes(routes!(revoke_all))
}

#[derive(Deserialize)]
pub(crate) struct SessionSegment {
    session_id: Uuid,
}

/// Which sessions to keep.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = RevokeSessionsRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeAll {
    /// Whether to keep the session that makes the request.
    #[serde(default)]
    exclude_current: bool,
}

/// The number of ended sessions.
#[derive(Serialize, ToSchema)]
#[schema(as = RevokedSessions)]
pub(crate) struct Revoked {
    /// How many sessions were ended.
    #[schema(value_type = u64)]
    pub revoked: usize,
}

/// End one of your own sessions.
///
/// Its tokens are refused from the answer on.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/auth/sessions/{session_id}", tag = "sessions",
    operation_id = "revoke_own_session", security(("user" = [])),
    params(("app_id" = String, Path, description = "The app"), ("session_id" = Uuid, Path, description = "The session")),
    responses((status = 204, description = "The session has ended"),
        (status = 404, description = "`not_found`: no live session of yours has this id")))]
pub(crate) async fn revoke(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    Segments(SessionSegment { session_id }): Segments<SessionSegment>,
    request: RequestContext,
    credentials: Credentials,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let context = service.context(&request, &app_id, caller.actor(), None);
    let (at, user_id, session_id) = (context.at, caller.user_id, SessionId(session_id));
    let mut reads = Reads::new();
    let live = LiveCaller::read(&caller, &mut reads);
    let ended = reads.of::<Session>(&session_id);
    let decide = move |work: &mut Work| {
        live.require(work, at)?;
        let session = work.get(ended);
        let owner = session.require_live(at).map_err(|_| Problem::not_found())?;
        if owner.user_id != user_id || !work.get(live.user).keeps(session) {
            return Err(Problem::not_found());
        }
        let command = SessionCommand::Revoke { reason: RevocationReason::User, at };
        work.execute(ended, command).map_err(Problem::internal)
    };
    let done = service.dispatcher.run(context, reads, decide).await?;
    Ok(Done::no_content(done.position))
}

/// End all of your own sessions.
///
/// Links, codes and tokens that would let somebody back in end too, and so does a pending change of address.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/sessions/revoke-all", tag = "sessions",
    operation_id = "revoke_own_sessions", security(("user" = [])), request_body = Option<RevokeAll>,
    params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "The sessions have ended", body = Revoked)))]
pub(crate) async fn revoke_all(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<OptionalBody<RevokeAll>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let OptionalBody { value: body, idempotency } = body?;
    let exclude_current = body.unwrap_or_default().exclude_current;
    let context = service.context(&request, &app_id, caller.actor(), idempotency);
    let (at, user_id, reason) = (context.at, caller.user_id, RevocationReason::User);
    let mut reads = Reads::new();
    let live = LiveCaller::read(&caller, &mut reads);
    let end = EndAccess { user_id, exclude: exclude_current.then_some(caller.session_id), reason, at };
    let decide = move |work: &mut Work| {
        live.require(work, at)?;
        let (user, session) = work.drafts((live.user, live.session));
        end.decide(user, Some(session)).map_err(Problem::internal)
    };
    let done = service.run_ending_sessions(user_id, reason, context, reads, decide).await?;
    let is_end = |event: &&Event| matches!(event, Event::Session(SessionEvent::SessionRevoked(_)));
    Ok(Done::ok(done.position, Revoked { revoked: done.events.iter().filter(is_end).count() }))
}
