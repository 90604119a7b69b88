//! Statistics of an app, by hour or day.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::{Permission, Timestamp};
use http_kit::cookies::Credentials;
use http_kit::{AfterToken, AppScope, Params, Problem, Time};
use jiff::SignedDuration;
use read_models::stats::{Bucket, Granularity};
use schemas::field_codes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ProjectionService;
use crate::answers::{answer, refused};

const MAX_BUCKETS: i64 = 10_000;
const BUCKETS_BY_DEFAULT: i64 = 30;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(stats))
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[schema(as = StatsGranularity)]
#[serde(rename_all = "snake_case")]
enum Width {
    Hour,
    #[default]
    Day,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct StatsParams {
    /// The start; 30 buckets before the end by default.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Time>,
    /// The end, excluded; now by default.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Time>,
    /// `day` (of UTC, the default) or `hour`.
    #[param(inline)]
    granularity: Option<Width>,
}

/// The statistics of a period.
#[derive(Serialize, ToSchema)]
#[schema(as = Stats)]
struct StatsBody {
    /// The start.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// The end, excluded.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// The length of a bucket.
    granularity: Width,
    /// The non-empty buckets, in order.
    items: Vec<BucketBody>,
}

/// The statistics of an hour or a day.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsBucket)]
struct BucketBody {
    /// Its start.
    #[schema(value_type = String, format = DateTime)]
    start: Timestamp,
    /// New accounts, by method.
    registrations: BTreeMap<String, u64>,
    /// Started sessions, by method; those of a registration are under `registration`.
    logins: BTreeMap<String, u64>,
    /// Logins refused because of their secret, by method.
    failures: BTreeMap<String, u64>,
    /// Account lockouts.
    lockouts: u64,
    /// Used refresh tokens.
    refreshes: u64,
    /// Ended sessions, by reason.
    revocations: BTreeMap<String, u64>,
    /// The number of different users who logged in or refreshed; available by day only.
    #[schema(required)]
    active_users: Option<u64>,
}

impl From<Bucket> for BucketBody {
    fn from(bucket: Bucket) -> Self {
        let Bucket { start, mut counts, active_users } = bucket;
        let mut take = |metric: &str| counts.remove(metric).unwrap_or_default();
        Self {
            start,
            registrations: take("registrations"),
            logins: take("logins"),
            failures: take("failures"),
            lockouts: take("lockouts").values().sum(),
            refreshes: take("refreshes").values().sum(),
            revocations: take("revocations"),
            active_users,
        }
    }
}

/// Get the statistics of an app.
///
/// Registrations, logins, failures, refreshes and ended sessions, by hour or day of UTC, with at most 10 000 buckets in one
/// answer. Needs the permission `users:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/stats", tag = "admin", operation_id = "get_stats",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, StatsParams),
    responses((status = 200, description = "Counts by hour or day", body = StatsBody),
        (status = 422, description = "`validation_failed`")))]
async fn stats(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<StatsParams>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    let width = params.granularity.unwrap_or_default();
    let granularity = match width {
        Width::Hour => Granularity::Hour,
        Width::Day => Granularity::Day,
    };
    let to = params.to.map_or_else(|| service.clock.now(), |time| time.0);
    let span = SignedDuration::from_hours(BUCKETS_BY_DEFAULT * granularity.hours());
    let from = params.from.map_or_else(|| to.checked_sub(span).unwrap_or(Timestamp::MIN), |time| time.0);
    if from >= to {
        return Err(Problem::invalid_parameter("from", field_codes::OUT_OF_RANGE, "from must be before to"));
    }
    if to.duration_since(from).as_hours() / granularity.hours() > MAX_BUCKETS {
        return Err(Problem::invalid_parameter(
            "from",
            field_codes::OUT_OF_RANGE,
            format!("at most {MAX_BUCKETS} buckets"),
        ));
    }
    service.wait_for_token(read_models::stats::NAME, token).await?;
    let buckets = service.models.stats().buckets(&app_id, from, to, granularity).await.map_err(refused)?;
    let items = buckets.into_iter().map(BucketBody::from).collect();
    Ok(answer(StatsBody { from, to, granularity: width, items }))
}
