//! The history of one person in words: a line for each event.

mod words;

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use domain::access::PersonalDataSource;
use domain::user::User;
use domain::{Permission, Timestamp};
use http::HeaderValue;
use http::header::VARY;
use http_kit::accept::preferred;
use http_kit::cookies::Credentials;
use http_kit::problem::both;
use http_kit::{AfterToken, AppScope, Looking, Page, Params, Problem, RequestContext, Segments};
use read_models::audit_log::AuditFilter;
use schemas::envelope::RecordedEvent;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ProjectionService;
use crate::answers::{answer, paging, position_after, position_cursor};
use crate::audit::key_names::KeyNames;
use crate::audit::{ActorBody, erased, exported_as, page};
use crate::csv::{heading, push_row};
use crate::events::{applicant, no_place};
use crate::streamed::{Form, Pieces, Walk, push_json, streamed};
use crate::users::OneUser;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(read))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HistoryParams {
    /// Only events after this position.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// The maximum number of entries: 1 to 200, 20 by default. Other forms than JSON have no limit.
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

/// An event about a person, in words.
#[derive(Serialize, ToSchema)]
#[schema(as = HistoryEntry)]
struct EntryBody {
    /// Its position in the journal.
    position: u64,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// What happened, in English.
    #[schema(example = "Role editor granted")]
    what: String,
    /// The type of the event.
    #[serde(rename = "type")]
    #[schema(example = "RoleGranted")]
    kind: String,
    /// The actor.
    actor: ActorBody,
    /// The IP address of the request.
    #[schema(required)]
    ip: Option<String>,
    /// The user agent of the request.
    #[schema(required)]
    user_agent: Option<String>,
    /// The `X-Request-Id` of the request.
    #[schema(required)]
    request_id: Option<String>,
}

type HistoryEntryPage = Page<EntryBody>;

const FORMS: &[(&str, Form)] = &[
    ("application/json", Form::Json),
    ("application/x-ndjson", Form::Ndjson),
    ("text/csv", Form::Csv),
    ("text/plain", Form::Text),
];

/// Read a user's history in words.
///
/// Every event about the person, oldest first: of the account, its sessions, magic links, failed logins and mails, and who
/// read their data. Also of a person who was erased, then without personal data.
///
/// With `Accept: application/x-ndjson` or `text/plain` all of it is streamed, an event a line; with `text/csv` as a table.
///
/// Needs the permissions `users:read` and `audit:read`. The audit log shows who looked.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/users/{user_id}/history", tag = "admin",
    operation_id = "list_user_history", security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        AfterToken, HistoryParams),
    responses((status = 200, description = "A page of entries, oldest first", content(
        (HistoryEntryPage = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        (String = "text/plain"))),
        (status = 422, description = "`validation_failed`")))]
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
async fn read(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    headers: HeaderMap,
    AppScope(app_id): AppScope,
    Segments(path): Segments<OneUser>,
    token: AfterToken,
    Params(params): Params<HistoryParams>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    caller.require(Permission::AuditRead)?;
    let form = preferred(&headers, FORMS)?;
    let paging = paging(params.limit, params.offset, params.cursor);
    let (paging, after) = both(paging, position_after(params.after))?;
    let after = position_cursor(paging.cursor.as_deref())?.unwrap_or(after);
    service.wait_for_token(read_models::audit_log::NAME, token).await?;
    let user_id = path.user_id;
    let user = service.repository.load::<User>(&user_id).await?;
    // An erased person has a history, too.
    if user.state.app_id.as_ref() != Some(&app_id) {
        return Err(Problem::not_found());
    }
    let looking = Looking::new(&request, &app_id, &caller.actor);
    let mut names = KeyNames::of(&caller, &app_id);
    let filter =
        AuditFilter { app_id: Some(app_id.clone()), person: Some(user_id), ..AuditFilter::default() };
    if form == Form::Json {
        let (recorded, total, next_cursor) =
            page(&service, &filter, after, paging.offset, paging.limit).await?;
        service.access_log.read(&looking, PersonalDataSource::Audit, [user_id]).await?;
        let items = entries(&service, &recorded, &mut names).await?;
        let mut response = answer(Page { items, total, next_cursor });
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        return Ok(response);
    }
    let place = service.exports.take(applicant(&caller)).map_err(no_place)?;
    let last = service.end_of(read_models::audit_log::NAME).await?;
    service.access_log.exported(&looking, Some(&app_id), exported_as(form), Some(user_id), true).await?;
    let heading = (form == Form::Csv).then(|| heading(params.bom == Some(true), COLUMNS));
    let history = History { walk: Walk { service, filter, after, last }, form, names };
    Ok(streamed(form, "history", heading, place, history))
}

async fn entries(
    service: &ProjectionService,
    recorded: &[RecordedEvent],
    names: &mut KeyNames,
) -> Result<Vec<EntryBody>, Problem> {
    names.learn(service, recorded).await?;
    let mut entries = Vec::with_capacity(recorded.len());
    let erased = erased(service, recorded).await?;
    for event in recorded {
        let blank;
        let event = if event.person.is_some_and(|person| erased.contains(&person)) {
            blank = RecordedEvent { personal: None, ..event.clone() };
            &blank
        } else {
            event
        };
        entries.push(entry(service, event, names).await);
    }
    Ok(entries)
}

/// An event that cannot be read has a place in the history, too: it must not end there.
async fn entry(service: &ProjectionService, event: &RecordedEvent, names: &KeyNames) -> EntryBody {
    let what = match service.repository.decode(event).await {
        Ok(decoded) => words::words(&decoded),
        Err(error) => {
            tracing::warn!(position = event.position, %error, "shown without words");
            format!("{}, which cannot be read", event.name)
        }
    };
    let personal = service.repository.personal(event).await.ok().flatten().unwrap_or_default();
    EntryBody {
        position: event.position,
        time: event.at,
        what,
        kind: event.name.clone(),
        actor: ActorBody::of(event, names),
        ip: personal.ip,
        user_agent: personal.user_agent,
        request_id: event.metadata.request_id.clone(),
    }
}

/// A history that is streamed.
struct History {
    walk: Walk,
    form: Form,
    names: KeyNames,
}

impl Pieces for History {
    async fn next(&mut self) -> Result<Option<String>, Problem> {
        let Some(recorded) = self.walk.next().await? else { return Ok(None) };
        let mut text = String::new();
        for entry in entries(&self.walk.service, &recorded, &mut self.names).await? {
            match self.form {
                Form::Csv => entry.push_row(&mut text),
                Form::Text => entry.push_line(&mut text),
                Form::Json | Form::Ndjson => push_json(&mut text, &entry)?,
            }
        }
        Ok(Some(text))
    }
}

const COLUMNS: &[&str] = &[
    "time",
    "position",
    "what",
    "type",
    "actor_kind",
    "actor_id",
    "actor_name",
    "ip",
    "user_agent",
    "request_id",
];

impl EntryBody {
    fn push_row(&self, text: &mut String) {
        let optional = |member: &Option<String>| member.clone().unwrap_or_default();
        push_row(
            text,
            &[
                &self.time.to_string(),
                &self.position.to_string(),
                &self.what,
                &self.kind,
                self.actor.kind,
                &optional(&self.actor.id),
                &optional(&self.actor.name),
                &optional(&self.ip),
                &optional(&self.user_agent),
                &optional(&self.request_id),
            ],
        );
    }

    /// A line for people: what people typed must not look like another line.
    fn push_line(&self, text: &mut String) {
        let ActorBody { kind, id, name } = &self.actor;
        let actor = [Some(kind.replace('_', " ")), name.clone().or_else(|| id.clone())];
        let origin = [
            Some(format!("by {}", actor.into_iter().flatten().collect::<Vec<_>>().join(" "))),
            self.ip.as_ref().map(|ip| format!("from {ip}")),
            self.user_agent.as_ref().map(|agent| format!("with {agent}")),
            self.request_id.as_ref().map(|id| format!("request {id}")),
        ];
        let origin = origin.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let line = format!("{}  {}  {} ({origin})", self.time, self.position, self.what);
        text.extend(line.chars().map(|character| if character.is_control() { ' ' } else { character }));
        text.push('\n');
    }
}
