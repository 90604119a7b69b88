//! What verifiers of access tokens need: the public keys of an app (RFC 7517).

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::signing_key::PublicJwk;
use http_kit::extract::AppScope;
use http_kit::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::keys::{CACHE_SECONDS, cacheable};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(jwks))
}

/// A JWK set (RFC 7517 section 5).
#[derive(Serialize, ToSchema)]
struct JwkSet {
    /// Previous, current and next keys of the app.
    #[schema(schema_with = http_kit::openapi::jwks)]
    keys: Vec<PublicJwk>,
}

/// Get the public keys of an app.
///
/// A JWK set (RFC 7517) that verifies access tokens. No key signs before it was published for the app's `key_propagation`
/// seconds, and keys stay until their tokens have expired: a set that is not older verifies every valid token, except after an
/// `emergency` rotation.
#[utoipa::path(get, path = "/v1/apps/{app_id}/.well-known/jwks.json", tag = "keys", operation_id = "get_jwks",
    params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "The keys", body = JwkSet)))]
async fn jwks(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    let app = service.authenticator.existing_app(&app_id).await?;
    let keys = app.state.published_keys(service.clock.now()).map(|key| key.public.clone()).collect();
    // No cache keeps it for longer than verifiers may.
    let seconds = CACHE_SECONDS.min(app.state.settings.key_propagation);
    Ok(cacheable(JwkSet { keys }, seconds))
}
