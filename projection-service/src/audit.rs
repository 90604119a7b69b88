//! An app's audit log: who did what, and when.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use domain::{Permission, Timestamp, UserId};
use futures::stream;
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, VARY};
use http_kit::cookies::Credentials;
use http_kit::places::Place;
use http_kit::{AfterToken, AppScope, Params, Problem, uncached};
use read_models::audit_log::AuditFilter;
use schemas::envelope::RecordedEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::ProjectionService;
use crate::answers::{List, answer, paging, position_after, position_cursor, refused};
use crate::csv::push_row;
use crate::events::{applicant, no_place};

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
    /// Events of this type.
    #[serde(rename = "type")]
    kind: Option<String>,
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
    user_id: Option<Uuid>,
    /// Who did it.
    actor: ActorBody,
    /// The same for all events that followed from one request.
    correlation_id: Uuid,
    /// The `X-Request-Id` of the request.
    request_id: Option<String>,
    /// What happened, in detail.
    #[schema(value_type = Object)]
    data: Value,
    /// What identifies the person: for callers with `users:read`, until the person is erased.
    personal: Option<PersonalBody>,
}

/// Who did it.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditActor)]
struct ActorBody {
    /// `user`, `api_key`, `system` or `anonymous`.
    kind: &'static str,
    /// The id of the user or the API key.
    id: Option<String>,
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
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Ndjson,
    Csv,
}

/// Read the audit log. With `Accept: application/x-ndjson` all matching events are exported as canonical `CloudEvents`,
/// personal parts sealed, one a line; with `text/csv` as a table.
#[utoipa::path(get, path = "/v1/apps/{app_id}/audit/events", tag = "audit", operation_id = "list_audit_events",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, AuditParams),
    responses((status = 200, description = "A page of events, oldest first", content(
        (List<AuditBody> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    headers: HeaderMap,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<AuditParams>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::AuditRead).await?;
    let open = caller.may(Permission::UsersRead);
    let paging = paging(params.limit, params.offset, params.cursor)?;
    let after = position_after(params.after)?;
    let after = position_cursor(paging.cursor.as_deref())?.unwrap_or(after);
    let filter = AuditFilter {
        app_id: Some(app_id),
        person: params.user_id.map(UserId),
        actor: params.actor,
        kind: params.kind,
        since: params.since,
        until: params.until,
    };
    service.wait_for_token("audit_log", token).await?;
    let form = form(&headers);
    if form != Form::Json {
        let place = service.exports.take(applicant(&caller)).map_err(no_place)?;
        return Ok(export(service, filter, after, form, open, place));
    }
    let (recorded, total, next_cursor) = page(&service, &filter, after, paging.offset, paging.limit).await?;
    let mut items = Vec::with_capacity(recorded.len());
    for event in recorded {
        items.push(body(&service, event, open).await);
    }
    let mut response = answer(List { items, total, next_cursor });
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// A page of the events that match, their number, and the cursor that goes on behind it.
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

fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let media = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    for media in media {
        match media.to_ascii_lowercase().as_str() {
            "application/x-ndjson" => return Form::Ndjson,
            "text/csv" => return Form::Csv,
            "application/json" | "application/*" | "*/*" => return Form::Json,
            _ => {}
        }
    }
    Form::Json
}

async fn body(service: &ProjectionService, event: RecordedEvent, open: bool) -> AuditBody {
    let personal = if open { personal(service, &event).await } else { None };
    let actor = event.metadata.actor;
    AuditBody {
        position: event.position,
        id: event.id,
        kind: event.name,
        time: event.at,
        app_id: event.metadata.app_id.to_string(),
        subject: event.stream.as_str().to_owned(),
        user_id: event.person.map(|person| person.0),
        actor: ActorBody { kind: actor.kind.as_str(), id: actor.id },
        correlation_id: event.metadata.correlation_id,
        request_id: event.metadata.request_id,
        // An auditor sees a damaged row as it is.
        data: serde_json::from_str(&event.data).unwrap_or(Value::String(event.data)),
        personal,
    }
}

/// The personal part, opened. An event that cannot be read is shown without it: the log must not end there.
async fn personal(service: &ProjectionService, event: &RecordedEvent) -> Option<PersonalBody> {
    event.personal.as_ref()?;
    let decoded = service.repository.decode(event).await;
    let decoded = decoded
        .inspect_err(
            |error| tracing::warn!(position = event.position, %error, "shown without its personal part"),
        )
        .ok()?;
    let personal = decoded.personal()?.clone();
    let body = PersonalBody {
        email: personal.email.map(String::from),
        name: personal.name,
        phone: personal.phone,
        avatar_url: personal.avatar_url,
        ip: personal.ip,
        user_agent: personal.user_agent,
    };
    (body != PersonalBody::default()).then_some(body)
}

/// Where an export stands.
struct Export {
    service: Arc<ProjectionService>,
    filter: AuditFilter,
    form: Form,
    open: bool,
    after: u64,
    /// Events after the start of the export are not part of it: it ends.
    last: u64,
    ready: VecDeque<String>,
    done: bool,
    /// Given back when the export ends.
    _place: Place,
}

fn export(
    service: Arc<ProjectionService>,
    filter: AuditFilter,
    after: u64,
    form: Form,
    open: bool,
    place: Place,
) -> Response {
    let last = *service.journal().watch_head().borrow();
    let mut ready = VecDeque::new();
    let (media, name) = match form {
        Form::Csv => {
            let mut row = String::new();
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
                ],
            );
            ready.push_back(row);
            ("text/csv; charset=utf-8; header=present", "attachment; filename=\"audit.csv\"")
        }
        Form::Json | Form::Ndjson => ("application/x-ndjson", "attachment; filename=\"audit.ndjson\""),
    };
    let export = Export { service, filter, form, open, after, last, ready, done: false, _place: place };
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
    /// The next piece of the body. A fault breaks the connection off, so that no one takes a part for the whole.
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
                tracing::warn!(code = problem.code(), "an export broke off");
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
        for event in self.service.journal().read_positions(&positions).await? {
            self.after = event.position;
            if self.form == Form::Csv {
                self.push_table_row(&mut text, &event).await;
            } else {
                text.push_str(&event.to_canonical_json());
                text.push('\n');
            }
        }
        Ok(text)
    }

    async fn push_table_row(&self, text: &mut String, event: &RecordedEvent) {
        let personal =
            if self.open { personal(&self.service, event).await } else { None }.unwrap_or_default();
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
            ],
        );
    }
}

/// An export that cannot go on. Why is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off")]
struct BrokenOff;
