//! One organization, as it is or as it was.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::{OrganizationId, Permission};
use http_kit::answers::AppOrganizationBody;
use http_kit::cookies::Credentials;
use http_kit::{AfterToken, AppScope, AsOfParams, Params, Problem, Segments};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{OneOrganization, as_of, existing};
use crate::ProjectionService;
use crate::answers::answer;

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(get_one))
}

/// Get an app's organization.
///
/// Read from the log itself, so it is never out of date. With `as_of`, the organization as of then: 404 before it was
/// created and after it was deleted. The header `As-Of-Position` names the last event that counts. Needs the permission
/// `orgs:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/orgs/{org_id}", tag = "admin", operation_id = "get_app_organization",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), AfterToken, AsOfParams),
    responses((status = 200, description = "The organization", body = AppOrganizationBody),
        (status = 422, description = "`validation_failed`")))]
async fn get_one(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(OneOrganization { org_id }): Segments<OneOrganization>,
    token: AfterToken,
    Params(params): Params<AsOfParams>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::OrgsRead).await?;
    service.wait_for_journal(token).await?;
    let id = OrganizationId(org_id);
    let Some(moment) = service.moment(params.as_of).await? else {
        let organization = existing(&service, &app_id, id).await?;
        return Ok(answer(AppOrganizationBody::of(&organization.state).ok_or_else(Problem::not_found)?));
    };
    let organization = as_of(&service, &app_id, id, moment).await?;
    let body = AppOrganizationBody::of(&organization).ok_or_else(Problem::not_found)?;
    Ok((moment, answer(body)).into_response())
}
