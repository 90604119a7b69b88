//! Changing an organization's name and slug.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::organization::{Acting, Organization, OrganizationCommand};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Segments};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::apps::check_name;
use crate::organizations::create::{parse_slug, slug_problem};
use crate::organizations::{OrganizationBody, OrganizationSegments, refused};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(change))
}

/// What to change; absent members stay.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrganizationPatch {
    /// The name shown to people.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    /// Its name in URLs. Another organization can take the former one.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 40, pattern = "^[a-z0-9](-?[a-z0-9])*$")]
    pub slug: Option<String>,
}

/// Change an organization.
///
/// Needs the role `admin` or `owner` in it.
#[utoipa::path(patch, path = "/v1/apps/{app_id}/orgs/{org_id}", tag = "organizations",
    operation_id = "change_organization",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization")), security(("user" = [])),
    request_body(content((OrganizationPatch = "application/json"), (OrganizationPatch = "application/merge-patch+json"))),
    responses((status = 200, description = "The organization as it is now", body = OrganizationBody),
        (status = 409, description = "`slug_taken`"),
        (status = 422, description = "`validation_failed`")))]
async fn change(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
    body: Result<Body<OrganizationPatch>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let Body { value: body, idempotency } = body?;
    let (name, slug) = both(
        body.name.map(|name| check_name(&name)).transpose(),
        body.slug.map(|slug| parse_slug(&slug)).transpose(),
    )?;
    let context = service.context(&request, &app_id, caller.user.actor(), idempotency);
    let (user_id, at) = (caller.user.user_id, context.at);
    let rename = OrganizationCommand::Rename { acting: Acting::User(user_id), name, slug, at };
    let (reads, organization) = Reads::one::<Organization>(&caller.organization_id);
    let done = service
        .run_live(&caller.user, context, reads, move |work: &mut Work| {
            work.execute(organization, rename.clone()).map_err(refused)
        })
        .await
        .map_err(slug_problem)?;
    let now = service.repository.load::<Organization>(&caller.organization_id).await?;
    let body = OrganizationBody::of(&now.state, user_id);
    Ok(Done::ok(done.position, body.ok_or_else(Problem::not_found)?))
}
