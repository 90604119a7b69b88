//! What happened, by hour, day, week or month.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::{AppId, OrganizationId, Permission, Timestamp};
use http_kit::cookies::Credentials;
use http_kit::{AfterToken, AppScope, Params, Problem, Time};
use jiff::SignedDuration;
use read_models::stats::{Bucket, Granularity, spans};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{out_of_range, zone_of};
use crate::ProjectionService;
use crate::answers::{answer, refused};
use crate::filters::known_organization;

const MAX_BUCKETS: usize = 10_000;
/// Each hour looks at the people of a whole day.
const MAX_HOURS: usize = 1000;
const BUCKETS_BY_DEFAULT: i64 = 30;

#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[schema(as = StatsGranularity)]
#[serde(rename_all = "snake_case")]
pub(super) enum Width {
    Hour,
    #[default]
    Day,
    Week,
    Month,
}

impl From<Width> for Granularity {
    fn from(width: Width) -> Self {
        match width {
            Width::Hour => Self::Hour,
            Width::Day => Self::Day,
            Width::Week => Self::Week,
            Width::Month => Self::Month,
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StatsParams {
    /// The start; 30 buckets before the end by default.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Time>,
    /// The end, excluded; now by default.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Time>,
    /// `hour`, `day` (the default), `week` (from Monday) or `month`, in the time zone of the app (the setting `time_zone`).
    #[param(inline)]
    granularity: Option<Width>,
    /// Only what happened to people who were members of this organization then. Needs `orgs:read` too.
    org_id: Option<Uuid>,
}

/// The statistics of a period.
#[derive(Serialize, ToSchema)]
#[schema(as = Stats)]
pub(super) struct StatsBody {
    /// The start.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// The end, excluded.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// The length of a bucket.
    granularity: Width,
    /// The time zone whose hours, days, weeks and months the buckets are.
    #[schema(example = "Europe/Zurich")]
    time_zone: String,
    /// How many sessions are live now: of everybody, or of those who are members of the organization now.
    live_sessions: u64,
    /// The non-empty buckets, in order.
    items: Vec<BucketBody>,
}

/// The statistics of an hour, a day, a week or a month.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsBucket)]
struct BucketBody {
    /// Its start.
    #[schema(value_type = String, format = DateTime)]
    start: Timestamp,
    /// Its end, excluded. A day has 23 or 25 hours where the clocks are changed.
    #[schema(value_type = String, format = DateTime)]
    end: Timestamp,
    /// New accounts, by method; none for an organization.
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
    /// The number of different users who logged in or refreshed.
    active_users: u64,
}

impl From<Bucket> for BucketBody {
    fn from(bucket: Bucket) -> Self {
        let Bucket { start, end, mut counts, active_users } = bucket;
        let mut take = |metric: &str| counts.remove(metric).unwrap_or_default();
        Self {
            start,
            end,
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
/// Registrations, logins, failures, refreshes, ended sessions and active users, by hour, day, week or month of the app's time zone,
/// with at most 10 000 buckets, or 1000 hours, in one answer. A bucket that lies only partly in the period counts in full. Erasing a person changes no
/// number. Needs the permission `users:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/stats", tag = "admin", operation_id = "get_stats",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, StatsParams),
    responses((status = 200, description = "Counts by time", body = StatsBody),
        (status = 422, description = "`validation_failed`")))]
pub(super) async fn stats(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<StatsParams>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    if params.org_id.is_some() {
        service.authenticator.admin(&app_id, &credentials, Permission::OrgsRead).await?;
    }
    let width = params.granularity.unwrap_or_default();
    let granularity = Granularity::from(width);
    let now = service.clock.now();
    let to = params.to.map_or(now, |time| time.0);
    let by_default = SignedDuration::from_hours(BUCKETS_BY_DEFAULT * granularity.hours());
    let from =
        params.from.map_or_else(|| to.checked_sub(by_default).unwrap_or(Timestamp::MIN), |time| time.0);
    if from >= to {
        return Err(out_of_range("from must be before to"));
    }
    let app = service.authenticator.existing_app(&app_id).await?;
    let (time_zone, zone) = zone_of(&app.state);
    let most = if granularity == Granularity::Hour { MAX_HOURS } else { MAX_BUCKETS };
    let spans = spans(&zone, granularity, (from, to), most)
        .ok_or_else(|| out_of_range(format!("at most {most} buckets")))?;
    let organization = params.org_id.map(OrganizationId);
    if let Some(organization) = organization {
        known_organization(&service.repository, &app_id, organization).await?;
    }
    service.wait_for_token(read_models::stats::NAME, token).await?;
    service.wait_for_token(read_models::sessions::NAME, token).await?;
    let buckets = service.models.stats().buckets(&app_id, organization, &spans).await.map_err(refused)?;
    let items = buckets.into_iter().map(BucketBody::from).collect();
    let live_sessions = live_sessions(&service, &app_id, organization, now).await?;
    Ok(answer(StatsBody { from, to, granularity: width, time_zone, live_sessions, items }))
}

async fn live_sessions(
    service: &ProjectionService,
    app_id: &AppId,
    organization: Option<OrganizationId>,
    now: Timestamp,
) -> Result<u64, Problem> {
    let members = match organization {
        Some(organization) => Some(service.models.stats().members(organization).await.map_err(refused)?),
        None => None,
    };
    service.models.sessions().count_live(app_id, members.as_deref(), now).await.map_err(refused)
}
