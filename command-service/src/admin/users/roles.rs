//! Roles, given and taken.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::user::UserCommand;
use domain::{AppId, Permission, Role, Timestamp};
use http_kit::answers::UserBody;
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::extract::Segments;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::field_codes;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::admin::users::target::{TargetUser, UserSegments};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(grant_role, revoke_role))
}

/// Grant a role.
///
/// Only the platform and the app's own admins can grant the role `admin`, and only to a user whose address is verified. It
/// ends whatever the account had before: sessions, links, codes, tokens, a change of address that is under way, and a
/// password that was set by anybody but the person, who then chooses another one by a reset.
#[utoipa::path(put, path = "/v1/apps/{app_id}/admin/users/{user_id}/roles/{role}", tag = "admin", operation_id = "grant_role",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 40, pattern = "^[a-z][a-z0-9_-]*$")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody),
        (status = 409, description = "`too_many_roles`; `email_not_verified` for the role `admin`"),
        (status = 422, description = "`validation_failed`")))]
async fn grant_role(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<RoleSegments>,
) -> Result<Response, Problem> {
    change_role(&service, &request, &credentials, segments, |role, at| UserCommand::GrantRole { role, at })
        .await
}

/// Revoke a role.
///
/// Only the platform and the app's own admins can revoke the role `admin`.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/users/{user_id}/roles/{role}", tag = "admin", operation_id = "revoke_role",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 40, pattern = "^[a-z][a-z0-9_-]*$")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody),
        (status = 422, description = "`validation_failed`")))]
async fn revoke_role(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<RoleSegments>,
) -> Result<Response, Problem> {
    change_role(&service, &request, &credentials, segments, |role, at| UserCommand::RevokeRole { role, at })
        .await
}

async fn change_role(
    service: &Arc<CommandService>,
    request: &RequestContext,
    credentials: &Credentials,
    segments: RoleSegments,
    command: fn(Role, Timestamp) -> UserCommand,
) -> Result<Response, Problem> {
    let RoleSegments { app_id, user_id, role } = segments;
    let segments = UserSegments { app_id, user_id };
    let target = TargetUser::new(service, credentials, segments, Permission::UsersWrite).await?;
    let role = parse_role(&role, "/role")?;
    require_full_admin_for(&role, &target.caller)?;
    let context = target.context(request, None);
    let command = command(role, context.at);
    match &command {
        UserCommand::GrantRole { role, .. } if *role == Role::admin() => {
            target.promote(request, context, command).await
        }
        _ => target.run_on_user(request, context, command).await,
    }
}

#[derive(Deserialize)]
struct RoleSegments {
    app_id: AppId,
    user_id: Uuid,
    role: String,
}

pub(super) fn parse_role(text: &str, pointer: &str) -> Result<Role, Problem> {
    Role::parse(text).map_err(|error| Problem::invalid(pointer, field_codes::INVALID, error.to_string()))
}

pub(super) fn require_full_admin_for(role: &Role, caller: &AdminCaller) -> Result<(), Problem> {
    if *role == Role::admin() && !caller.full_admin {
        return Err(Problem::forbidden().detail("only a full admin gives or takes the role admin"));
    }
    Ok(())
}
