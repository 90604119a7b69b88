//! Which sessions lived between two times, and what ended them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use domain::session::{LoginMethod, Session, SessionEvent, SessionStarted};
use domain::user::User;
use domain::{AppId, Event, Permission, Timestamp, UserId};
use event_store::repository::as_of::Passed;
use http_kit::accept::preferred;
use http_kit::cookies::Credentials;
use http_kit::{AfterToken, AppScope, Looking, Params, Problem, RequestContext, Time};
use jiff::SignedDuration;
use read_models::audit_log::AuditFilter;
use schemas::field_codes;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{STREAMED, exported_as};
use crate::ProjectionService;
use crate::csv::{heading, push_row};
use crate::events::{applicant, no_place};
use crate::streamed::{Form, Pieces, Walk, push_json, streamed};

/// No session lasts longer: the longest `refresh_token_ttl` and a day for clocks that were off.
const LONGEST: SignedDuration = SignedDuration::from_hours(366 * 24);

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(read))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct LivedParams {
    /// Only sessions that had not ended by this time.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Time>,
    /// Only sessions that began before this time; now by default.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Time>,
    /// Only sessions of this user.
    user_id: Option<Uuid>,
    /// Whether the table starts with a byte order mark, from which spreadsheets recognize UTF-8.
    bom: Option<bool>,
}

/// A session and its life.
#[derive(Serialize)]
struct LifeBody {
    session_id: Uuid,
    user_id: Uuid,
    method: &'static str,
    started_at: Timestamp,
    /// Absent while it lives.
    ended_at: Option<Timestamp>,
    /// The type of the event that ended it, or `expired`.
    ended_by: Option<String>,
    /// The position of that event.
    ended_position: Option<u64>,
    ip: Option<String>,
    user_agent: Option<String>,
}

/// Read which sessions lived between two times.
///
/// In the order in which they began, with what ended them: `ended_by` is the type of the event (`SessionRevoked`,
/// `UserBanned`, `PasswordChanged` …) at `ended_position`, or `expired`; all three are `null` while the session lives. Other
/// members of a line are `session_id`, `user_id`, `method`, `started_at`, and, for callers with `users:read`, `ip` and
/// `user_agent`.
///
/// A JSON object a line or, with `Accept: text/csv`, a table. Needs the permission `audit:read`. The audit log shows the
/// export.
#[utoipa::path(get, path = "/v1/apps/{app_id}/audit/sessions", tag = "audit", operation_id = "list_audit_sessions",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, LivedParams),
    responses((status = 200, description = "A session a line", content(
        (String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 422, description = "`validation_failed`")))]
async fn read(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    headers: HeaderMap,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<LivedParams>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::AuditRead).await?;
    let form = preferred(&headers, STREAMED)?;
    let now = service.clock.now();
    let from = params.from.map_or(Timestamp::MIN, |from| from.0);
    let until = params.until.map_or(now, |until| until.0);
    if until < from {
        let detail = "the end is before the beginning";
        return Err(Problem::invalid_parameter("until", field_codes::OUT_OF_RANGE, detail));
    }
    service.wait_for_token(read_models::audit_log::NAME, token).await?;
    let head = service.end_of(read_models::audit_log::NAME).await?;
    let open = caller.may(Permission::UsersRead);
    let place = service.exports.take(applicant(&caller)).map_err(no_place)?;
    let looking = Looking::new(&request, &app_id, &caller.actor);
    let person = params.user_id.map(UserId);
    service.access_log.exported(&looking, Some(&app_id), exported_as(form), person, open).await?;
    let begun = AuditFilter {
        app_id: Some(app_id.clone()),
        person,
        kinds: vec!["SessionStarted".to_owned()],
        since: from.checked_sub(LONGEST).ok(),
        until: Some(until),
        ..AuditFilter::default()
    };
    let heading = (form == Form::Csv).then(|| heading(params.bom == Some(true), COLUMNS));
    let walk = Walk { service, filter: begun, after: 0, last: head };
    let lives = Lives { walk, app_id, from, now, open, form };
    Ok(streamed(form, "sessions", heading, place, lives))
}

/// The sessions that are streamed.
struct Lives {
    /// Through the beginnings of sessions.
    walk: Walk,
    app_id: AppId,
    from: Timestamp,
    now: Timestamp,
    /// Whether personal parts are shown.
    open: bool,
    form: Form,
}

/// What ended a session.
struct End {
    at: Timestamp,
    by: String,
    position: Option<u64>,
}

impl Pieces for Lives {
    async fn next(&mut self) -> Result<Option<String>, Problem> {
        let Some(found) = self.walk.next().await? else { return Ok(None) };
        let repository = Arc::clone(&self.walk.service.repository);
        let mut users = BTreeMap::new();
        let mut text = String::new();
        for event in found {
            let decoded = repository.decode(&event).await?;
            let Event::Session(SessionEvent::SessionStarted(started)) = decoded else { continue };
            if started.app_id != self.app_id || started.expires_at <= self.from {
                continue;
            }
            let user = match users.entry(started.user_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let passed = repository.passed::<User>(&started.user_id, self.walk.last).await?;
                    new.insert(passed)
                }
            };
            let end = self.end(&started, event.position, user).await?;
            if end.as_ref().is_none_or(|end| end.at > self.from) {
                self.push(&mut text, started, end)?;
            }
        }
        Ok(Some(text))
    }
}

impl Lives {
    /// What ended the session first: an event of its own, one of its user, or time.
    async fn end(
        &self,
        started: &SessionStarted,
        position: u64,
        user: &[Passed<User>],
    ) -> Result<Option<End>, Problem> {
        let repository = &self.walk.service.repository;
        let passed = repository.passed::<Session>(&started.session_id, self.walk.last).await?;
        let Some(Passed { state: session, .. }) = passed.last() else { return Ok(None) };
        let last = session.expires_at.min(session.idle_expires_at);
        let expired = (last <= self.now).then(|| End { at: last, by: "expired".to_owned(), position: None });
        let of = |at: Timestamp, by: &str, position| End { at, by: by.to_owned(), position: Some(position) };
        let revoked = passed.iter().find(|passed| passed.state.revoked);
        let revoked = revoked.map(|passed| of(passed.at, &passed.name, passed.position));
        let ended = user.iter().find(|passed| {
            passed.position > position && (passed.state.erased || !passed.state.keeps(session))
        });
        let ended = ended.map(|passed| of(passed.at, &passed.name, passed.position));
        // An earlier event has the earlier position; what time ended first, no event ended.
        let by_event = [revoked, ended].into_iter().flatten().min_by_key(|end| end.position);
        Ok([by_event, expired].into_iter().flatten().min_by_key(|end| end.at))
    }

    fn push(&self, text: &mut String, started: SessionStarted, end: Option<End>) -> Result<(), Problem> {
        let SessionStarted { session_id, user_id, method, at, personal, .. } = started;
        // The client of a session that an admin started is the admin's.
        let client = Some(personal).filter(|_| self.open && method != LoginMethod::Admin).unwrap_or_default();
        let (ended_at, ended_by, ended_position) = match end {
            Some(End { at, by, position }) => (Some(at), Some(by), position),
            None => (None, None, None),
        };
        let body = LifeBody {
            session_id: session_id.0,
            user_id: user_id.0,
            method: method.as_str(),
            started_at: at,
            ended_at,
            ended_by,
            ended_position,
            ip: client.ip,
            user_agent: client.user_agent,
        };
        if self.form == Form::Csv {
            body.push_row(text);
            return Ok(());
        }
        push_json(text, &body)
    }
}

const COLUMNS: &[&str] = &[
    "session_id",
    "user_id",
    "method",
    "started_at",
    "ended_at",
    "ended_by",
    "ended_position",
    "ip",
    "user_agent",
];

impl LifeBody {
    fn push_row(&self, text: &mut String) {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
        push_row(
            text,
            &[
                &self.session_id.to_string(),
                &self.user_id.to_string(),
                self.method,
                &self.started_at.to_string(),
                &time(self.ended_at),
                self.ended_by.as_deref().unwrap_or_default(),
                &self.ended_position.map(|position| position.to_string()).unwrap_or_default(),
                self.ip.as_deref().unwrap_or_default(),
                self.user_agent.as_deref().unwrap_or_default(),
            ],
        );
    }
}
