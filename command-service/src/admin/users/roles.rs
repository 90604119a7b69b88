//! Granting and revoking roles.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::app::App;
use domain::decisions::GrantRole;
use domain::session::RevocationReason;
use domain::user::{User, UserCommand};
use domain::{AppId, Permission, Role};
use http_kit::answers::UserBody;
use http_kit::cookies::Credentials;
use http_kit::extract::Segments;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::field_codes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::admin::users::target::{TargetUser, UserSegments};
use crate::api::answers::Done;
use crate::api::refusals::not_granted;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(grant_role, revoke_role))
}

/// What the admin role opens.
pub(super) const OPENS: &str =
    "the app's admin routes: its users, their sessions and roles, its API keys, signing keys and settings";

/// A user with the role that was granted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RoleGrant {
    /// The user as they are now.
    #[serde(flatten)]
    user: UserBody,
    /// What the role opens, if it is the app's `admin_role`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "the app's admin routes: its users, keys and settings")]
    opens: Option<&'static str>,
}

/// Grant a role.
///
/// The role named by the app's setting `admin_role` (`admin`, unless the platform chose another) is control of the app: its
/// users, their sessions and roles, its API keys, signing keys and settings. The answer's `opens` says so. Only the platform
/// and the app's own admins can grant it, and only to a user with a verified address. This grant ends everything the account
/// had before: sessions, links, codes, tokens, a pending change of address, and a password that somebody else set; the user
/// then chooses a new one through a reset. A user who had the role before the app named it is not an admin until it is
/// granted again.
#[utoipa::path(put, path = "/v1/apps/{app_id}/admin/users/{user_id}/roles/{role}", tag = "admin", operation_id = "grant_role",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9._:-]*$")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = RoleGrant),
        (status = 409, description = "`too_many_roles`; `email_not_verified` for the admin role"),
        (status = 422, description = "`validation_failed`")))]
async fn grant_role(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<RoleSegments>,
) -> Result<Response, Problem> {
    let (target, role, is_promotion) = target_of(&service, &credentials, segments).await?;
    let context = target.context(&request, None);
    let grant = GrantRole { role, full_admin: target.caller.full_admin, at: context.at };
    let (mut reads, user) = Reads::one::<User>(&target.user_id);
    let app = reads.of::<App>(&target.app_id);
    let decide = move |work: &mut Work| {
        let (app, user) = work.drafts((app, user));
        grant.decide(app, user).map_err(not_granted)
    };
    // A previous holder of the account may not be entitled to an admin's.
    let committed = if is_promotion {
        target.run_ending(context, (reads, user), RevocationReason::Admin, decide).await?
    } else {
        target.run(context, (reads, user), decide).await?
    };
    let user = target.shown(&request, &committed).await?;
    Ok(Done::ok(committed.position, RoleGrant { user, opens: is_promotion.then_some(OPENS) }))
}

/// Revoke a role.
///
/// Only the platform and the app's own admins can revoke the app's `admin_role`.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/users/{user_id}/roles/{role}", tag = "admin", operation_id = "revoke_role",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9._:-]*$")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody),
        (status = 422, description = "`validation_failed`")))]
async fn revoke_role(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<RoleSegments>,
) -> Result<Response, Problem> {
    let (target, role, _) = target_of(&service, &credentials, segments).await?;
    let context = target.context(&request, None);
    let at = context.at;
    target.run_on_user(&request, context, UserCommand::RevokeRole { role, at }).await
}

/// The user, the role, and whether it is that of the app's admins.
async fn target_of<'a>(
    service: &'a Arc<CommandService>,
    credentials: &Credentials,
    segments: RoleSegments,
) -> Result<(TargetUser<'a>, Role, bool), Problem> {
    let RoleSegments { app_id, user_id, role } = segments;
    let segments = UserSegments { app_id, user_id };
    let target = TargetUser::new(service, credentials, segments, Permission::UsersWrite).await?;
    let role = parse_role(&role, "/role")?;
    let app = service.authenticator.existing_app(&target.app_id).await?;
    GrantRole::require_may_handle(&app.state, &role, target.caller.full_admin).map_err(not_granted)?;
    let is_admin_role = app.state.is_admin_role(&role);
    Ok((target, role, is_admin_role))
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
