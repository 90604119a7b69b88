//! What verifiers of access tokens need: the public keys (RFC 7517) and where to find them (`OpenID` Connect Discovery).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
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

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(jwks)).routes(routes!(openid_configuration))
}

/// A JWK set (RFC 7517 section 5).
#[derive(Serialize, ToSchema)]
struct JwkSet {
    /// Next, current and previous keys of the app.
    #[schema(schema_with = http_kit::openapi::jwks)]
    keys: Vec<PublicJwk>,
}

/// Server metadata for clients and resource servers (RFC 8414): only what exists today. No member is empty.
#[derive(Serialize, ToSchema)]
struct OpenIdConfiguration {
    /// The `iss` of the app's access tokens. This document is served only below it (section 3.3).
    #[schema(format = "uri")]
    issuer: String,
    /// The JWK set that verifies them.
    #[schema(format = "uri")]
    jwks_uri: String,
    /// The introspection endpoint (RFC 7662).
    #[schema(format = "uri")]
    introspection_endpoint: String,
    /// Authentication is an API key as a bearer token.
    #[schema(value_type = Vec<String>, example = json!(["Bearer"]))]
    introspection_endpoint_auth_methods_supported: [&'static str; 1],
    /// The revocation endpoint (RFC 7009).
    #[schema(format = "uri")]
    revocation_endpoint: String,
    /// No authentication: possession of a token is enough to revoke it.
    #[schema(value_type = Vec<String>, example = json!(["none"]))]
    revocation_endpoint_auth_methods_supported: [&'static str; 1],
    /// Documentation for people.
    #[schema(format = "uri")]
    service_documentation: String,
}

/// Get the public keys of an app.
///
/// A JWK set (RFC 7517) that verifies access tokens. The next key is published before it signs, so a verifier that
/// refreshes the set every few minutes always has the right key.
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

/// Discover the endpoints of an app.
///
/// Server metadata for resource servers and clients (RFC 8414). It lists only what exists today.
#[utoipa::path(get, path = "/v1/apps/{app_id}/.well-known/openid-configuration", tag = "keys",
    operation_id = "get_openid_configuration", params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "The endpoints", body = OpenIdConfiguration)))]
async fn openid_configuration(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    service.authenticator.existing_app(&app_id).await?;
    let issuer = service.signing.issuer(&app_id);
    Ok(cacheable(OpenIdConfiguration {
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        introspection_endpoint: format!("{issuer}/auth/introspect"),
        introspection_endpoint_auth_methods_supported: ["Bearer"],
        revocation_endpoint: format!("{issuer}/auth/revoke"),
        revocation_endpoint_auth_methods_supported: ["none"],
        service_documentation: format!("{}/docs", service.access_tokens.public_url().as_str()),
        issuer,
    }))
}

fn cacheable(body: impl Serialize) -> Response {
    let mut response = Json(body).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}
