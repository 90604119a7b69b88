//! The public keys that sign checkpoints.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use event_store::checkpoint_keys::Standing;
use http_kit::Problem;
use http_kit::cookies::Credentials;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::plain;
use crate::ProjectionService;

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(keys))
}

/// Get the keys that sign checkpoints.
///
/// The public keys (C2SP vkeys), one a line, the newest first. After a rotation the key before it signs too, until its overlap is
/// over. Needs a platform key, or one with `audit:read`.
#[utoipa::path(get, path = "/v1/audit/key", tag = "audit", operation_id = "get_checkpoint_keys",
    security(("api_key" = [])),
    responses((status = 200, description = "The keys", body = String, content_type = "text/plain",
        example = json!("login.example.com+3a7f1c2e+AQID…\n"))))]
async fn keys(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
) -> Result<Response, Problem> {
    service.authenticator.auditor(&credentials).await?;
    let standing = Standing::of(&**service.journal()).await?;
    Ok(plain(service.notary.keyring().published(&standing.keys)?))
}
