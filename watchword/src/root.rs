//! The routes at the root: health, metrics, documentation, schemas and problem pages.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use domain::LogOrigin;
use http_kit::cookies::Credentials;
use http_kit::problem::ProblemBody;
use http_kit::{Problem, Unchanging};
use schemas::event_schemas::Document;
use schemas::problems;
use serde_json::{Map, Value, json};
use tokens::PublicUrl;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::instance::Health;
use crate::{docs, metrics, problem_pages};

/// The document of all routes. Processes of one role serve it whole, too, because clients see one service. A test checks
/// that it matches the routes.
static OPENAPI: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../schemas/openapi.json")).expect("the committed document is JSON")
});

/// The document for this deployment's clients.
fn served_at(public_url: &PublicUrl) -> Value {
    let mut document = OPENAPI.clone();
    document["servers"] = json!([{ "url": public_url.as_str(), "description": "This deployment" }]);
    document
}

/// All routes of the instance, without the layer around requests.
pub fn router(
    health: Arc<Health>,
    services: OpenApiRouter,
    origin: LogOrigin,
    public_url: &PublicUrl,
) -> (Router, OpenApi) {
    let described = OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics_page))
        .with_state(health);
    let (router, api) = services.merge(described).split_for_parts();
    let api = crate::documents::complete(api);
    let document = served_at(public_url).to_string();
    let schema_list = list_of_schemas(public_url.prefix());
    let unchanging = Extension(Unchanging::default());
    let document = (unchanging, [(header::CONTENT_TYPE, "application/json")], Bytes::from(document));
    let router = router
        .merge(docs::routes())
        .route("/openapi.json", get(async || document))
        .route("/problems", get(problem_pages::index))
        .route("/problems/style.css", get(problem_pages::style))
        .route("/problems/{code}", get(problem_pages::one))
        .route("/asyncapi.json", get(asyncapi))
        .merge(
            Router::new()
                .route("/schemas", get(async || Json(schema_list)))
                .route("/schemas/{*path}", get(schema))
                .with_state(Arc::new(origin)),
        );
    (router, api)
}

/// The routes of the internal address: anybody who reaches it may see everything.
pub fn internal(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(async |State(health): State<Arc<Health>>| readiness(&health, true).await))
        .route("/metrics", get(async |State(health): State<Arc<Health>>| measured(&health)))
        .with_state(health)
}

/// The process answers.
#[derive(ToSchema)]
#[schema(as = Health)]
#[expect(dead_code, reason = "a description")]
struct Health200 {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: String,
}

/// The service can do its work.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description")]
struct Ready {
    /// Always `ready`.
    #[schema(example = "ready")]
    status: String,
    /// The components it depends on, and its background tasks.
    #[schema(value_type = Object)]
    checks: Value,
}

/// Check whether the process answers.
///
/// It checks nothing else: `/readyz` says whether the service can do its work.
#[utoipa::path(get, path = "/healthz", tag = "platform", operation_id = "get_health",
    responses((status = 200, description = "It does", body = Health200)))]
async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Check whether the service can do its work.
///
/// It checks the journal, and the projectors and relay that this process runs. The state of each part is public. Only the
/// platform sees positions, because a growing journal reveals which requests changed something.
#[utoipa::path(get, path = "/readyz", tag = "platform", operation_id = "get_readiness", security((), ("api_key" = [])),
    responses((status = 200, description = "It can", body = Ready),
        (status = 503, description = "`not_ready`: it cannot; `checks` says why", body = ProblemBody,
            content_type = "application/problem+json")))]
async fn readyz(State(health): State<Arc<Health>>, credentials: Credentials) -> Response {
    // A probe whose key is no longer valid gets the public state, like anybody else.
    let detailed = credentials.bearer().is_ok() && health.authenticator.platform(&credentials).await.is_ok();
    readiness(&health, detailed).await
}

async fn readiness(health: &Health, detailed: bool) -> Response {
    let (ready, mut checks) = health.check().await;
    if !detailed {
        checks = without_details(checks);
    } else if ready && let Some(signing_keys) = health.signing_keys().await {
        checks["signing_keys"] = signing_keys;
    }
    let instance = health.instance();
    if ready {
        return Json(json!({ "status": "ready", "instance": instance, "checks": checks })).into_response();
    }
    let instance = Value::from(instance);
    Problem::new(problems::NOT_READY).member("instance", instance).member("checks", checks).into_response()
}

/// The state of each part, without details.
fn without_details(checks: Value) -> Value {
    const WHERE: &str = "the log says why, and so does this route with a key of the platform";
    let one = |check: &Value| {
        let told = ["name", "ok", "state"].into_iter();
        let mut told: Map<String, Value> =
            told.filter_map(|member| Some((member.to_owned(), check.get(member)?.clone()))).collect();
        if check.get("detail").is_some() {
            told.insert("detail".to_owned(), WHERE.into());
        }
        Value::from(told)
    };
    let Value::Object(mut checks) = checks else { return Value::Null };
    // How much is stored is the platform's business.
    checks.remove("storage");
    let checks = checks.into_iter().map(|(name, check)| match check {
        Value::Array(parts) => (name, parts.iter().map(one).collect()),
        check => (name, one(&check)),
    });
    Value::Object(checks.collect())
}

/// Get metrics in the Prometheus text format.
///
/// For platform keys and keys with `metrics:read`: counts reveal who has an account. On the internal address no key is
/// needed.
#[utoipa::path(get, path = "/metrics", tag = "platform", operation_id = "get_metrics", security(("api_key" = [])),
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain"),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = ProblemBody, content_type = "application/problem+json")))]
async fn metrics_page(
    State(health): State<Arc<Health>>,
    credentials: Credentials,
) -> Result<Response, Problem> {
    health.authenticator.metrics(&credentials).await?;
    Ok(measured(&health))
}

fn measured(health: &Health) -> Response {
    health.measure();
    let text = metrics::render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

static ASYNCAPI: LazyLock<String> = LazyLock::new(|| crate::documents::asyncapi_document().to_string());

static COMPRESSED_ASYNCAPI: LazyLock<Unchanging> = LazyLock::new(Unchanging::default);

async fn asyncapi() -> Response {
    let unchanging = Extension(COMPRESSED_ASYNCAPI.clone());
    (unchanging, [(header::CONTENT_TYPE, "application/json")], ASYNCAPI.as_str()).into_response()
}

static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(schemas::event_schemas::all);

fn list_of_schemas(prefix: &str) -> Value {
    json!({ "items": SCHEMAS.keys().map(|path| format!("{prefix}/schemas/{path}")).collect::<Vec<_>>() })
}

/// Its `$id` is the `dataschema` that events name, wherever it is requested.
async fn schema(State(origin): State<Arc<LogOrigin>>, Path(path): Path<String>) -> Response {
    match SCHEMAS.get(&path).map(|schema| serde_json::to_string(&Document::new(schema, Some(&origin)))) {
        Some(Ok(schema)) => ([(header::CONTENT_TYPE, "application/schema+json")], schema).into_response(),
        Some(Err(error)) => Problem::internal(error).into_response(),
        None => Problem::not_found().into_response(),
    }
}
