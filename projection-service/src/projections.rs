//! Where the projectors stand.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_kit::Problem;
use http_kit::cookies::Credentials;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ProjectionService;
use crate::answers::{List, answer};
use crate::runner::ProjectionStatus;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(projections))
}

/// List the projections and where each stands.
#[utoipa::path(get, path = "/v1/projections", tag = "platform", operation_id = "list_projections",
    security(("api_key" = [])),
    responses((status = 200, description = "All projections", body = List<ProjectionStatus>)))]
async fn projections(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
) -> Result<Response, Problem> {
    service.authenticator.platform(&credentials).await?;
    let items = service.status();
    Ok(answer(List { total: items.len() as u64, items, next_cursor: None }))
}
