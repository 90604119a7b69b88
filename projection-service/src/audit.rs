//! An app's audit log.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use domain::access::{ExportForm, PersonalDataSource};
use domain::{AppId, Email, Permission, SessionId, Timestamp, UserId};
use event_store::StoreError;
use http::HeaderValue;
use http::header::VARY;
use http_kit::accept::preferred;
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::problem::{both, each};
use http_kit::{AfterToken, AppScope, Looking, Page, Params, Problem, RequestContext, Time};
use read_models::audit_log::AuditFilter;
use schemas::envelope::{Actor, RecordedEvent};
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
use crate::events::{EPOCH, applicant, epoch_of, no_place};
use crate::filters;
use crate::streamed::Form;
use export::{Table, export};
use key_names::KeyNames;

mod access;
mod export;
pub(crate) mod key_names;
mod lived;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(list)).merge(access::routes()).merge(lived::routes())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditParams {
    /// Only events about this user.
    user_id: Option<Uuid>,
    /// Only events by this actor: the id of a user or an API key, or `user`, `api_key`, `system`, `anonymous`.
    actor: Option<String>,
    /// Only events of these types, separated by commas.
    #[serde(rename = "type")]
    #[param(example = "LoginFailed,AccountLocked")]
    kind: Option<String>,
    /// Only events about this session.
    session_id: Option<Uuid>,
    /// Only events caused by a request from this address: for callers with `users:read`.
    #[param(example = "192.0.2.7")]
    ip: Option<String>,
    /// Only events about users who have or had this email address: for callers with `users:read`.
    #[param(example = "ada@example.com")]
    email: Option<String>,
    /// Only events at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Time>,
    /// Only events before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Time>,
    /// Only events after this position.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// The maximum number of entries: 1 to 200, 20 by default. Exports have no limit.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// Whether the table starts with a byte order mark, from which spreadsheets recognize UTF-8.
    bom: Option<bool>,
}

/// An entry of the audit log.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEvent)]
struct AuditBody {
    /// Its position in the journal.
    position: u64,
    /// The event's id.
    id: Uuid,
    /// The type of the event.
    #[serde(rename = "type")]
    #[schema(example = "SessionStarted")]
    kind: String,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// The app.
    app_id: String,
    /// The stream of the event.
    subject: String,
    /// The user it is about.
    #[schema(required)]
    user_id: Option<Uuid>,
    /// The actor.
    actor: ActorBody,
    /// Shared by all events that one request caused.
    correlation_id: Uuid,
    /// The `X-Request-Id` of the request.
    #[schema(required)]
    request_id: Option<String>,
    /// The data of the event.
    #[schema(value_type = Object)]
    data: Value,
    /// Personal data: for callers with `users:read`, until the person is erased.
    #[schema(required)]
    personal: Option<PersonalBody>,
    /// `true` if the user was erased: nobody can read the personal data of the event any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
    /// For these callers: `true` if the personal data cannot be read, although the person was not erased: their key is
    /// missing, as with a key store of an older backup, or the event was changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    damaged: bool,
}

/// The actor of an event.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditActor)]
pub(crate) struct ActorBody {
    /// `user`, `api_key`, `system` or `anonymous`.
    pub(crate) kind: &'static str,
    /// The id of the user or the API key.
    #[schema(required)]
    pub(crate) id: Option<String>,
    /// The name of the API key. Names of platform keys are visible only to the platform.
    #[schema(required)]
    pub(crate) name: Option<String>,
}

impl ActorBody {
    pub(crate) fn of(event: &RecordedEvent, names: &KeyNames) -> Self {
        let Actor { kind, id } = &event.metadata.actor;
        Self { kind: kind.as_str(), id: id.clone(), name: names.get(event) }
    }
}

/// The personal data of an event, without password hashes.
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
    /// The reason as free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The comma-separated types of a query; 422 for an unknown one.
pub(crate) fn kinds(text: Option<&str>) -> Result<Vec<String>, Problem> {
    let kinds = text.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    each(kinds.map(|kind| filters::known_type(kind).map(|()| kind.to_owned())))
}

impl AuditParams {
    /// The filter of these parameters. Whether an address occurs is itself personal data: a caller who may not read
    /// addresses may not filter by them.
    fn filter(&self, app_id: AppId, open: bool) -> Result<AuditFilter, Problem> {
        if !open && (self.ip.is_some() || self.email.is_some()) {
            return Err(
                Problem::forbidden().detail("the filters ip and email need the permission users:read")
            );
        }
        let ip = self.ip.as_deref().map(|ip| ip.trim().parse::<IpAddr>()).transpose();
        let ip =
            ip.map_err(|_| Problem::invalid_parameter("ip", field_codes::INVALID, "an IPv4 or IPv6 address"));
        let email = self.email.as_deref().map(Email::parse).transpose();
        let email = email
            .map_err(|_| Problem::invalid_parameter("email", problems::INVALID_EMAIL, "an email address"));
        let ((ip, email), kinds) = both(both(ip, email), kinds(self.kind.as_deref()))?;
        Ok(AuditFilter {
            app_id: Some(app_id),
            person: self.user_id.map(UserId),
            about_or_by: None,
            actor: self.actor.clone(),
            kinds,
            session: self.session_id.map(SessionId),
            ip,
            email,
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
        })
    }
}

type AuditEventPage = Page<AuditBody>;

const FORMS: &[(&str, Form)] =
    &[("application/json", Form::Json), ("application/x-ndjson", Form::Ndjson), ("text/csv", Form::Csv)];
/// The forms of what is only streamed.
const STREAMED: &[(&str, Form)] = &[("application/x-ndjson", Form::Ndjson), ("text/csv", Form::Csv)];

/// The form of an export as its record has it.
pub(crate) fn exported_as(form: Form) -> ExportForm {
    match form {
        Form::Csv => ExportForm::Csv,
        Form::Json | Form::Ndjson | Form::Text => ExportForm::Ndjson,
    }
}

/// Read the audit log of an app.
///
/// The app `platform` has the log of the platform's own keys, only for platform keys.
///
/// With `Accept: application/x-ndjson` all matching events are exported as canonical `CloudEvents`, one per line, with
/// their personal parts sealed; with `text/csv` they are exported as a table.
///
/// Reading personal data and exporting are events themselves: one per caller, person and hour.
///
/// The header `Journal-Epoch` is that of the events' own list, `GET /v1/apps/{app_id}/events`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/audit/events", tag = "audit", operation_id = "list_audit_events",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, AuditParams),
    responses((status = 200, description = "A page of events, oldest first", content(
        (AuditEventPage = "application/json"), (String = "application/x-ndjson"), (String = "text/csv")),
        headers(("Journal-Epoch" = String, description = "Changes when positions were given out anew"))),
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
    let filter = params.filter(app_id.clone(), open);
    let paging = paging(params.limit, params.offset, params.cursor);
    let ((filter, paging), after) = both(both(filter, paging), position_after(params.after))?;
    let after = position_cursor(paging.cursor.as_deref())?.unwrap_or(after);
    let looking = Looking::new(&request, &app_id, &caller.actor);
    let epoch = epoch_of(&service).await?;
    service.wait_for_token(read_models::audit_log::NAME, token).await?;
    let exported = match form {
        Form::Json | Form::Text => None,
        // The same bytes for every caller: personal data in them is sealed.
        Form::Ndjson => Some((ExportForm::Ndjson, false)),
        Form::Csv => Some((ExportForm::Csv, open)),
    };
    if let Some((exported, opened)) = exported {
        let place = service.exports.take(applicant(&caller)).map_err(no_place)?;
        let last = service.end_of(read_models::audit_log::NAME).await?;
        service.access_log.exported(&looking, Some(&app_id), exported, filter.person, opened).await?;
        let table = Table { open, bom: params.bom == Some(true), names: KeyNames::of(&caller, &app_id) };
        let mut response = export(service, filter, after..=last, form, table, place);
        response.headers_mut().insert(EPOCH, epoch);
        return Ok(response);
    }
    let (recorded, total, next_cursor) = page(&service, &filter, after, paging.offset, paging.limit).await?;
    let mut names = KeyNames::of(&caller, &app_id);
    names.learn(&service, &recorded).await?;
    let erased = erased(&service, &recorded).await?;
    let mut items = Vec::with_capacity(recorded.len());
    for event in recorded {
        let is_erased = event.person.is_some_and(|person| erased.contains(&person));
        items
            .push(AuditBody { erased: is_erased, ..body(&service, event, open && !is_erased, &names).await });
    }
    let shown = items.iter().filter(|item| item.personal.is_some());
    let people: BTreeSet<UserId> = shown.filter_map(|item| item.user_id.map(UserId)).collect();
    service.access_log.read(&looking, PersonalDataSource::Audit, people).await?;
    let mut response = answer(Page { items, total, next_cursor });
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response.headers_mut().insert(EPOCH, epoch);
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

/// The people of these events who were erased. The read model knows it as soon as it shows the event, even if their key is
/// still there; it may also lag behind the end of the key.
pub(crate) async fn erased(
    service: &ProjectionService,
    events: &[RecordedEvent],
) -> Result<BTreeSet<UserId>, Problem> {
    let people: BTreeSet<UserId> = events.iter().filter_map(|event| event.person).collect();
    let mut erased = service.models.audit_log().erased(&people).await.map_err(refused)?;
    let others: Vec<UserId> = people.difference(&erased).copied().collect();
    erased.extend(service.repository.sealer().keys().erased_among(&others).await?);
    Ok(erased)
}

async fn body(service: &ProjectionService, event: RecordedEvent, open: bool, names: &KeyNames) -> AuditBody {
    let opened = if open { personal(service, &event).await } else { Ok(None) };
    let actor = ActorBody::of(&event, names);
    AuditBody {
        position: event.position,
        id: event.id,
        kind: event.name,
        time: event.at,
        app_id: event.metadata.app_id.to_string(),
        subject: event.stream.as_str().to_owned(),
        user_id: event.person.map(|person| person.0),
        actor,
        correlation_id: event.metadata.correlation_id,
        request_id: event.metadata.request_id,
        // An auditor sees a damaged row unchanged.
        data: serde_json::from_str(&event.data).unwrap_or(Value::String(event.data)),
        erased: false,
        damaged: opened.is_err(),
        personal: opened.unwrap_or_default(),
    }
}

/// The opened personal part. An event whose part cannot be read is shown without it: the log must not end there.
async fn personal(
    service: &ProjectionService,
    event: &RecordedEvent,
) -> Result<Option<PersonalBody>, StoreError> {
    let opened = service.repository.personal(event).await;
    let opened = opened.inspect_err(
        |error| tracing::warn!(position = event.position, %error, "shown without its personal part"),
    );
    let mut personal = opened?.unwrap_or_default();
    if personal.reason.is_none() && event.name == "UserBanned" {
        // The first version of this event has the reason in clear text.
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
    Ok((body != PersonalBody::default()).then_some(body))
}
