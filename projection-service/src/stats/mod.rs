//! Statistics of an app: what happened, how far new accounts come, and who returns.

mod accounts;
mod counts;

use std::sync::Arc;

use domain::app::App;
use http_kit::Problem;
use jiff::tz::TimeZone;
use schemas::field_codes;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ProjectionService;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new()
        .routes(routes!(counts::stats))
        .routes(routes!(accounts::funnel))
        .routes(routes!(accounts::retention))
}

/// The time zone of an app. One that only another version knows is no reason to show nothing.
fn zone_of(app: &App) -> (String, TimeZone) {
    let name = &app.settings.time_zone;
    name.find().map_or_else(|| ("UTC".to_owned(), TimeZone::UTC), |zone| (name.to_string(), zone))
}

/// 422: the period is not one that can be counted.
fn out_of_range(detail: impl Into<String>) -> Problem {
    Problem::invalid_parameter("from", field_codes::OUT_OF_RANGE, detail.into())
}
