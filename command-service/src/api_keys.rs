//! API keys of an app: what they may do is in the log, their text is derived and stored nowhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::app::{ApiKey, ApiKeyIssued, App, AppCommand, AppEvent};
use domain::{ApiKeyId, AppId, Event, Permission, Timestamp};
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Params, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as NoPermission, StrDeserializer};
use serde::{Deserialize, Serialize};
use tokens::ApiKeyToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::{Page, PageParams};
use crate::apps::{check_name, refused};
use crate::callers::admin::end_of_own_key;
use dispatcher::Read;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list, issue)).routes(routes!(revoke))
}

/// A new API key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApiKey {
    /// What it is for.
    #[schema(example = "backend", min_length = 1, max_length = 100)]
    name: String,
    /// What it may do.
    #[schema(schema_with = http_kit::openapi::permissions)]
    permissions: BTreeSet<String>,
    /// When it ends by itself; never, if absent. A key that ends makes none that ends later.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// An API key, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKeyBody {
    /// Its id, which is no secret.
    #[schema(value_type = Uuid)]
    id: ApiKeyId,
    /// What it is for.
    name: String,
    /// What it may do.
    #[schema(schema_with = http_kit::openapi::permissions)]
    permissions: BTreeSet<Permission>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// An API key that was just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct IssuedApiKey {
    #[serde(flatten)]
    api_key: ApiKeyBody,
    /// The key itself: shown this once.
    #[schema(example = "wwk_…")]
    key: String,
}

/// The API keys that can be used.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/api-keys", tag = "keys", operation_id = "list_api_keys",
    params(("app_id" = String, Path, description = "The app"), PageParams),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The keys, oldest first, without their texts", body = Page<ApiKeyBody>)))]
async fn list(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Params(page): Params<PageParams>,
) -> Result<Response, Problem> {
    authorize(&service, &app_id, &credentials).await?;
    let app = service.repository.load::<App>(&app_id).await?;
    let now = service.clock.now();
    let live = app.state.api_keys.iter().filter(|(_, key)| key.is_live(now));
    Ok(Done::read(page.of(live.map(|(id, key)| ApiKeyBody::of(*id, key)).collect())?))
}

impl ApiKeyBody {
    fn of(id: ApiKeyId, key: &ApiKey) -> Self {
        Self {
            id,
            name: key.name.clone(),
            permissions: key.permissions.clone(),
            created_at: key.created_at,
            expires_at: key.expires_at,
        }
    }
}

/// Make an API key.
///
/// The answer shows the key's text, which no later request does (but for a repetition under the same
/// `Idempotency-Key`). A key can only be given what the caller may do, and ends no later than the key that made it.
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
    let name = check_name(&body.name)?;
    let permissions = parse_permissions(&body.permissions)?;
    let expires_at = body.expires_at;
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let (at, id) = (context.at, app_id.clone());
    let key_id = ApiKeyId(service.clock.new_id());
    let maker = caller.clone();
    let committed = service
        .run_as(&maker, context, vec![Read::of::<App>(&app_id)], move |work| {
            // In here, since an end that lay ahead the first time may be past when the request is repeated.
            check(&id, &caller, &permissions, expires_at, at)?;
            require_shorter_life(expires_at, end_of_own_key(&caller, work))?;
            let (name, permissions) = (name.clone(), permissions.clone());
            let command = AppCommand::IssueApiKey { key_id, name, permissions, expires_at, at };
            work.execute::<App>(&id, command).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    // From the event, not from this request's `key_id`: a repetition gets the key of the first time.
    let Some(issued) = committed.events.iter().find_map(issued_in) else {
        return Err(Problem::internal("an issued key is not among its events"));
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

fn parse_permissions(texts: &BTreeSet<String>) -> Result<BTreeSet<Permission>, Problem> {
    let parse = |text: &String| {
        let text: StrDeserializer<'_, NoPermission> = text.as_str().into_deserializer();
        Permission::deserialize(text)
            .map_err(|error| Problem::invalid("/permissions", "invalid", error.to_string()))
    };
    texts.iter().map(parse).collect()
}

fn check(
    app_id: &AppId,
    caller: &AdminCaller,
    permissions: &BTreeSet<Permission>,
    expires_at: Option<Timestamp>,
    at: Timestamp,
) -> Result<(), Problem> {
    let invalid = |pointer: &str, detail: &str| Problem::invalid(pointer, "invalid", detail);
    if permissions.is_empty() {
        return Err(invalid("/permissions", "at least one permission"));
    }
    let of_the_platform = [Permission::Platform, Permission::MetricsRead].map(|one| BTreeSet::from([one]));
    if app_id.is_platform() && !of_the_platform.contains(permissions) {
        return Err(invalid(
            "/permissions",
            "a key of the platform has the one permission `platform`, or `metrics:read` alone",
        ));
    }
    if !app_id.is_platform() && permissions.contains(&Permission::Platform) {
        return Err(invalid("/permissions", "only keys of the platform have the permission `platform`"));
    }
    if expires_at.is_some_and(|end| end <= at) {
        return Err(invalid("/expires_at", "a time to come"));
    }
    if permissions.contains(&Permission::MetricsRead) && !caller.is_platform() {
        return Err(Problem::forbidden()
            .detail("metrics tell of every app: only a key of the platform can give `metrics:read`"));
    }
    if !caller.full_admin && !permissions.is_subset(&caller.permissions) {
        return Err(Problem::forbidden().detail("a key cannot be given more than its maker may do"));
    }
    Ok(())
}

/// Nobody is to go on with a key of their own making when the one that they were given is over.
fn require_shorter_life(expires_at: Option<Timestamp>, own_end: Option<Timestamp>) -> Result<(), Problem> {
    match own_end {
        Some(own_end) if expires_at.is_none_or(|end| end > own_end) => {
            let detail = format!("a key cannot outlive its maker: give an expires_at up to {own_end}");
            Err(Problem::forbidden().detail(detail))
        }
        _ => Ok(()),
    }
}

/// End an API key.
///
/// A key can end those that may do no more than itself.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/api-keys/{key_id}", tag = "keys", operation_id = "revoke_api_key",
    params(("app_id" = String, Path, description = "The app"), ("key_id" = Uuid, Path, description = "The key's id")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "It cannot be used any more")))]
async fn revoke(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(segments): Segments<KeySegments>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    let context = service.context(&request, &app_id, caller.actor.clone(), None);
    let (at, id) = (context.at, app_id.clone());
    let key_id = ApiKeyId(segments.key_id);
    let maker = caller.clone();
    let committed = service
        .run_as(&maker, context, vec![Read::of::<App>(&app_id)], move |work| {
            let wider = |key: &ApiKey| !key.permissions.is_subset(&caller.permissions);
            if !caller.full_admin && work.get::<App>(&id).api_keys.get(&key_id).is_some_and(wider) {
                return Err(
                    Problem::forbidden().detail("a key ends only those that may do no more than itself")
                );
            }
            work.execute::<App>(&id, AppCommand::RevokeApiKey { key_id, at }).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    Ok(Done::no_content(committed.position))
}

#[derive(Deserialize)]
struct KeySegments {
    key_id: Uuid,
}

/// Somebody who may manage the keys of this app. The platform's own keys are managed here, too, by one another.
async fn authorize(
    service: &CommandService,
    app_id: &AppId,
    credentials: &Credentials,
) -> Result<AdminCaller, Problem> {
    if !app_id.is_platform() {
        return service.authenticator.admin(app_id, credentials, Permission::KeysWrite).await;
    }
    match service.authenticator.platform(credentials).await {
        // To everybody else the platform's app is not there.
        Err(problem) if problem.code() == "forbidden" => Err(Problem::not_found()),
        result => result,
    }
}
