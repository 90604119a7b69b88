//! The status of the projectors, and rebuilds of their read models.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_kit::cookies::Credentials;
use http_kit::extract::{OptionalBody, Segments};
use http_kit::{Page, Params, Problem};
use schemas::{field_codes, problems};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ProjectionService;
use crate::answers::{answer, paging, position_cursor};
use crate::rebuilds::Asked;
use crate::runner::ProjectionStatus;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(projections)).routes(routes!(rebuild))
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
/// Each with the last event it has applied, the number of events it has yet to apply, and its rebuild, on whichever node
/// that is. Needs a platform key.
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
    let all = service.projections().await;
    let total = all.len();
    let items: Vec<_> = all.into_iter().skip(start).take(paging.limit as usize).collect();
    let end = start.saturating_add(items.len());
    let next_cursor = (end < total).then(|| end.to_string());
    Ok(answer(Page { total: total as u64, items, next_cursor }))
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// How to rebuild.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = RebuildProjectionRequest)]
#[serde(deny_unknown_fields, default)]
struct Rebuild {
    /// How many events to apply in a second at most; as many as possible by default.
    #[schema(value_type = Option<u32>, minimum = 1, example = 5000)]
    throttle: Option<u32>,
}

/// Rebuild a projection.
///
/// A new build is filled from the journal beside the live tables, which answer queries until it takes their place. The list of
/// projections has its progress. One that was interrupted, as by the end of the process, is continued. Needs a platform key.
#[utoipa::path(post, path = "/v1/projections/{name}/rebuild", tag = "platform", operation_id = "rebuild_projection",
    security(("api_key" = [])),
    params(("name" = String, Path, description = "The read model", example = "users")),
    request_body(content = Option<Rebuild>),
    responses((status = 202, description = "The projection, whose rebuild has begun", body = ProjectionStatus,
            headers(("Location" = String, description = "Where its progress is"))),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`rebuild_running`"),
        (status = 422, description = "`validation_failed`")))]
async fn rebuild(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    Segments(Named { name }): Segments<Named>,
    body: Result<OptionalBody<Rebuild>, Problem>,
) -> Result<Response, Problem> {
    service.authenticator.platform(&credentials).await?;
    let Rebuild { throttle } = body?.value.unwrap_or_default();
    let throttle = match throttle.map(NonZeroU32::try_from) {
        Some(Err(_)) => {
            return Err(Problem::invalid("/throttle", field_codes::OUT_OF_RANGE, "throttle is at least 1"));
        }
        Some(Ok(throttle)) => Some(throttle),
        None => None,
    };
    match service.rebuilds.start(&name, throttle).await? {
        Asked::Begun => {}
        Asked::Unknown => return Err(Problem::new(problems::NOT_FOUND)),
        Asked::Running => return Err(Problem::new(problems::REBUILD_RUNNING)),
    }
    let all = service.projections().await;
    let it = all.into_iter().find(|it| it.name == name).ok_or_else(|| Problem::new(problems::NOT_FOUND))?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, "/v1/projections")], answer(it)).into_response())
}
