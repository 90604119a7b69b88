//! Issuing API keys: none is wider or lives longer than its issuer.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Reads;
use domain::app::{ApiKeyIssued, App, AppCommand, AppEvent};
use domain::{ApiKeyId, AppId, Event, Permission, Timestamp};
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body};
use http_kit::problem::{Problem, both, each};
use http_kit::reader::Time;
use http_kit::request::RequestContext;
use schemas::field_codes;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as NoPermission, StrDeserializer};
use serde::{Deserialize, Serialize};
use tokens::ApiKeyToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api_keys::authorize;
use crate::api_keys::list::ApiKeyBody;
use crate::apps::{check_name, refused};
use crate::callers::admin::OwnKey;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(issue))
}

/// A new API key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApiKey {
    /// The name of the key.
    #[schema(example = "backend", min_length = 1, max_length = 100)]
    name: String,
    /// Its permissions.
    #[schema(schema_with = http_kit::openapi::permissions)]
    permissions: Vec<String>,
    /// When it expires; never, if absent. A key that expires cannot issue one that expires later.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
}

/// A newly issued API key.
#[derive(Serialize, ToSchema)]
pub(crate) struct IssuedApiKey {
    #[serde(flatten)]
    api_key: ApiKeyBody,
    /// The text of the key, shown only once.
    #[schema(example = "wwk_…")]
    key: String,
}

/// Create an API key.
///
/// Only this answer shows the key's text (and its repetition under the same `Idempotency-Key`). A key gets no permission
/// that the caller lacks, and expires no later than the key that issued it.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/api-keys", tag = "keys", operation_id = "issue_api_key",
    params(("app_id" = String, Path, description = "The app")), request_body = NewApiKey,
    security(("api_key" = []), ("user" = [])),
    responses((status = 201, description = "The key, with its text", body = IssuedApiKey),
        (status = 409, description = "`too_many_api_keys`"),
        (status = 422, description = "`validation_failed`")))]
async fn issue(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<Body<NewApiKey>, Problem>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    let Body { value: body, idempotency } = body?;
    let (name, permissions) = both(check_name(&body.name), parse_permissions(&body.permissions))?;
    let expires_at = body.expires_at.map(|time| time.0);
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let (at, id) = (context.at, app_id.clone());
    let key_id = ApiKeyId(service.clock.new_id());
    let maker = caller.clone();
    let (mut reads, app_at) = Reads::one::<App>(&app_id);
    let own_key = OwnKey::read(&caller, &mut reads);
    let committed = service
        .run_as(&maker, context, reads, move |work| {
            // Checked in here: an `expires_at` that was in the future at first may be past when the request is
            // repeated.
            check(&id, &caller, &permissions, expires_at, at)?;
            require_shorter_life(expires_at, own_key.end(work))?;
            let (name, permissions) = (name.clone(), permissions.clone());
            let command = AppCommand::IssueApiKey { key_id, name, permissions, expires_at, at };
            work.execute(app_at, command).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    // Taken from the event, not from this request's `key_id`: a repetition gets the original key.
    let Some(issued) = committed.events.iter().find_map(issued_in) else {
        return Err(Problem::internal("the issued key is not among the committed events"));
    };
    let key = ApiKeyToken { app_id, key_id: issued.key_id }.encode(&service.tokens);
    let ApiKeyIssued { key_id: id, name, permissions, expires_at, at: created_at } = issued.clone();
    let answer = IssuedApiKey { api_key: ApiKeyBody { id, name, permissions, created_at, expires_at }, key };
    Ok(Done::created(committed.position, answer))
}

fn issued_in(event: &Event) -> Option<&ApiKeyIssued> {
    match event {
        Event::App(AppEvent::ApiKeyIssued(issued)) => Some(issued),
        _ => None,
    }
}

fn parse_permissions(texts: &[String]) -> Result<BTreeSet<Permission>, Problem> {
    let parse = |(at, text): (usize, &String)| {
        let text: StrDeserializer<'_, NoPermission> = text.as_str().into_deserializer();
        Permission::deserialize(text).map_err(|_| {
            let detail = "there is no such permission; the OpenAPI document lists them as `Permission`";
            Problem::invalid(format!("/permissions/{at}"), field_codes::INVALID, detail)
        })
    };
    each(texts.iter().enumerate().map(parse))
}

fn check(
    app_id: &AppId,
    caller: &AdminCaller,
    permissions: &BTreeSet<Permission>,
    expires_at: Option<Timestamp>,
    at: Timestamp,
) -> Result<(), Problem> {
    let invalid = |pointer: &str, detail: &str| Problem::invalid(pointer, field_codes::INVALID, detail);
    if permissions.is_empty() {
        return Err(invalid("/permissions", "at least one permission"));
    }
    let listed: Vec<Permission> = permissions.iter().copied().collect();
    if app_id.is_platform() && !Permission::fit_the_platform(&listed) {
        return Err(invalid(
            "/permissions",
            "a platform key has either the permission `platform` alone, or `metrics:read` or `audit:read` or both",
        ));
    }
    if !app_id.is_platform() && permissions.contains(&Permission::Platform) {
        return Err(invalid("/permissions", "only platform keys can have the permission `platform`"));
    }
    if expires_at.is_some_and(|end| end <= at) {
        return Err(invalid("/expires_at", "a time in the future"));
    }
    if permissions.contains(&Permission::MetricsRead) && !caller.is_platform() {
        return Err(Problem::forbidden()
            .detail("metrics cover every app: only a platform key can grant `metrics:read`"));
    }
    if !caller.full_admin && !permissions.is_subset(&caller.permissions) {
        return Err(Problem::forbidden().detail("a key cannot have more permissions than its issuer"));
    }
    Ok(())
}

/// A caller must not extend their access with a key that outlives their own.
fn require_shorter_life(expires_at: Option<Timestamp>, own_end: Option<Timestamp>) -> Result<(), Problem> {
    match own_end {
        Some(own_end) if expires_at.is_none_or(|end| end > own_end) => {
            let detail = format!("a key cannot outlive its issuer: set expires_at to {own_end} or earlier");
            Err(Problem::forbidden().detail(detail))
        }
        _ => Ok(()),
    }
}
