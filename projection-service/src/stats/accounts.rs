//! How far new accounts come, and who returns.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::{Permission, Timestamp};
use http_kit::cookies::Credentials;
use http_kit::{AfterToken, AppScope, Params, Problem, Time};
use jiff::SignedDuration;
use read_models::stats::{Cohort, Granularity};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{out_of_range, zone_of};
use crate::ProjectionService;
use crate::answers::{answer, refused};

/// The period of a funnel by default.
const A_MONTH: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How many weeks or months retention shows.
const COHORTS: usize = 12;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct FunnelParams {
    /// The start; 30 days before the end by default.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Time>,
    /// The end, excluded; now by default.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Time>,
}

/// How far the accounts of a period have come.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsFunnel)]
pub(super) struct FunnelBody {
    /// The start.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// The end, excluded.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// Accounts that were made in the period, also by admins and imports.
    registered: u64,
    /// How many of them have verified their address, until now.
    verified: u64,
    /// How many of them have logged in, until now. The session that a registration with a password begins is no login; the one of a
    /// magic link that made the account is.
    logged_in: u64,
}

/// Get how far new accounts come.
///
/// Of the accounts that were made in a period: how many have verified their address, and how many have logged in, whenever that was.
/// Erased accounts count. Needs the permission `users:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/stats/funnel", tag = "admin", operation_id = "get_funnel",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, FunnelParams),
    responses((status = 200, description = "How many accounts came how far", body = FunnelBody),
        (status = 422, description = "`validation_failed`")))]
pub(super) async fn funnel(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<FunnelParams>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    let to = params.to.map_or_else(|| service.clock.now(), |time| time.0);
    let from = params.from.map_or_else(|| to.checked_sub(A_MONTH).unwrap_or(Timestamp::MIN), |time| time.0);
    if from >= to {
        return Err(out_of_range("from must be before to"));
    }
    service.wait_for_token(read_models::stats::NAME, token).await?;
    let funnel = service.models.stats().funnel(&app_id, from, to).await.map_err(refused)?;
    let read_models::stats::Funnel { registered, verified, logged_in } = funnel;
    Ok(answer(FunnelBody { from, to, registered, verified, logged_in }))
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[schema(as = RetentionGranularity)]
#[serde(rename_all = "snake_case")]
enum CohortWidth {
    #[default]
    Week,
    Month,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionParams {
    /// `week` (from Monday, the default) or `month`, in the time zone of the app.
    #[param(inline)]
    granularity: Option<CohortWidth>,
}

/// Who returns.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsRetention)]
pub(super) struct RetentionBody {
    /// The length of a cohort's period.
    granularity: CohortWidth,
    /// The time zone whose weeks or months they are.
    #[schema(example = "Europe/Zurich")]
    time_zone: String,
    /// The accounts of the last twelve weeks or months, this one included, the oldest first.
    cohorts: Vec<CohortBody>,
}

/// The accounts that were made in one week or month.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsCohort)]
struct CohortBody {
    /// The start of the week or month.
    #[schema(value_type = String, format = DateTime)]
    start: Timestamp,
    /// How many accounts were made, also by admins and imports.
    size: u64,
    /// How many of them logged in or refreshed a session in that week or month, in the next, and so on up to this one.
    active: Vec<u64>,
}

impl From<Cohort> for CohortBody {
    fn from(Cohort { start, size, active }: Cohort) -> Self {
        Self { start, size, active }
    }
}

/// Get how many users return.
///
/// The accounts of the last twelve weeks or months, and how many of each were in use then and in each later one. Erased accounts
/// count. Needs the permission `users:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/stats/retention", tag = "admin", operation_id = "get_retention",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, RetentionParams),
    responses((status = 200, description = "Cohorts, the oldest first", body = RetentionBody),
        (status = 422, description = "`validation_failed`")))]
pub(super) async fn retention(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<RetentionParams>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    let width = params.granularity.unwrap_or_default();
    let granularity = match width {
        CohortWidth::Week => Granularity::Week,
        CohortWidth::Month => Granularity::Month,
    };
    let app = service.authenticator.existing_app(&app_id).await?;
    let (time_zone, zone) = zone_of(&app.state);
    service.wait_for_token(read_models::stats::NAME, token).await?;
    let latest = (service.clock.now(), COHORTS);
    let cohorts =
        service.models.stats().retention(&app_id, &zone, granularity, latest).await.map_err(refused)?;
    let cohorts = cohorts.ok_or_else(|| Problem::internal("the clock is beyond the calendar"))?;
    let cohorts = cohorts.into_iter().map(CohortBody::from).collect();
    Ok(answer(RetentionBody { granularity: width, time_zone, cohorts }))
}
