//! An app's audit log: who did what, and when.
//! Longer than most, as the list and the export are one route, which answers in three forms.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use domain::access::{ExportForm, PersonalDataSource};
use domain::app::AppEvent;
use domain::{ApiKeyId, AppId, Email, Event, Permission, SessionId, Timestamp, UserId};
use futures::stream;
use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, VARY};
use http_kit::accept::preferred;
use http_kit::auth::{AdminCaller, Caller};
use http_kit::cookies::Credentials;
use http_kit::places::Place;
use http_kit::{AfterToken, AppScope, Looking, Page, Params, Problem, RequestContext, uncached};
use read_models::audit_log::AuditFilter;
use schemas::envelope::{ActorKind, RecordedEvent};
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
use crate::csv::{BOM, push_row};
use crate::events::{applicant, no_place};
use crate::filters;

/// How many events an export reads at a time.
const EXPORT_BATCH: u32 = 500;

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

/// The names of the API keys in a part of the log. They never change, and a key's own events come before those that it
/// made.
struct KeyNames {
    /// The app whose keys may be named; `None` for any app.
    only: Option<AppId>,
    /// `None`: looked up and not found.
    known: BTreeMap<ApiKeyId, Option<String>>,
}

impl KeyNames {
    /// An app's admins need not know the names of the platform's keys.
    fn of(caller: &AdminCaller, app_id: &AppId) -> Self {
        let of_platform = matches!(&caller.caller, Caller::ApiKey { app_id, .. } if app_id.is_platform());
        Self { only: Some(app_id.clone()).filter(|_| !of_platform), known: BTreeMap::new() }
    }

    fn get(&self, event: &RecordedEvent) -> Option<String> {
        self.known.get(&key_of(event)?).cloned().flatten()
    }

    /// Looks up the names for these events.
    async fn learn(&mut self, service: &ProjectionService, events: &[RecordedEvent]) -> Result<(), Problem> {
        let unknown: BTreeSet<ApiKeyId> =
            events.iter().filter_map(key_of).filter(|key| !self.known.contains_key(key)).collect();
        let unknown = Vec::from_iter(unknown);
        let made = service.models.audit_log().keys_made(&unknown).await.map_err(refused)?;
        self.known.extend(unknown.into_iter().map(|key| (key, None)));
        let mut positions: Vec<u64> = made.iter().map(|(_, position)| *position).collect();
        positions.sort_unstable();
        for event in service.journal().read_positions(&positions).await? {
            if self.only.as_ref().is_some_and(|app_id| *app_id != event.metadata.app_id) {
                continue;
            }
            if let Ok(Event::App(AppEvent::ApiKeyIssued(issued))) = service.repository.decode(&event).await {
                self.known.insert(issued.key_id, Some(issued.name));
            }
        }
        Ok(())
    }
}

/// The API key that made an event.
fn key_of(event: &RecordedEvent) -> Option<ApiKeyId> {
    let actor = &event.metadata.actor;
    let id = actor.id.as_ref().filter(|_| actor.kind == ActorKind::ApiKey)?;
    id.parse().ok().map(ApiKeyId)
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

/// What only the CSV form of an export needs.
struct Table {
    /// Whether personal parts are opened.
    open: bool,
    /// Whether it begins with a byte order mark, from which spreadsheets recognize the encoding.
    bom: bool,
    names: KeyNames,
}

/// The state of an export.
struct Export {
    service: Arc<ProjectionService>,
    filter: AuditFilter,
    form: Form,
    table: Table,
    after: u64,
    /// The last position when the export started: later events are not part of it, so that it ends.
    last: u64,
    ready: VecDeque<String>,
    done: bool,
    /// Released when the export ends.
    _place: Place,
}

fn export(
    service: Arc<ProjectionService>,
    filter: AuditFilter,
    range: RangeInclusive<u64>,
    form: Form,
    table: Table,
    place: Place,
) -> Response {
    let (after, last) = range.into_inner();
    let mut ready = VecDeque::new();
    let (media, name) = match form {
        Form::Csv => {
            let mut row = if table.bom { BOM.to_owned() } else { String::new() };
            push_row(
                &mut row,
                &[
                    "position",
                    "time",
                    "type",
                    "app_id",
                    "subject",
                    "user_id",
                    "actor_kind",
                    "actor_id",
                    "email",
                    "ip",
                    "data",
                    "actor_name",
                    "user_agent",
                    "reason",
                ],
            );
            ready.push_back(row);
            ("text/csv; charset=utf-8; header=present", "attachment; filename=\"audit.csv\"")
        }
        Form::Json | Form::Ndjson => ("application/x-ndjson", "attachment; filename=\"audit.ndjson\""),
    };
    let export = Export { service, filter, form, table, after, last, ready, done: false, _place: place };
    let lines = stream::unfold(export, async |mut export| {
        let text = export.next().await?;
        Some((text, export))
    });
    let mut response = uncached(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static(name));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

impl Export {
    /// The next chunk of the body. An error aborts the connection, so that a client cannot take a part for the whole.
    async fn next(&mut self) -> Option<Result<String, BrokenOff>> {
        if let Some(text) = self.ready.pop_front() {
            return Some(Ok(text));
        }
        if self.done {
            return None;
        }
        match self.read().await {
            Ok(text) if text.is_empty() => None,
            Ok(text) => Some(Ok(text)),
            Err(problem) => {
                tracing::warn!(code = problem.code(), "an export was aborted");
                self.done = true;
                Some(Err(BrokenOff))
            }
        }
    }

    async fn read(&mut self) -> Result<String, Problem> {
        let log = self.service.models.audit_log();
        let positions = log.positions(&self.filter, self.after, 0, EXPORT_BATCH).await.map_err(refused)?;
        let positions: Vec<u64> =
            positions.into_iter().take_while(|position| *position <= self.last).collect();
        self.done = positions.len() < EXPORT_BATCH as usize;
        let mut text = String::new();
        let events = self.service.journal().read_positions(&positions).await?;
        if self.form == Form::Csv {
            self.table.names.learn(&self.service, &events).await?;
        }
        for event in events {
            self.after = event.position;
            if self.form == Form::Csv {
                self.push_table_row(&mut text, &event).await;
            } else {
                text.push_str(&event.to_canonical_json(&self.service.origin));
                text.push('\n');
            }
        }
        Ok(text)
    }

    async fn push_table_row(&self, text: &mut String, event: &RecordedEvent) {
        let personal =
            if self.table.open { personal(&self.service, event).await } else { None }.unwrap_or_default();
        push_row(
            text,
            &[
                &event.position.to_string(),
                &event.at.to_string(),
                &event.name,
                event.metadata.app_id.as_str(),
                event.stream.as_str(),
                &event.person.map(|person| person.to_string()).unwrap_or_default(),
                event.metadata.actor.kind.as_str(),
                event.metadata.actor.id.as_deref().unwrap_or_default(),
                personal.email.as_deref().unwrap_or_default(),
                personal.ip.as_deref().unwrap_or_default(),
                &event.data,
                &self.table.names.get(event).unwrap_or_default(),
                personal.user_agent.as_deref().unwrap_or_default(),
                personal.reason.as_deref().unwrap_or_default(),
            ],
        );
    }
}

/// An export that cannot continue. The log says why.
#[derive(Debug, thiserror::Error)]
#[error("the export was aborted")]
struct BrokenOff;
