//! The status of the projectors.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_kit::cookies::Credentials;
use http_kit::{Page, Params, Problem};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ProjectionService;
use crate::answers::{answer, paging, position_cursor};
use crate::runner::ProjectionStatus;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(projections))
}

type ProjectionPage = Page<ProjectionStatus>;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListProjections {
    /// The maximum number of items: 1 to 200, 20 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// List the projections.
///
/// Each with the last event it has applied, and the number of events it has yet to apply. Needs a platform key.
#[utoipa::path(get, path = "/v1/projections", tag = "platform", operation_id = "list_projections",
    security(("api_key" = [])), params(ListProjections),
    responses((status = 200, description = "A page of projections", body = ProjectionPage),
        (status = 422, description = "`validation_failed`")))]
async fn projections(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    Params(params): Params<ListProjections>,
) -> Result<Response, Problem> {
    service.authenticator.platform(&credentials).await?;
    let paging = paging(params.limit, params.offset, params.cursor)?;
    let start = position_cursor(paging.cursor.as_deref())?.unwrap_or(paging.offset.into());
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let all = service.status();
    let total = all.len();
    let items: Vec<_> = all.into_iter().skip(start).take(paging.limit as usize).collect();
    let end = start.saturating_add(items.len());
    let next_cursor = (end < total).then(|| end.to_string());
    Ok(answer(Page { total: total as u64, items, next_cursor }))
}
