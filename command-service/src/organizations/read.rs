//! The caller's organizations, read from the log itself.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Params, Segments};
use http_kit::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::organizations::{OrganizationBody, OrganizationSegments};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

type OrganizationPage = Page<OrganizationBody>;

/// List your own organizations.
///
/// Oldest first. Read from the log itself, so it is never out of date.
#[utoipa::path(get, path = "/v1/apps/{app_id}/orgs", tag = "organizations", operation_id = "list_own_organizations",
    params(("app_id" = String, Path, description = "The app"), PageParams), security(("user" = [])),
    responses((status = 200, description = "A page of organizations", body = OrganizationPage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let organizations = service.organizations_of(&app_id, caller.user_id).await?;
    let bodies = organizations.iter().filter_map(|it| OrganizationBody::of(&it.state, caller.user_id));
    Ok(Done::read(params.of(bodies.collect())?))
}

/// Get an organization that you are a member of.
///
/// Read from the log itself, so it is never out of date.
#[utoipa::path(get, path = "/v1/apps/{app_id}/orgs/{org_id}", tag = "organizations", operation_id = "get_organization",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization")), security(("user" = [])),
    responses((status = 200, description = "The organization", body = OrganizationBody)))]
async fn get(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let body = OrganizationBody::of(&caller.organization.state, caller.user.user_id);
    Ok(Done::read(body.ok_or_else(Problem::not_found)?))
}
