//! The newest signed checkpoint, and a new one on request.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_kit::Problem;
use http_kit::cookies::Credentials;
use http_kit::extract::NoBody;
use read_models::merkle_tree;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::plain;
use crate::ProjectionService;

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(newest, sign))
}

/// Get the newest signed checkpoint.
///
/// A signed note (C2SP): the name of the log, the number of events and the root of the tree over them, with the signatures of the
/// log and behind them those of witnesses. 404 before the first one. Needs a platform key, or one with `audit:read`.
#[utoipa::path(get, path = "/v1/audit/checkpoint", tag = "audit", operation_id = "get_checkpoint",
    security(("api_key" = [])),
    responses((status = 200, description = "The signed note", body = String, content_type = "text/plain",
        example = json!("login.example.com\n21\nLZxXyFxVGzMpL1jAT0LXSYPGlRtVGbpnBQFNbPqe5xk=\n\n\u{2014} login.example.com On8cLgEC…\n"))))]
async fn newest(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
) -> Result<Response, Problem> {
    service.authenticator.auditor(&credentials).await?;
    match service.notary.newest().await? {
        Some(kept) => Ok(plain(service.witnesses.note(&kept))),
        None => Err(Problem::not_found().detail("no checkpoint was signed yet: POST signs one")),
    }
}

/// Sign a checkpoint of now.
///
/// It covers every event that was acknowledged before the request. If there is none since the newest checkpoint, that is the
/// answer. Needs a platform key, or one with `audit:read`.
#[utoipa::path(post, path = "/v1/audit/checkpoint", tag = "audit", operation_id = "sign_checkpoint",
    security(("api_key" = [])),
    responses((status = 200, description = "The signed note", body = String, content_type = "text/plain",
        example = json!("login.example.com\n21\nLZxXyFxVGzMpL1jAT0LXSYPGlRtVGbpnBQFNbPqe5xk=\n\n\u{2014} login.example.com On8cLgEC…\n")),
        (status = 503, description = "`checkpoint_refused`, `projection_behind`")))]
async fn sign(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    service.authenticator.auditor(&credentials).await?;
    // What it does twice it does once: a key that repeats it is not needed.
    body?;
    let end = service.end_of(merkle_tree::NAME).await?;
    let kept = service.notary.sign(end).await?;
    Ok(plain(service.witnesses.note(&kept)))
}
