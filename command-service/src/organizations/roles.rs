//! The roles of an organization: the built-in ones, its own, and those of its app.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::decisions::SetOrganizationRole;
use domain::organization::{Acting, BUILT_IN, Organization, OrganizationCommand};
use domain::role_templates::RoleTemplates;
use domain::{AppId, Role};
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Params, Segments};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::organizations::{OrganizationSegments, RolePermissions, parse_role, refused};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, set, delete))
}

type OrganizationRolePage = Page<OrganizationRole>;

/// Where a role comes from.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RoleSource {
    /// It is `owner`, `admin` or `member`. What it allows, the app says.
    BuiltIn,
    /// The organization made it. It hides one of the app of that name.
    Organization,
    /// The app has it for all of its organizations.
    App,
}

/// A role that members of an organization can have.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct OrganizationRole {
    /// Its name.
    role: String,
    /// What it allows in the app.
    permissions: Vec<String>,
    /// Where it comes from.
    source: RoleSource,
}

impl OrganizationRole {
    fn of(role: &Role, organization: &Organization, templates: &RoleTemplates) -> Option<Self> {
        let permissions = organization.permissions(role, templates);
        let source = match permissions {
            _ if BUILT_IN.contains(&role.as_str()) => RoleSource::BuiltIn,
            Some(_) if organization.roles.contains_key(role) => RoleSource::Organization,
            Some(_) => RoleSource::App,
            None => return None,
        };
        let permissions = permissions.into_iter().flatten().map(ToString::to_string).collect();
        Some(Self { role: role.to_string(), permissions, source })
    }

    /// All of them, by name, the built-in ones first.
    fn all(organization: &Organization, templates: &RoleTemplates) -> Vec<Self> {
        let built_in = BUILT_IN.iter().filter_map(|name| Role::parse(*name).ok());
        let others: BTreeSet<&Role> = organization.roles.keys().chain(templates.roles.keys()).collect();
        let others = others.into_iter().filter(|role| !BUILT_IN.contains(&role.as_str())).cloned();
        built_in.chain(others).filter_map(|role| Self::of(&role, organization, templates)).collect()
    }
}

/// The path parameters that name a role of an organization.
#[derive(Deserialize)]
struct RoleSegments {
    org_id: Uuid,
    role: String,
}

/// List the roles of an organization.
///
/// For its members: `owner`, `admin` and `member`, those that the organization has made, and those of the app. Read from the log
/// itself, so it is never out of date.
#[utoipa::path(get, path = "/v1/apps/{app_id}/orgs/{org_id}/roles", tag = "organizations",
    operation_id = "list_organization_roles",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), PageParams), security(("user" = [])),
    responses((status = 200, description = "A page of roles", body = OrganizationRolePage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let templates = service.repository.load::<RoleTemplates>(&app_id).await?;
    let roles = OrganizationRole::all(&caller.organization.state, &templates.state);
    Ok(Done::read(params.of(roles)?))
}

/// Get a role of an organization.
///
/// For its members.
#[utoipa::path(get, path = "/v1/apps/{app_id}/orgs/{org_id}/roles/{role}", tag = "organizations",
    operation_id = "get_organization_role",
    params(("app_id" = String, Path, description = "The app"), ("org_id" = Uuid, Path, description = "The organization"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9._:-]*$")),
    security(("user" = [])),
    responses((status = 200, description = "The role", body = OrganizationRole)))]
async fn get(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
    Segments(RoleSegments { org_id, role }): Segments<RoleSegments>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let role = Role::parse(role).map_err(|_| Problem::not_found())?;
    Ok(Done::read(service.organization_role(&app_id, &caller.organization.state, &role).await?))
}

/// Set what a role of the organization's own allows.
///
/// Makes the role if there is none. It ranks as `member` does, whatever it allows. Needs the role `admin` or `owner`; an admin
/// cannot put in it what the app gives `owner` and no other role. The built-in roles are the app's to set. It holds at once on
/// introspection, and in tokens from the next refresh on.
#[utoipa::path(put, path = "/v1/apps/{app_id}/orgs/{org_id}/roles/{role}", tag = "organizations",
    operation_id = "set_organization_role",
    params(("app_id" = String, Path, description = "The app"), ("org_id" = Uuid, Path, description = "The organization"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9._:-]*$")),
    security(("user" = [])), request_body = RolePermissions,
    responses((status = 200, description = "The role", body = OrganizationRole),
        (status = 403, description = "`forbidden`: the caller's role does not allow it"),
        (status = 409, description = "`too_many_custom_roles`"),
        (status = 422, description = "`validation_failed`: also for the built-in roles, in any case")))]
async fn set(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(RoleSegments { org_id, role }): Segments<RoleSegments>,
    body: Result<Body<RolePermissions>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let Body { value: body, idempotency } = body?;
    let (role, permissions) = both(parse_role(&role), body.parse())?;
    let context = service.context(&request, &app_id, caller.user.actor(), idempotency);
    let (acting, at) = (Acting::User(caller.user.user_id), context.at);
    let set = SetOrganizationRole { acting, role: role.clone(), permissions, at };
    let (mut reads, organization) = Reads::one::<Organization>(&caller.organization_id);
    let templates = reads.of::<RoleTemplates>(&app_id);
    let decide = move |work: &mut Work| {
        let (organization, templates) = work.drafts((organization, templates));
        set.decide(organization, templates).map_err(refused)
    };
    let done = service.run_live(&caller.user, context, reads, decide).await?;
    let now = service.repository.load::<Organization>(&caller.organization_id).await?;
    Ok(Done::ok(done.position, service.organization_role(&app_id, &now.state, &role).await?))
}

/// Delete a role of the organization's own.
///
/// Needs the role `admin` or `owner`. Members who have it need another role first.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/orgs/{org_id}/roles/{role}", tag = "organizations",
    operation_id = "delete_organization_role",
    params(("app_id" = String, Path, description = "The app"), ("org_id" = Uuid, Path, description = "The organization"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9._:-]*$")),
    security(("user" = [])),
    responses((status = 204, description = "The role is deleted"),
        (status = 403, description = "`forbidden`: the caller's role does not allow it"),
        (status = 409, description = "`role_in_use`")))]
async fn delete(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(RoleSegments { org_id, role }): Segments<RoleSegments>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let role = Role::parse(role).map_err(|_| Problem::not_found())?;
    let context = service.context(&request, &app_id, caller.user.actor(), None);
    let (acting, at) = (Acting::User(caller.user.user_id), context.at);
    let (reads, organization) = Reads::one::<Organization>(&caller.organization_id);
    let decide = move |work: &mut Work| {
        let command = OrganizationCommand::DeleteRole { acting, role: role.clone(), at };
        work.execute(organization, command).map_err(refused)
    };
    let done = service.run_live(&caller.user, context, reads, decide).await?;
    Ok(Done::no_content(done.position))
}

impl CommandService {
    async fn organization_role(
        &self,
        app_id: &AppId,
        organization: &Organization,
        role: &Role,
    ) -> Result<OrganizationRole, Problem> {
        let templates = self.repository.load::<RoleTemplates>(app_id).await?;
        OrganizationRole::of(role, organization, &templates.state).ok_or_else(Problem::not_found)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::organization::RolePermission;

    use super::*;

    #[test]
    fn roles_are_listed_once_with_their_source() {
        let role = |name: &str| Role::parse(name).expect("valid");
        let permissions = |name: &str| BTreeSet::from([RolePermission::parse(name).expect("valid")]);
        let own = BTreeMap::from([(role("support"), permissions("tickets:own"))]);
        let app = BTreeMap::from([
            (role("owner"), permissions("billing:*")),
            (role("support"), permissions("tickets:read")),
            (role("auditor"), permissions("audit:read")),
        ]);
        let organization = Organization { roles: own, ..Organization::default() };
        let all = OrganizationRole::all(&organization, &RoleTemplates { roles: app });
        let listed = all.iter().map(|it| format!("{} {:?} {}", it.role, it.source, it.permissions.join(",")));
        let expected = [
            "owner BuiltIn billing:*",
            "admin BuiltIn ",
            "member BuiltIn ",
            "auditor App audit:read",
            "support Organization tickets:own",
        ];
        assert_eq!(listed.collect::<Vec<_>>(), expected);
    }
}
