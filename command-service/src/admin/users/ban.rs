//! Bans: all of a user's means of access end.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Context, Premise, Reads};
use domain::Permission;
use domain::session::RevocationReason;
use domain::text::Lines;
use domain::user::{User, UserCommand};
use http_kit::answers::UserBody;
use http_kit::cookies::Credentials;
use http_kit::extract::{NoBody, OptionalBody, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::admin::users::target::{TargetUser, UserSegments};
use crate::api::fields;
use crate::api::refusals::user_problem;
use crate::sessions::end::SessionsOf;

const MAX_REASON: usize = 500;
/// How often to retry a change because the user changed meanwhile.
const MAX_LOOKS: usize = 16;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(ban)).routes(routes!(unban))
}

/// The reason for a ban.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = BanRequest)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ban {
    /// The reason for the audit log, where it is sealed: at most 500 characters.
    #[schema(example = "spam")]
    reason: Option<String>,
}

/// Ban a user.
///
/// All sessions end at once: from the answer on, all of the user's tokens are refused.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/ban", tag = "admin", operation_id = "ban_user",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    request_body(content = Option<Ban>),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody),
        (status = 422, description = "`validation_failed`")))]
async fn ban(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<OptionalBody<Ban>, Problem>,
) -> Result<Response, Problem> {
    let target = TargetUser::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let OptionalBody { value: body, idempotency } = body?;
    let context = target.context(&request, idempotency);
    let Ban { reason } = body.unwrap_or_default();
    let reason = reason.as_deref().map(|reason| fields::text("/reason", reason, MAX_REASON, Lines::Several));
    let reason = reason.transpose()?;
    let (user_id, at) = (target.user_id, context.at);
    let after = Context { idempotency: None, ..context.clone() };
    // The ban is appended alone, so that nothing about the sessions can delay it: it already implies their end. Their
    // claims are cleaned up afterwards, and again on a repeated request if this one is interrupted.
    let (reads, user) = Reads::one::<User>(&user_id);
    let committed = target
        .run(context, (reads, user), move |work| {
            work.execute(user, UserCommand::Ban { reason: reason.clone(), at }).map_err(user_problem)
        })
        .await?;
    let swept = service.end_sessions_of_banned(user_id, after).await?;
    target.answer(&request, &committed, committed.position.max(swept)).await
}

/// Lift a ban.
///
/// Sessions that the ban ended stay ended.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/unban", tag = "admin", operation_id = "unban_user",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody)))]
async fn unban(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let target = TargetUser::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let NoBody { idempotency } = body?;
    let context = target.context(&request, idempotency);
    let (user_id, at) = (target.user_id, context.at);
    service.end_sessions_of_banned(user_id, Context { idempotency: None, ..context.clone() }).await?;
    for _ in 0..MAX_LOOKS {
        // The order matters: after a user was banned, the set of sessions they claim can only shrink.
        let seen = service.repository.load::<User>(&user_id).await?.version;
        let sessions = service.claimed_sessions(user_id).await?;
        let (mut reads, user) = Reads::one::<User>(&user_id);
        let sessions = SessionsOf::read(user_id, &sessions, &mut reads);
        let committed = target
            .run(context.clone(), (reads, user), move |work| {
                if work.version(user) != seen {
                    return Ok(Premise::Changed);
                }
                if work.get(user).banned {
                    // An interrupted ban may have left sessions behind: they must not become usable again.
                    sessions.end_all(work, RevocationReason::Ban, at)?;
                    work.execute(user, UserCommand::Unban { at }).map_err(user_problem)?;
                }
                Ok(Premise::Held)
            })
            .await?;
        if !matches!(committed.value, Some(Premise::Changed)) {
            return target.answer(&request, &committed, committed.position).await;
        }
    }
    Err(Problem::overloaded("a user kept changing"))
}
