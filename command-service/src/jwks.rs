//! What verifiers of access tokens need: the public keys (RFC 7517) and where to find them (`OpenID` Connect Discovery).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use domain::signing_key::PublicJwk;
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use http_kit::extract::AppScope;
use http_kit::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::signing::algorithm_name;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .routes(routes!(jwks))
        .routes(routes!(openid_configuration))
        .route("/.well-known/jwks.json", get(jwks))
        .route("/.well-known/openid-configuration", get(openid_configuration))
        .route("/auth/.well-known/jwks.json", get(jwks))
        .route("/auth/.well-known/openid-configuration", get(openid_configuration))
}

/// A JWK set (RFC 7517 section 5).
#[derive(Serialize, ToSchema)]
struct JwkSet {
    /// Next, current and previous keys of the app.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<PublicJwk>,
}

/// Where the endpoints of an app are.
#[derive(Serialize, ToSchema)]
struct OpenIdConfiguration {
    issuer: String,
    jwks_uri: String,
    token_endpoint: String,
    userinfo_endpoint: String,
    introspection_endpoint: String,
    revocation_endpoint: String,
    grant_types_supported: [&'static str; 2],
    response_types_supported: [&'static str; 0],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: Vec<&'static str>,
    access_token_signing_alg_values_supported: Vec<&'static str>,
    claims_supported: [&'static str; 10],
}

/// The public keys of an app.
///
/// The next key is among them before it signs, so a verifier that reads this every few minutes misses none.
#[utoipa::path(get, path = "/v1/apps/{app_id}/.well-known/jwks.json", tag = "keys", operation_id = "get_jwks",
    params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "The keys", body = JwkSet)))]
async fn jwks(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    let app = service.authenticator.existing_app(&app_id).await?;
    let keys = app.state.published_keys(service.clock.now()).map(|key| key.public.clone()).collect();
    Ok(cacheable(JwkSet { keys }))
}

/// Where the endpoints of an app are.
#[utoipa::path(get, path = "/v1/apps/{app_id}/.well-known/openid-configuration", tag = "keys",
    operation_id = "get_openid_configuration", params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "The endpoints", body = OpenIdConfiguration)))]
async fn openid_configuration(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    let app = service.authenticator.existing_app(&app_id).await?;
    let issuer = service.signing.issuer(&app_id);
    let keys = app.state.published_keys(service.clock.now());
    let mut algorithms = keys.map(|key| algorithm_name(key.public.alg)).collect::<Vec<_>>();
    algorithms.sort_unstable();
    algorithms.dedup();
    Ok(cacheable(OpenIdConfiguration {
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        token_endpoint: format!("{issuer}/auth/login"),
        userinfo_endpoint: format!("{issuer}/auth/me"),
        introspection_endpoint: format!("{issuer}/auth/introspect"),
        revocation_endpoint: format!("{issuer}/auth/revoke"),
        issuer,
        grant_types_supported: ["password", "refresh_token"],
        response_types_supported: [],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: algorithms.clone(),
        access_token_signing_alg_values_supported: algorithms,
        claims_supported: [
            "iss",
            "sub",
            "aud",
            "client_id",
            "iat",
            "exp",
            "jti",
            "sid",
            "roles",
            "email_verified",
        ],
    }))
}

fn cacheable(body: impl Serialize) -> Response {
    let mut response = Json(body).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}
