//! A user's live sessions, for themselves and for admins.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::access::PersonalDataSource;
use domain::session::{LoginMethod, Session, SessionEvent, SessionStarted};
use domain::user::User;
use domain::{AppId, Event, Permission, SessionId, Timestamp, UserId};
use http_kit::cookies::Credentials;
use http_kit::{
    AfterToken, AppScope, AsOf, Looking, Moment, Page, Params, Problem, RequestContext, Segments,
};
use read_models::audit_log::AuditFilter;
use read_models::sessions::SessionRow;
use read_models::{Paging, ReadError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::ProjectionService;
use crate::answers::{answer, paging, refused};
use crate::streamed::Walk;
use crate::users::{OneUser, existing_user, user_as_of};

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(own)).routes(routes!(of_user))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListSessions {
    /// The maximum number of items: 1 to 200, 20 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListUserSessions {
    /// The maximum number of items: 1 to 200, 20 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// A time, or a position of the log: the sessions that were live then.
    #[param(value_type = Option<String>, example = "2026-01-31T09:30:00Z")]
    as_of: Option<AsOf>,
}

type SessionPage = Page<SessionBody>;

/// A live session.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Session)]
struct SessionBody {
    /// Its id.
    id: Uuid,
    /// The user.
    user_id: Uuid,
    /// The login method: `password`, `registration`, `magic_link`, `admin`.
    method: String,
    /// The IP address it came from.
    #[schema(required)]
    ip: Option<String>,
    /// The user agent it came from.
    #[schema(required)]
    user_agent: Option<String>,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last refreshed.
    #[schema(value_type = String, format = DateTime)]
    last_used_at: Timestamp,
    /// When it expires unless refreshed.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// Whether it is the session that makes the request.
    current: bool,
}

/// List your own live sessions.
///
/// Newest first. The session that makes the request has `current: true`. A session that has just ended is not shown.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/sessions", tag = "sessions", operation_id = "list_own_sessions",
    security(("user" = [])), params(("app_id" = String, Path, description = "The app"), AfterToken, ListSessions),
    responses((status = 200, description = "A page of sessions, newest first", body = SessionPage)))]
async fn own(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<ListSessions>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let paging = paging(params.limit, params.offset, params.cursor)?;
    service.wait_for_token(read_models::sessions::NAME, token).await?;
    live(&service, &app_id, caller.user_id, Some(caller.session_id), &paging).await.map(answer)
}

/// List a user's live sessions.
///
/// Newest first. A session that has just ended is not shown. With `as_of`, the sessions that were live then, as they were: the
/// header `As-Of-Position` names the last event that counts. Needs the permission `users:read`. The audit log shows who
/// looked.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/users/{user_id}/sessions", tag = "admin",
    operation_id = "list_user_sessions", security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        AfterToken, ListUserSessions),
    responses((status = 200, description = "A page of sessions, newest first", body = SessionPage),
        (status = 422, description = "`validation_failed`")))]
async fn of_user(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(path): Segments<OneUser>,
    token: AfterToken,
    Params(params): Params<ListUserSessions>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    let paging = paging(params.limit, params.offset, params.cursor)?;
    let user_id = path.user_id;
    let looking = Looking::new(&request, &app_id, &caller.actor);
    let record = async || service.access_log.read(&looking, PersonalDataSource::Sessions, [user_id]).await;
    if params.as_of.is_some() {
        service.wait_for_journal(token).await?;
    }
    if let Some(moment) = service.moment(params.as_of).await? {
        let sessions = live_as_of(&service, &app_id, user_id, moment, &paging).await?;
        record().await?;
        return Ok((moment, answer(sessions)).into_response());
    }
    existing_user(&service, &app_id, user_id).await?;
    service.wait_for_token(read_models::sessions::NAME, token).await?;
    let sessions = live(&service, &app_id, user_id, None, &paging).await?;
    record().await?;
    Ok(answer(sessions))
}

/// The read model lists the sessions; whether each is active is decided from its aggregate, so that one that was just
/// ended is never shown, however far behind the read model is.
async fn live(
    service: &ProjectionService,
    app_id: &AppId,
    user_id: UserId,
    current: Option<SessionId>,
    paging: &Paging,
) -> Result<SessionPage, Problem> {
    let now = service.clock.now();
    let page = service.models.sessions().live(app_id, user_id, now, paging).await.map_err(refused)?;
    let user = service.repository.load::<User>(&user_id).await?;
    let mut items = Vec::with_capacity(page.items.len());
    let mut ended = 0;
    for row in page.items {
        let session = service.repository.load::<Session>(&row.session_id).await?;
        // Nor is another user's session shown, whatever the row says.
        let is_live = session.state.require_live(now).is_ok_and(|owner| owner.user_id == user_id);
        if is_live && user.state.keeps(&session.state) {
            items.push(body(row, &session.state, current));
        } else {
            ended += 1;
        }
    }
    Ok(Page { items, total: page.total.saturating_sub(ended), next_cursor: page.next_cursor })
}

fn body(row: SessionRow, session: &Session, current: Option<SessionId>) -> SessionBody {
    SessionBody {
        id: row.session_id.0,
        user_id: row.user_id.0,
        method: row.method,
        ip: row.ip,
        user_agent: row.user_agent,
        created_at: session.started_at,
        last_used_at: session.refreshed_at,
        expires_at: session.expires_at.min(session.idle_expires_at),
        current: current == Some(row.session_id),
    }
}

/// The sessions that were live at a moment. The audit log finds where the user's sessions began; whether each was live is
/// folded from the log.
async fn live_as_of(
    service: &Arc<ProjectionService>,
    app_id: &AppId,
    user_id: UserId,
    moment: Moment,
    paging: &Paging,
) -> Result<SessionPage, Problem> {
    let user = user_as_of(service, app_id, user_id, moment).await?;
    service.wait_for(read_models::audit_log::NAME, moment.position).await?;
    let kinds = vec!["SessionStarted".to_owned()];
    let (app_id, person) = (Some(app_id.clone()), Some(user_id));
    let begun = AuditFilter { app_id, person, kinds, ..AuditFilter::default() };
    let mut walk = Walk { service: Arc::clone(service), filter: begun, after: 0, last: moment.position };
    let mut live = Vec::new();
    while let Some(found) = walk.next().await? {
        let mut started = Vec::with_capacity(found.len());
        for event in found {
            if let Event::Session(SessionEvent::SessionStarted(event)) =
                service.repository.decode(&event).await?
                && event.user_id == user_id
                && moment.at < event.expires_at
            {
                started.push(event);
            }
        }
        let ids: Vec<SessionId> = started.iter().map(|event| event.session_id).collect();
        let sessions = service.repository.load_all_as_of::<Session>(&ids, moment.position).await?;
        for (started, session) in started.into_iter().zip(sessions) {
            let session = session.state;
            if session.require_live(moment.at).is_ok() && user.keeps(&session) {
                live.push(body(row(started), &session, None));
            }
        }
    }
    cut(live, paging)
}

/// What the read model would have of a session.
fn row(event: SessionStarted) -> SessionRow {
    let SessionStarted { session_id, user_id, app_id, method, personal, .. } = event;
    // The client of a session that an admin started is the admin's.
    let client = Some(personal).filter(|_| method != LoginMethod::Admin).unwrap_or_default();
    SessionRow {
        session_id,
        user_id,
        app_id: app_id.to_string(),
        method: method.as_str().to_owned(),
        started_at: event.at,
        refreshed_at: event.at,
        expires_at: event.expires_at,
        idle_expires_at: event.idle_expires_at,
        ip: client.ip,
        user_agent: client.user_agent,
    }
}

/// The page of a list that is known as a whole, newest first. Its cursor is the last item's id.
fn cut(mut all: Vec<SessionBody>, paging: &Paging) -> Result<SessionPage, Problem> {
    all.sort_by_key(|session| std::cmp::Reverse(session.id));
    let total = all.len() as u64;
    if let Some(cursor) = &paging.cursor {
        let last: Uuid = cursor.parse().map_err(|_| refused(ReadError::Cursor))?;
        all.retain(|session| session.id < last);
    }
    let mut items = all.split_off((paging.offset as usize).min(all.len()));
    let more = items.len() > paging.limit as usize;
    items.truncate(paging.limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Page { items, total, next_cursor })
}
