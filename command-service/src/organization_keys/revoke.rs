//! Revoking an API key of an organization.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::OrganizationKeyId;
use domain::organization::{Acting, Organization, OrganizationCommand};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::organizations::refused;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(revoke))
}

#[derive(Deserialize)]
struct KeySegments {
    org_id: Uuid,
    key_id: Uuid,
}

/// Revoke an API key of an organization.
///
/// Introspection says so at once. Needs the role `admin` or `owner`.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/orgs/{org_id}/api-keys/{key_id}", tag = "organizations",
    operation_id = "revoke_organization_api_key",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"),
        ("key_id" = Uuid, Path, description = "The key")), security(("user" = [])),
    responses((status = 204, description = "The key is revoked"),
        (status = 403, description = "`forbidden`: the caller's role does not allow it")))]
async fn revoke(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(KeySegments { org_id, key_id }): Segments<KeySegments>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let context = service.context(&request, &app_id, caller.user.actor(), None);
    let (acting, key_id, at) = (Acting::User(caller.user.user_id), OrganizationKeyId(key_id), context.at);
    let (reads, organization) = Reads::one::<Organization>(&caller.organization_id);
    let done = service
        .run_live(&caller.user, context, reads, move |work: &mut Work| {
            work.execute(organization, OrganizationCommand::RevokeKey { acting, key_id, at }).map_err(refused)
        })
        .await?;
    Ok(Done::no_content(done.position))
}
