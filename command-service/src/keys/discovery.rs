//! Where an app's endpoints are (`OpenID` Connect Discovery, RFC 8414).
//!
//! A document is served only where its issuer says that it is: below the issuer, and with its path behind the well-known
//! path. At the root of the host it would name another issuer than it was asked for (section 3.3).

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::AppId;
use http_kit::extract::AppScope;
use http_kit::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::keys::{CACHE_SECONDS, cacheable};

/// How clients authenticate at introspection: an API key as client secret (RFC 6749 section 2.3.1), or as bearer token.
const OF_CLIENTS: [&str; 3] = ["client_secret_basic", "client_secret_post", "Bearer"];
/// At revocation nobody has to.
const OF_ANYBODY: [&str; 3] = ["client_secret_basic", "client_secret_post", "none"];

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(openid_configuration)).routes(routes!(authorization_server))
}

/// Server metadata for clients and resource servers (RFC 8414): only what exists today. No member is empty.
#[derive(Serialize, ToSchema)]
struct OpenIdConfiguration {
    /// The `iss` of the app's access tokens. This document is served only where this issuer says (section 3.3).
    #[schema(format = "uri")]
    issuer: String,
    /// The JWK set that verifies them.
    #[schema(format = "uri")]
    jwks_uri: String,
    /// The introspection endpoint (RFC 7662).
    #[schema(format = "uri")]
    introspection_endpoint: String,
    /// The client id is the id of the app, the client secret an API key, which may be sent as a bearer token instead.
    #[schema(value_type = Vec<String>, example = json!(["client_secret_basic", "client_secret_post", "Bearer"]))]
    introspection_endpoint_auth_methods_supported: [&'static str; 3],
    /// The revocation endpoint (RFC 7009).
    #[schema(format = "uri")]
    revocation_endpoint: String,
    /// No authentication is needed: possession of a token is enough to revoke it.
    #[schema(value_type = Vec<String>, example = json!(["client_secret_basic", "client_secret_post", "none"]))]
    revocation_endpoint_auth_methods_supported: [&'static str; 3],
    /// Documentation for people.
    #[schema(format = "uri")]
    service_documentation: String,
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
    service.metadata(&app_id).await
}

/// Discover the endpoints of an app, as OAuth libraries do.
///
/// The same document at the path that RFC 8414 section 3.1 derives from the issuer. Where `public_url` has a path, that
/// stands between `oauth-authorization-server` and `/v1`.
#[utoipa::path(get, path = "/.well-known/oauth-authorization-server/v1/apps/{app_id}", tag = "keys",
    operation_id = "get_authorization_server_metadata", params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "The endpoints", body = OpenIdConfiguration),
        (status = 404, description = "`not_found`"), (status = 429, description = "`rate_limited`")))]
async fn authorization_server(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    service.metadata(&app_id).await
}

impl CommandService {
    async fn metadata(&self, app_id: &AppId) -> Result<Response, Problem> {
        self.authenticator.existing_app(app_id).await?;
        let issuer = self.signing.issuer(app_id);
        let document = OpenIdConfiguration {
            jwks_uri: format!("{issuer}/.well-known/jwks.json"),
            introspection_endpoint: format!("{issuer}/oauth2/introspect"),
            introspection_endpoint_auth_methods_supported: OF_CLIENTS,
            revocation_endpoint: format!("{issuer}/oauth2/revoke"),
            revocation_endpoint_auth_methods_supported: OF_ANYBODY,
            service_documentation: format!("{}/docs", self.access_tokens.public_url().as_str()),
            issuer,
        };
        Ok(cacheable(document, CACHE_SECONDS))
    }
}
