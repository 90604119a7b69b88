//! Erasure of a user by an admin.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::session::RevocationReason;
use domain::user::{ErasureReason, User, UserCommand};
use domain::{AppId, Permission, UserId};
use event_store::erase::position;
use http_kit::cookies::Credentials;
use http_kit::extract::{NoBody, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::admin::users::target::{TargetUser, UserSegments};
use crate::api::refusals::user_problem;
use crate::erase::Erased;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(erase))
}

/// Erase a user.
///
/// The key of the person's data is destroyed, so that nothing in the history, the backups of the history or the event stream
/// says any more who they were. All of their access ends, and their address becomes available again. This cannot be undone.
/// Repeating it has no effect.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/users/{user_id}", tag = "admin", operation_id = "erase_user",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user was erased", body = Erased)))]
async fn erase(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let (app_id, user_id) = (segments.app_id.clone(), UserId(segments.user_id));
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::UsersWrite).await?;
    if let Some(position) = service.erased_before(&app_id, user_id).await? {
        let context = service.context(&request, &app_id, caller.actor, None);
        return service.finish_erasure(user_id, position, context).await;
    }
    let target = TargetUser::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let NoBody { idempotency } = body?;
    let context = target.context(&request, idempotency);
    let at = context.at;
    let (reads, user) = Reads::one::<User>(&user_id);
    let erase = move |work: &mut Work| {
        work.execute(user, UserCommand::Erase { reason: ErasureReason::Admin, at }).map_err(user_problem)
    };
    let done = target.run_ending(context.clone(), (reads, user), RevocationReason::Erased, erase).await?;
    service.finish_erasure(user_id, done.position, context).await
}

impl CommandService {
    /// Where the log records the erasure of a user of the app, if it does.
    async fn erased_before(&self, app_id: &AppId, user_id: UserId) -> Result<Option<u64>, Problem> {
        let user = self.repository.load::<User>(&user_id).await?;
        if user.state.app_id.as_ref() != Some(app_id) {
            return Ok(None);
        }
        Ok(position(&self.repository, user_id).await?)
    }
}
