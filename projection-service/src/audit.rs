//! An app's audit log: who did what, and when.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use domain::access::{ExportForm, PersonalDataSource};
use domain::{AppId, Email, Permission, SessionId, Timestamp, UserId};
use http::HeaderValue;
use http::header::VARY;
use http_kit::accept::preferred;
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::{AfterToken, AppScope, Looking, Page, Params, Problem, RequestContext};
use read_models::audit_log::AuditFilter;
use schemas::envelope::RecordedEvent;
use schemas::field_codes;
use schemas::problems;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::ProjectionService;
use crate::answers::{answer, paging, position_after, position_cursor, refused};
use crate::events::{applicant, no_place};
use crate::filters;
use export::{Table, export};
use key_names::KeyNames;

mod export;
mod key_names;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditParams {
    /// Events about this user.
    user_id: Option<Uuid>,
    /// Events by this actor: the id of a user or an API key, or `user`, `api_key`, `system`, `anonymous`.
    actor: Option<String>,
    /// Events of this type, or of one of several, separated by commas.
    #[serde(rename = "type")]
    #[param(example = "LoginFailed,AccountLocked")]
    kind: Option<String>,
    /// Events about this session.
    session_id: Option<Uuid>,
    /// Events that a request from this address made: for callers with `users:read`.
    #[param(example = "192.0.2.7")]
    ip: Option<String>,
    /// Events about whoever has this email address, or had it: for callers with `users:read`.
    #[param(example = "ada@example.com")]
    email: Option<String>,
    /// Events at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Events before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Events behind this position.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// How many at most: 1 to 200, 20 by default. Exports have no limit.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many to leave out first, at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Whether a table begins with a byte order mark, by which spreadsheets know that it is UTF-8.
    bom: Option<bool>,
}

/// An entry of the audit log.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEvent)]
struct AuditBody {
    /// Its place in the journal.
    position: u64,
    /// The event's id.
    id: Uuid,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(example = "SessionStarted")]
    kind: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// In which app.
    app_id: String,
    /// To what: the name of the stream.
    subject: String,
    /// The user it is about.
    #[schema(required)]
    user_id: Option<Uuid>,
    /// Who did it.
    actor: ActorBody,
    /// The same for all events that followed from one request.
    correlation_id: Uuid,
    /// The `X-Request-Id` of the request.
    #[schema(required)]
    request_id: Option<String>,
    /// What happened, in detail.
    #[schema(value_type = Object)]
    data: Value,
    /// What identifies the person: for callers with `users:read`, until the person is erased.
    #[schema(required)]
    personal: Option<PersonalBody>,
}

/// Who did it.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditActor)]
struct ActorBody {
    /// `user`, `api_key`, `system` or `anonymous`.
    kind: &'static str,
    /// The id of the user or the API key.
    #[schema(required)]
    id: Option<String>,
    /// The name of the API key. Those of the platform's keys are told to the platform alone.
    #[schema(required)]
    name: Option<String>,
}

/// What identifies the person. A password's hash is never among it.
#[derive(Default, PartialEq, Serialize, ToSchema)]
#[schema(as = AuditPersonal)]
struct PersonalBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    /// Why somebody did it, in their own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Ndjson,
    Csv,
}

/// The comma-separated types of a query; 422 for one that no event has.
pub(crate) fn kinds(text: Option<&str>) -> Result<Vec<String>, Problem> {
    let kinds = text.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    kinds.map(|kind| filters::known_type(kind).map(|()| kind.to_owned())).collect()
}

impl AuditParams {
    /// The filter of these parameters. Whether an address occurs is itself personal data: a caller who may not read it
    /// may not ask for it either.
    fn filter(&self, app_id: AppId, open: bool) -> Result<AuditFilter, Problem> {
        if !open && (self.ip.is_some() || self.email.is_some()) {
            return Err(
                Problem::forbidden().detail("the filters ip and email need the permission users:read")
            );
        }
        let ip = self.ip.as_deref().map(|ip| ip.trim().parse::<IpAddr>()).transpose();
        let ip = ip.map_err(|_| Problem::invalid("/ip", field_codes::INVALID, "an IPv4 or IPv6 address"))?;
        let email = self.email.as_deref().map(Email::parse).transpose();
        let email =
            email.map_err(|_| Problem::invalid("/email", problems::INVALID_EMAIL, "an email address"))?;
        Ok(AuditFilter {
            app_id: Some(app_id),
            person: self.user_id.map(UserId),
            actor: self.actor.clone(),
            kinds: kinds(self.kind.as_deref())?,
            session: self.session_id.map(SessionId),
            ip,
            email,
            since: self.since,
            until: self.until,
        })
    }
}

type AuditEventPage = Page<AuditBody>;

const FORMS: &[(&str, Form)] =
    &[("application/json", Form::Json), ("application/x-ndjson", Form::Ndjson), ("text/csv", Form::Csv)];

/// Read the audit log of an app.
///
/// The app `platform` has the log of the platform's own keys, for a platform key alone.
///
/// With `Accept: application/x-ndjson` all matching events are exported as canonical `CloudEvents`, one a line, with their
/// personal parts sealed; with `text/csv` they are exported as a table.
///
/// Reading personal data and exporting are events themselves: once for each caller, person and hour.
#[utoipa::path(get, path = "/v1/apps/{app_id}/audit/events", tag = "audit", operation_id = "list_audit_events",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, AuditParams),
    responses((status = 200, description = "A page of events, oldest first", content(
        (AuditEventPage = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    headers: HeaderMap,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<AuditParams>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    let open = caller.may(Permission::UsersRead);
    let form = preferred(&headers, FORMS)?;
    let filter = params.filter(app_id.clone(), open)?;
    let paging = paging(params.limit, params.offset, params.cursor)?;
    let after = position_after(params.after)?;
    let after = position_cursor(paging.cursor.as_deref())?.unwrap_or(after);
    let looking = Looking::new(&request, &app_id, &caller.actor);
    service.wait_for_token(read_models::audit_log::NAME, token).await?;
    let exported = match form {
        Form::Json => None,
        // The same bytes for every caller: personal data in them is sealed.
        Form::Ndjson => Some((ExportForm::Ndjson, false)),
        Form::Csv => Some((ExportForm::Csv, open)),
    };
    if let Some((exported, opened)) = exported {
        let place = service.exports.take(applicant(&caller)).map_err(no_place)?;
        let last = *service.journal().watch_head().borrow();
        service.access_log.exported(&looking, Some(&app_id), exported, filter.person, opened).await?;
        let table = Table { open, bom: params.bom == Some(true), names: KeyNames::of(&caller, &app_id) };
        return Ok(export(service, filter, after..=last, form, table, place));
    }
    let (recorded, total, next_cursor) = page(&service, &filter, after, paging.offset, paging.limit).await?;
    let mut names = KeyNames::of(&caller, &app_id);
    names.learn(&service, &recorded).await?;
    let mut items = Vec::with_capacity(recorded.len());
    for event in recorded {
        items.push(body(&service, event, open, &names).await);
    }
    let shown = items.iter().filter(|item| item.personal.is_some());
    let people: BTreeSet<UserId> = shown.filter_map(|item| item.user_id.map(UserId)).collect();
    service.access_log.read(&looking, PersonalDataSource::Audit, people).await?;
    let mut response = answer(Page { items, total, next_cursor });
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// A caller who may read this app's log. The platform's own log (its keys) is only for the platform; others get 404.
async fn authorize(
    service: &ProjectionService,
    app_id: &AppId,
    credentials: &Credentials,
) -> Result<AdminCaller, Problem> {
    if !app_id.is_platform() {
        return service.authenticator.admin(app_id, credentials, Permission::AuditRead).await;
    }
    match service.authenticator.platform(credentials).await {
        Err(problem) if problem.kind() == problems::FORBIDDEN => Err(Problem::not_found()),
        result => result,
    }
}

/// A page of the matching events, their number, and the cursor of the next page.
pub(crate) async fn page(
    service: &ProjectionService,
    filter: &AuditFilter,
    after: u64,
    offset: u32,
    limit: u32,
) -> Result<(Vec<RecordedEvent>, u64, Option<String>), Problem> {
    let log = service.models.audit_log();
    let total = log.count(filter).await.map_err(refused)?;
    let mut positions = log.positions(filter, after, offset, limit + 1).await.map_err(refused)?;
    let more = positions.len() > limit as usize;
    positions.truncate(limit as usize);
    let next_cursor = positions.last().filter(|_| more).map(u64::to_string);
    let recorded = service.journal().read_positions(&positions).await?;
    Ok((recorded, total, next_cursor))
}

async fn body(service: &ProjectionService, event: RecordedEvent, open: bool, names: &KeyNames) -> AuditBody {
    let personal = if open { personal(service, &event).await } else { None };
    let name = names.get(&event);
    let actor = event.metadata.actor;
    AuditBody {
        position: event.position,
        id: event.id,
        kind: event.name,
        time: event.at,
        app_id: event.metadata.app_id.to_string(),
        subject: event.stream.as_str().to_owned(),
        user_id: event.person.map(|person| person.0),
        actor: ActorBody { kind: actor.kind.as_str(), id: actor.id, name },
        correlation_id: event.metadata.correlation_id,
        request_id: event.metadata.request_id,
        // An auditor sees a damaged row unchanged.
        data: serde_json::from_str(&event.data).unwrap_or(Value::String(event.data)),
        personal,
    }
}

/// The opened personal part. An event whose part cannot be read is shown without it: the log must not end there.
async fn personal(service: &ProjectionService, event: &RecordedEvent) -> Option<PersonalBody> {
    let opened = service.repository.personal(event).await;
    let opened = opened.inspect_err(
        |error| tracing::warn!(position = event.position, %error, "shown without its personal part"),
    );
    let mut personal = opened.ok()?.unwrap_or_default();
    if personal.reason.is_none() && event.name == "UserBanned" {
        // The first version of this event has the reason in the clear.
        let decoded = service.repository.decode(event).await.ok();
        personal.reason = decoded.and_then(|it| it.personal().and_then(|personal| personal.reason.clone()));
    }
    let body = PersonalBody {
        email: personal.email.map(String::from),
        name: personal.name,
        phone: personal.phone,
        avatar_url: personal.avatar_url,
        ip: personal.ip,
        user_agent: personal.user_agent,
        reason: personal.reason,
    };
    (body != PersonalBody::default()).then_some(body)
}
