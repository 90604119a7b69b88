//! Who could log in at a moment, and who had a role then.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use domain::app::App;
use domain::decisions::may_enter;
use domain::user::{User, UserEvent};
use domain::{Event, Permission, Role, Timestamp, UserId};
use http_kit::accept::preferred;
use http_kit::cookies::Credentials;
use http_kit::{AfterToken, AppScope, AsOf, Looking, Moment, Params, Problem, RequestContext};
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

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(read))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AccessParams {
    /// A time, or a position of the log; now by default.
    #[param(value_type = Option<String>, example = "2026-01-31T09:30:00Z")]
    as_of: Option<AsOf>,
    /// Instead of those who could log in, those who had this role, whether or not they could log in.
    role: Option<String>,
    /// Whether the table starts with a byte order mark, from which spreadsheets recognize UTF-8.
    bom: Option<bool>,
}

/// An account as it was at the moment.
#[derive(Serialize)]
struct EntryBody {
    user_id: Uuid,
    /// For callers with `users:read`, until the person is erased.
    email: Option<String>,
    email_verified: bool,
    roles: Vec<String>,
    banned: bool,
    /// Whether the app would have let them in with the right credentials.
    could_log_in: bool,
    created_at: Timestamp,
}

/// Read who could log in at a moment.
///
/// The accounts that the app would have let in then with the right credentials, in the order of their registration; with
/// `role`, those that had it. Each is folded from the log, as are the app's settings. Locks after failed logins do not
/// count: they are short. Members of a line are `user_id`, `email` (for callers with `users:read`, until the person is erased),
/// `email_verified`, `roles`, `banned`, `could_log_in` and `created_at`.
///
/// A JSON object a line or, with `Accept: text/csv`, a table. The header `As-Of-Position` names the last event that counts.
/// Needs the permission `audit:read`. The audit log shows the export.
#[utoipa::path(get, path = "/v1/apps/{app_id}/audit/access", tag = "audit", operation_id = "list_audit_access",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, AccessParams),
    responses((status = 200, description = "An account a line", content(
        (String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 422, description = "`validation_failed`")))]
async fn read(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    headers: HeaderMap,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<AccessParams>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::AuditRead).await?;
    let form = preferred(&headers, STREAMED)?;
    let role =
        params.role.as_deref().map(Role::parse).transpose().map_err(|error| {
            Problem::invalid_parameter("role", field_codes::INVALID_ROLE, error.to_string())
        })?;
    service.wait_for_journal(token).await?;
    let moment = match service.moment(params.as_of).await? {
        Some(moment) => moment,
        None => Moment { position: service.journal().head().await?, at: service.clock.now() },
    };
    let app = service.repository.load_as_of::<App>(&app_id, moment.position).await?.state;
    if app.id.is_none() {
        return Err(Problem::not_found());
    }
    service.wait_for(read_models::audit_log::NAME, moment.position).await?;
    let open = caller.may(Permission::UsersRead);
    let place = service.exports.take(applicant(&caller)).map_err(no_place)?;
    let looking = Looking::new(&request, &app_id, &caller.actor);
    service.access_log.exported(&looking, Some(&app_id), exported_as(form), None, open).await?;
    let registered = AuditFilter {
        app_id: Some(app_id),
        kinds: vec!["UserRegistered".to_owned()],
        ..AuditFilter::default()
    };
    let heading = (form == Form::Csv).then(|| heading(params.bom == Some(true), COLUMNS));
    let walk = Walk { service, filter: registered, after: 0, last: moment.position };
    let accounts = Accounts { walk, app, moment, role, open, form };
    Ok((moment, streamed(form, "access", heading, place, accounts)).into_response())
}

/// The accounts of an app that are streamed.
struct Accounts {
    /// Through the registrations.
    walk: Walk,
    /// As of the moment.
    app: App,
    moment: Moment,
    role: Option<Role>,
    /// Whether addresses are shown.
    open: bool,
    form: Form,
}

impl Pieces for Accounts {
    async fn next(&mut self) -> Result<Option<String>, Problem> {
        let Some(found) = self.walk.next().await? else { return Ok(None) };
        let repository = &self.walk.service.repository;
        let mut ids: Vec<UserId> = Vec::with_capacity(found.len());
        for event in found {
            if let Event::User(UserEvent::UserRegistered(event)) = repository.decode(&event).await? {
                ids.push(event.user_id);
            }
        }
        let users = repository.load_all_as_of::<User>(&ids, self.moment.position).await?;
        let mut text = String::new();
        for user in users {
            self.push(&mut text, &user.state)?;
        }
        Ok(Some(text))
    }
}

impl Accounts {
    fn push(&self, text: &mut String, user: &User) -> Result<(), Problem> {
        let could_log_in = may_enter(&self.app, user).is_ok();
        let is_meant =
            self.role.as_ref().map_or(could_log_in, |role| !user.erased && user.roles.contains(role));
        let Some(id) = user.id.filter(|_| is_meant) else { return Ok(()) };
        let body = EntryBody {
            user_id: id.0,
            email: user.email.as_ref().filter(|_| self.open).map(|email| email.as_str().to_owned()),
            email_verified: user.email_verified,
            roles: user.roles.iter().map(ToString::to_string).collect(),
            banned: user.banned,
            could_log_in,
            created_at: user.created_at,
        };
        if self.form == Form::Csv {
            body.push_row(text);
            return Ok(());
        }
        push_json(text, &body)
    }
}

const COLUMNS: &[&str] =
    &["user_id", "email", "email_verified", "roles", "banned", "could_log_in", "created_at"];

impl EntryBody {
    fn push_row(&self, text: &mut String) {
        push_row(
            text,
            &[
                &self.user_id.to_string(),
                self.email.as_deref().unwrap_or_default(),
                &self.email_verified.to_string(),
                &self.roles.join(" "),
                &self.banned.to_string(),
                &self.could_log_in.to_string(),
                &self.created_at.to_string(),
            ],
        );
    }
}
