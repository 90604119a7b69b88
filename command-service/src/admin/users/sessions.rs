//! A user's sessions, ended by an admin.

use domain::user::User;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::decisions::EndAccess;
use domain::decisions::end_sessions::end;
use domain::session::{RevocationReason, Session, SessionEvent};
use domain::{AppId, Event, Permission, SessionId};
use http_kit::cookies::Credentials;
use http_kit::extract::{OptionalBody, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::admin::users::target::{TargetUser, UserSegments};
use crate::api::answers::Done;
use crate::sessions::revoke::Revoked;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(revoke_session)).routes(routes!(revoke_all_sessions))
}

/// End a session of a user.
///
/// Its tokens are refused from the answer on. Needs the permission `users:write`.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/users/{user_id}/sessions/{session_id}", tag = "admin",
    operation_id = "revoke_user_session",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        ("session_id" = Uuid, Path, description = "The session")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "The session has ended")))]
async fn revoke_session(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<SessionSegments>,
) -> Result<Response, Problem> {
    let SessionSegments { app_id, user_id, session_id } = segments;
    let segments = UserSegments { app_id, user_id };
    let target = TargetUser::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let context = target.context(&request, None);
    let (user_id, at, session_id) = (target.user_id, context.at, SessionId(session_id));
    let (mut reads, user) = Reads::one::<User>(&user_id);
    let session = reads.of::<Session>(&session_id);
    let committed = target
        .run(context, (reads, user), move |work| {
            let owner = work.get(session).owner.as_ref();
            if owner.is_none_or(|owner| owner.user_id != user_id) {
                return Err(Problem::not_found());
            }
            end(work.draft(session), (user_id, session_id), RevocationReason::Admin, at)
                .map_err(Problem::internal)
        })
        .await?;
    Ok(Done::no_content(committed.position))
}

/// The session to keep.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = RevokeUserSessionsRequest)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RevokeAllOfUser {
    /// The id of a session to keep.
    exclude: Option<Uuid>,
}

/// End all sessions of a user.
///
/// Links, codes and tokens that would let the user back in end too, and so does a pending change of address.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/sessions/revoke-all", tag = "admin",
    operation_id = "revoke_all_user_sessions",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    request_body(content = Option<RevokeAllOfUser>),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The number of ended sessions", body = Revoked)))]
async fn revoke_all_sessions(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<OptionalBody<RevokeAllOfUser>, Problem>,
) -> Result<Response, Problem> {
    let target = TargetUser::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let OptionalBody { value: body, idempotency } = body?;
    let context = target.context(&request, idempotency);
    let RevokeAllOfUser { exclude } = body.unwrap_or_default();
    let exclude = exclude.map(SessionId);
    let mut reads = Reads::new();
    let excluded = exclude.map(|id| reads.of::<Session>(&id));
    let user = reads.of::<User>(&target.user_id);
    let end = EndAccess { user_id: target.user_id, exclude, reason: RevocationReason::Admin, at: context.at };
    let decide = move |work: &mut Work| {
        let decided = match excluded {
            Some(excluded) => {
                let (user, excluded) = work.drafts((user, excluded));
                end.decide(user, Some(excluded))
            }
            None => end.decide(work.draft(user), None),
        };
        decided.map_err(Problem::internal)
    };
    let committed = target.run_ending(context, (reads, user), end.reason, decide).await?;
    let ended = |event: &&Event| matches!(event, Event::Session(SessionEvent::SessionRevoked(_)));
    let revoked = committed.events.iter().filter(ended).count();
    Ok(Done::ok(committed.position, Revoked { revoked }))
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "they are the names in the path")]
struct SessionSegments {
    app_id: AppId,
    user_id: Uuid,
    session_id: Uuid,
}
