//! Changing an organization's name and slug, by an admin of the app.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::organization::{Acting, Organization, OrganizationCommand};
use http_kit::answers::AppOrganizationBody;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Segments};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::apps::check_name;
use crate::organizations::change::OrganizationPatch;
use crate::organizations::create::{parse_slug, slug_problem};
use crate::organizations::{OrganizationSegments, refused};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(change))
}

/// Change an app's organization.
///
/// Absent members stay. Needs the permission `orgs:write`.
#[utoipa::path(patch, path = "/v1/apps/{app_id}/admin/orgs/{org_id}", tag = "admin",
    operation_id = "change_app_organization",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization")), security(("api_key" = []), ("user" = [])),
    request_body(content((OrganizationPatch = "application/json"), (OrganizationPatch = "application/merge-patch+json"))),
    responses((status = 200, description = "The organization as it is now", body = AppOrganizationBody),
        (status = 409, description = "`slug_taken`"),
        (status = 422, description = "`validation_failed`")))]
async fn change(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
    body: Result<Body<OrganizationPatch>, Problem>,
) -> Result<Response, Problem> {
    let (caller, organization_id) = service.managed(&app_id, &credentials, org_id).await?;
    let Body { value: body, idempotency } = body?;
    let (name, slug) = both(
        body.name.map(|name| check_name(&name)).transpose(),
        body.slug.map(|slug| parse_slug(&slug)).transpose(),
    )?;
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let rename = OrganizationCommand::Rename { acting: Acting::App, name, slug, at: context.at };
    let (reads, organization) = Reads::one::<Organization>(&organization_id);
    let decide = move |work: &mut Work| work.execute(organization, rename.clone()).map_err(refused);
    let done = service.run_as(&caller, context, reads, decide).await.map_err(slug_problem)?;
    Ok(Done::ok(done.position, service.app_organization(&organization_id).await?))
}
