//! Deleting an organization, by an admin of the app.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::organization::{Acting, Organization};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::organizations::OrganizationSegments;
use crate::organizations::delete::delete_with_members;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(delete))
}

/// Delete an app's organization.
///
/// Ends all memberships. It cannot be undone. Needs the permission `orgs:write`.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/orgs/{org_id}", tag = "admin",
    operation_id = "delete_app_organization",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization")), security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "The organization is deleted")))]
async fn delete(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
) -> Result<Response, Problem> {
    let (caller, organization_id) = service.managed(&app_id, &credentials, org_id).await?;
    let context = service.context(&request, &app_id, caller.actor.clone(), None);
    let at = context.at;
    let (reads, organization) = Reads::one::<Organization>(&organization_id);
    let decide = move |work: &mut Work| delete_with_members(work, organization, Acting::App, at);
    let done = service.run_as(&caller, context.clone(), reads, decide).await?;
    let members = done.value.unwrap_or_default();
    let shortened = service.shorten_all_lists(organization_id, &members, &context).await;
    Ok(Done::no_content(done.position.max(shortened)))
}
