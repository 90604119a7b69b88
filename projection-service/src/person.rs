//! All that is held about one person, for that person (GDPR Art. 15) or for who answers them.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::access::ExportForm;
use domain::decisions::erase::is_fresh;
use domain::{AppId, Permission, Personal, Timestamp, UserId};
use http_kit::cookies::Credentials;
use http_kit::places::{Applicant, Place};
use http_kit::{AppScope, Looking, Problem, RequestContext, Segments};
use read_models::PersonalTable;
use read_models::audit_log::AuditFilter;
use schemas::envelope::{ActorKind, RecordedEvent};
use schemas::problems;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::ProjectionService;
use crate::answers::refused;
use crate::events::{applicant, no_place};
use crate::streamed::{Form, Pieces, Walk, streamed};
use crate::users::{OneUser, existing_user};

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(own)).routes(routes!(of_user))
}

/// All that is held about a person.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it is written in parts, and this describes the whole")]
#[schema(as = PersonalData)]
struct PersonBody {
    /// The person.
    user_id: Uuid,
    /// The app.
    app_id: String,
    /// When it was read.
    #[schema(value_type = String, format = DateTime)]
    exported_at: Timestamp,
    /// The position up to which the history was read.
    position: u64,
    /// All events about the person, and those that they caused, oldest first.
    events: Vec<PersonEvent>,
    /// The rows about the person in each table that is derived from the events.
    #[schema(value_type = Object)]
    read_models: Value,
}

/// An event in such an export.
#[derive(Serialize, ToSchema)]
#[schema(as = PersonalEvent)]
struct PersonEvent {
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
    /// The stream of the event.
    subject: String,
    /// The user it is about: the person, unless they only caused it.
    #[schema(required)]
    user_id: Option<Uuid>,
    /// Who caused it: `user`, `api_key`, `system` or `anonymous`.
    #[schema(example = "user")]
    actor_kind: &'static str,
    /// The id of the user or the API key.
    #[schema(required, example = "01900000-0000-7000-8000-000000000001")]
    actor_id: Option<String>,
    /// The data of the event.
    #[schema(value_type = Object)]
    data: Value,
    /// The personal data of the event, without password hashes and without where other people's requests came from.
    #[schema(required)]
    personal: Option<ExportedPersonal>,
}

/// The personal data of an event in such an export.
#[derive(Default, PartialEq, Serialize, ToSchema)]
struct ExportedPersonal {
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// The previous address, or the current one while a change is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_email: Option<String>,
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
    /// The app's `state` of the login that it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
}

/// Get all that is held about you.
///
/// Every event about you or caused by you, with personal data, and every row derived from them, as one JSON document. Left
/// out are password hashes, where the requests of others came from, and what is personal to others. The login must be at most ten minutes ago. The audit log records it.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/me/export", tag = "me", operation_id = "export_me",
    security(("user" = [])), params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "The data", body = PersonBody),
        (status = 403, description = "`reauthentication_required`")))]
async fn own(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    if !is_fresh(&caller.session.state, service.clock.now()) {
        return Err(Problem::new(problems::REAUTHENTICATION_REQUIRED));
    }
    let who = Applicant {
        app_id: Some(app_id.clone()),
        caller: Some(caller.user_id.0.as_u128()),
        is_platform: false,
        is_known: false,
    };
    let looking = Looking::new(&request, &app_id, &caller.actor());
    let place = service.own_exports.take(who).map_err(no_place)?;
    export(service, &looking, place, app_id, caller.user_id).await
}

/// Get all that is held about a user.
///
/// The same document that the user can get. Needs the permissions `users:read` and `audit:read`. The audit log records it.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/users/{user_id}/export", tag = "admin", operation_id = "export_user",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    responses((status = 200, description = "The data", body = PersonBody)))]
async fn of_user(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(path): Segments<OneUser>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    if !caller.may(Permission::AuditRead) {
        return Err(Problem::forbidden().detail("the export also needs the permission audit:read"));
    }
    existing_user(&service, &app_id, path.user_id).await?;
    let looking = Looking::new(&request, &app_id, &caller.actor);
    let place = service.exports.take(applicant(&caller)).map_err(no_place)?;
    export(service, &looking, place, app_id, path.user_id).await
}

async fn export(
    service: Arc<ProjectionService>,
    looking: &Looking<'_>,
    place: Place,
    app_id: AppId,
    person: UserId,
) -> Result<Response, Problem> {
    service.access_log.exported(looking, Some(&app_id), ExportForm::Person, Some(person), true).await?;
    let last = service.journal().head().await?;
    for projection in service.status() {
        service.wait_for(projection.name, last).await?;
    }
    let about = json!({
        "user_id": person.0,
        "app_id": app_id,
        "exported_at": service.clock.now(),
        "position": last,
    });
    // Its members are continued.
    let begin = format!("{},\"events\":[", about.to_string().trim_end_matches('}'));
    let filter =
        AuditFilter { app_id: Some(app_id.clone()), about_or_by: Some(person), ..AuditFilter::default() };
    let walk = Walk { service, filter, after: 0, last };
    let export = Export { walk, app_id, person, next: Next::Events, is_first: true };
    Ok(streamed(Form::Json, "person", Some(begin), place, export))
}

/// The state of an export.
struct Export {
    /// Through the events.
    walk: Walk,
    app_id: AppId,
    person: UserId,
    next: Next,
    /// Whether nothing was written yet to the list in progress.
    is_first: bool,
}

/// What is read next.
enum Next {
    Events,
    Rows { tables: VecDeque<PersonalTable>, skipped: usize },
    Nothing,
}

impl Pieces for Export {
    async fn next(&mut self) -> Result<Option<String>, Problem> {
        let piece = match mem::replace(&mut self.next, Next::Nothing) {
            Next::Events => self.events().await?,
            Next::Rows { tables, skipped } => self.rows(tables, skipped).await?,
            Next::Nothing => return Ok(None),
        };
        Ok(Some(piece))
    }
}

impl Export {
    async fn events(&mut self) -> Result<String, Problem> {
        let mut text = String::new();
        if let Some(events) = self.walk.next().await? {
            for event in events {
                let event = self.event(event).await?;
                self.push(&mut text, &event);
            }
            self.next = Next::Events;
        } else {
            let tables = self.walk.service.models.personal_tables().await.map_err(refused)?;
            text.push_str("],\"read_models\":{");
            begin_table(&mut text, tables.first());
            self.is_first = true;
            self.next = Next::Rows { tables: tables.into(), skipped: 0 };
        }
        Ok(text)
    }

    async fn rows(&mut self, mut tables: VecDeque<PersonalTable>, skipped: usize) -> Result<String, Problem> {
        let mut text = String::new();
        let Some(table) = tables.front() else {
            text.push_str("}}");
            return Ok(text);
        };
        let whose = (&self.app_id, self.person);
        let rows = self.walk.service.models.rows_about(whose, *table, skipped).await.map_err(refused)?;
        for row in &rows {
            self.push(&mut text, row);
        }
        let mut skipped = skipped + rows.len();
        if rows.is_empty() {
            (skipped, self.is_first) = (0, true);
            tables.pop_front();
            text.push(']');
            if !tables.is_empty() {
                text.push(',');
            }
            begin_table(&mut text, tables.front());
        }
        self.next = Next::Rows { tables, skipped };
        Ok(text)
    }

    /// Adds an item to the list in progress.
    fn push(&mut self, text: &mut String, item: &impl Serialize) {
        if !mem::replace(&mut self.is_first, false) {
            text.push(',');
        }
        text.push_str(&serde_json::to_string(item).expect("it is plain data"));
    }

    async fn event(&self, event: RecordedEvent) -> Result<PersonEvent, Problem> {
        let own = event.person == Some(self.person);
        let personal = self.walk.service.repository.personal(&event).await?.unwrap_or_default();
        let actor = event.metadata.actor;
        let is_own_request = actor.kind == ActorKind::Anonymous
            || actor.kind == ActorKind::User && actor.id == Some(self.person.to_string());
        // Where the request of somebody else, or of a backend, came from is theirs, and so is everything else in an event about
        // them.
        let Personal { ip, user_agent, .. } = personal.clone();
        let (ip, user_agent) = if is_own_request { (ip, user_agent) } else { (None, None) };
        let personal = if own { personal } else { Personal::default() };
        let personal = ExportedPersonal {
            email: personal.email.map(String::from),
            previous_email: personal.previous_email.map(String::from),
            name: personal.name,
            phone: personal.phone,
            avatar_url: personal.avatar_url,
            ip,
            user_agent,
            reason: personal.reason,
            state: personal.state,
        };
        Ok(PersonEvent {
            position: event.position,
            id: event.id,
            kind: event.name,
            time: event.at,
            subject: event.stream.as_str().to_owned(),
            user_id: event.person.map(|person| person.0),
            actor_kind: actor.kind.as_str(),
            actor_id: actor.id,
            data: serde_json::from_str(&event.data).unwrap_or(Value::String(event.data)),
            personal: (personal != ExportedPersonal::default()).then_some(personal),
        })
    }
}

fn begin_table(text: &mut String, table: Option<&PersonalTable>) {
    if let Some(table) = table {
        // The names of tables need no escaping.
        text.extend(["\"", table.name, "\":["]);
    }
}
