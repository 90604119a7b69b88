//! Ending a lockout caused by failed logins.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Reads;
use domain::Permission;
use domain::lockout::{Lockout, LockoutCommand};
use domain::user::User;
use http_kit::answers::UserBody;
use http_kit::cookies::Credentials;
use http_kit::extract::{NoBody, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::admin::users::target::{TargetUser, UserSegments};
use crate::sessions::login::too_many;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(unlock))
}

/// Unlock a user.
///
/// Forgets the user's failed logins and ends the lockout they caused. The platform and the app's own admins can do so at
/// any time. An API key can end a lockout only once the window in which failures accumulate has passed without one: it must
/// not give anybody more guesses.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/unlock", tag = "admin", operation_id = "unlock_user",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user", body = UserBody),
        (status = 429, description = "`rate_limited`: an API key has to wait; a full admin does not")))]
async fn unlock(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let target = TargetUser::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let NoBody { idempotency } = body?;
    let context = target.context(&request, idempotency);
    let (user_id, at, full_admin) = (target.user_id, context.at, target.caller.full_admin);
    let policy = service.settings.lockout;
    let (mut reads, user) = Reads::one::<User>(&user_id);
    let lockout = reads.of::<Lockout>(&user_id);
    let committed = target
        .run(context, (reads, user), move |work| {
            let unlock = if full_admin {
                LockoutCommand::Unlock { user_id, at }
            } else {
                LockoutCommand::UnlockWithCare { user_id, policy, at }
            };
            work.execute(lockout, unlock).map_err(|locked| {
                let detail = "a full admin can unlock the account at once";
                too_many(policy, &locked, at).detail(detail)
            })
        })
        .await?;
    target.answer(&request, &committed, committed.position).await
}
