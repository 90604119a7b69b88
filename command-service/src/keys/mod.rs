//! The keys that sign access tokens: their rotation, and their publication to verifiers.

pub(crate) mod discovery;
pub(crate) mod jwks;
pub(crate) mod rotation;

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

/// How long a public document may be kept.
const CACHE_SECONDS: u32 = 300;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().merge(discovery::routes()).merge(jwks::routes()).merge(rotation::routes())
}

fn cacheable(body: impl Serialize, seconds: u32) -> Response {
    let mut response = Json(body).into_response();
    let value = HeaderValue::try_from(format!("public, max-age={seconds}")).expect("visible ASCII");
    response.headers_mut().insert(CACHE_CONTROL, value);
    response
}
