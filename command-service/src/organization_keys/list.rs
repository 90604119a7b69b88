//! The API keys of an organization.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::organization::{Acting, Rank};
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Params, Segments};
use http_kit::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::organization_keys::OrganizationKeyBody;
use crate::organizations::{OrganizationSegments, refused};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list))
}

type OrganizationApiKeyPage = Page<OrganizationKeyBody>;

/// List the API keys of an organization.
///
/// Keys that are neither revoked nor expired, oldest first, without their texts. Needs the role `admin` or `owner`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/orgs/{org_id}/api-keys", tag = "organizations",
    operation_id = "list_organization_api_keys",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), PageParams), security(("user" = [])),
    responses((status = 200, description = "A page of keys", body = OrganizationApiKeyPage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let organization = &caller.organization.state;
    organization.require(Acting::User(caller.user.user_id), Rank::Admin).map_err(refused)?;
    let now = service.clock.now();
    let ids = organization.keys.keys();
    let keys = ids.filter_map(|id| organization.key(*id, now).map(|key| OrganizationKeyBody::of(*id, key)));
    Ok(Done::read(params.of(keys.collect())?))
}
