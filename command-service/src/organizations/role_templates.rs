//! The roles that an app gives to all of its organizations, for its admins and servers.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::organization::RolePermission;
use domain::role_templates::{RoleTemplates, RoleTemplatesCommand};
use domain::{Permission, Role};
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Params, Segments};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::organizations::{RolePermissions, parse_role, role_refused};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, set, delete))
}

type RoleTemplatePage = Page<RoleTemplate>;

/// A role that an app gives to all of its organizations.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct RoleTemplate {
    /// Its name.
    role: String,
    /// What it allows in the app.
    permissions: Vec<String>,
}

impl RoleTemplate {
    fn of(role: &Role, permissions: &BTreeSet<RolePermission>) -> Self {
        let permissions = permissions.iter().map(ToString::to_string).collect();
        Self { role: role.to_string(), permissions }
    }
}

/// The path parameter that names a role.
#[derive(Deserialize)]
struct RoleSegment {
    role: String,
}

/// List the roles that an app gives to all of its organizations.
///
/// By name. Read from the log itself, so it is never out of date. Needs the permission `orgs:*`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/roles", tag = "admin", operation_id = "list_role_templates",
    params(("app_id" = String, Path, description = "The app"), PageParams),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "A page of roles", body = RoleTemplatePage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::Orgs).await?;
    let templates = service.repository.load::<RoleTemplates>(&app_id).await?;
    let roles = templates.state.roles.iter().map(|(role, permissions)| RoleTemplate::of(role, permissions));
    Ok(Done::read(params.of(roles.collect())?))
}

/// Get a role that an app gives to all of its organizations.
///
/// Needs the permission `orgs:*`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/roles/{role}", tag = "admin", operation_id = "get_role_template",
    params(("app_id" = String, Path, description = "The app"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9._:-]*$")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The role", body = RoleTemplate)))]
async fn get(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
    Segments(RoleSegment { role }): Segments<RoleSegment>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::Orgs).await?;
    let role = Role::parse(role).map_err(|_| Problem::not_found())?;
    let templates = service.repository.load::<RoleTemplates>(&app_id).await?;
    let permissions = templates.state.permissions(&role).ok_or_else(Problem::not_found)?;
    Ok(Done::read(RoleTemplate::of(&role, permissions)))
}

/// Set what a role allows in all organizations of an app.
///
/// Members of organizations can be given it. For `owner`, `admin` and `member` it says what they allow in the app; how they rank
/// stays. An organization's own role of the same name hides it. It holds at once on introspection, and in tokens from the next
/// refresh on. Needs the permission `orgs:*`.
#[utoipa::path(put, path = "/v1/apps/{app_id}/admin/roles/{role}", tag = "admin", operation_id = "set_role_template",
    params(("app_id" = String, Path, description = "The app"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9._:-]*$")),
    security(("api_key" = []), ("user" = [])), request_body = RolePermissions,
    responses((status = 200, description = "The role", body = RoleTemplate),
        (status = 409, description = "`too_many_custom_roles`"),
        (status = 422, description = "`validation_failed`")))]
async fn set(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(RoleSegment { role }): Segments<RoleSegment>,
    body: Result<Body<RolePermissions>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::Orgs).await?;
    let Body { value: body, idempotency } = body?;
    let (role, permissions) = both(parse_role(&role), body.parse())?;
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let answer = RoleTemplate::of(&role, &permissions);
    let set = RoleTemplatesCommand::Set { app_id: app_id.clone(), role, permissions, at: context.at };
    let (reads, templates) = Reads::one::<RoleTemplates>(&app_id);
    let decide = move |work: &mut Work| work.execute(templates, set.clone()).map_err(role_refused);
    let done = service.run_as(&caller, context, reads, decide).await?;
    Ok(Done::ok(done.position, answer))
}

/// Delete a role that an app gives to all of its organizations.
///
/// Members who have it keep its name, and it allows them nothing any more. Open invitations to it can no longer be accepted.
/// Needs the permission `orgs:*`.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/roles/{role}", tag = "admin", operation_id = "delete_role_template",
    params(("app_id" = String, Path, description = "The app"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9._:-]*$")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "The role is deleted")))]
async fn delete(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(RoleSegment { role }): Segments<RoleSegment>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::Orgs).await?;
    let role = Role::parse(role).map_err(|_| Problem::not_found())?;
    let context = service.context(&request, &app_id, caller.actor.clone(), None);
    let (reads, templates) = Reads::one::<RoleTemplates>(&app_id);
    let delete = RoleTemplatesCommand::Delete { app_id, role, at: context.at };
    let decide = move |work: &mut Work| work.execute(templates, delete.clone()).map_err(role_refused);
    let done = service.run_as(&caller, context, reads, decide).await?;
    Ok(Done::no_content(done.position))
}
