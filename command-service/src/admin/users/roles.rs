//! Granting and revoking roles.

use crate::api::refusals::not_granted;
use dispatcher::{Reads, Work};
use domain::decisions::GrantRole;
use domain::session::RevocationReason;
use domain::user::User;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::user::UserCommand;
use domain::{AppId, Permission, Role};
use http_kit::answers::UserBody;
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
/// Only the platform and the app's own admins can grant the role `admin`, and only to a user with a verified address. This
/// grant ends everything the account had before: sessions, links, codes, tokens, a pending change of address, and a
/// password that somebody else set; the user then chooses a new one through a reset.
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
    let (target, role) = target_of(&service, &credentials, segments).await?;
    let context = target.context(&request, None);
    let is_promotion = role == Role::admin();
    let grant = GrantRole { role, full_admin: target.caller.full_admin, at: context.at };
    let (reads, user) = Reads::one::<User>(&target.user_id);
    let decide = move |work: &mut Work| grant.decide(work.draft(user)).map_err(not_granted);
    // A previous holder of the account may not be entitled to an admin's.
    let committed = if is_promotion {
        target.run_ending(context, (reads, user), RevocationReason::Admin, decide).await?
    } else {
        target.run(context, (reads, user), decide).await?
    };
    target.answer(&request, &committed, committed.position).await
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
    let (target, role) = target_of(&service, &credentials, segments).await?;
    let context = target.context(&request, None);
    let at = context.at;
    target.run_on_user(&request, context, UserCommand::RevokeRole { role, at }).await
}

async fn target_of<'a>(
    service: &'a Arc<CommandService>,
    credentials: &Credentials,
    segments: RoleSegments,
) -> Result<(TargetUser<'a>, Role), Problem> {
    let RoleSegments { app_id, user_id, role } = segments;
    let segments = UserSegments { app_id, user_id };
    let target = TargetUser::new(service, credentials, segments, Permission::UsersWrite).await?;
    let role = parse_role(&role, "/role")?;
    GrantRole::require_may_handle(&role, target.caller.full_admin).map_err(not_granted)?;
    Ok((target, role))
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
