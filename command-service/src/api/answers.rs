//! Successful answers, with the headers that all answers to commands carry.

use axum::Json;
use axum::response::Response;
use http::StatusCode;
use http_kit::answers::uncached;
use http_kit::consistency::ConsistencyToken;
use serde::Serialize;

/// Successful answers. Caches never store them; answers to commands carry the position for a later read to wait for.
pub(crate) struct Done;

impl Done {
    /// 200 with a body.
    pub fn ok(position: u64, body: impl Serialize) -> Response {
        uncached((StatusCode::OK, ConsistencyToken(position), Json(body)))
    }

    /// 201 with a body.
    pub fn created(position: u64, body: impl Serialize) -> Response {
        uncached((StatusCode::CREATED, ConsistencyToken(position), Json(body)))
    }

    /// 202 with a body. It carries no consistency token, which could reveal whether anything was done.
    pub fn accepted(body: impl Serialize) -> Response {
        uncached((StatusCode::ACCEPTED, Json(body)))
    }

    /// 204.
    pub fn no_content(position: u64) -> Response {
        uncached((StatusCode::NO_CONTENT, ConsistencyToken(position), ()))
    }

    /// 200 without a body.
    pub fn empty(position: u64) -> Response {
        uncached((StatusCode::OK, ConsistencyToken(position), ()))
    }

    /// 200 with a body, for a read.
    pub fn read(body: impl Serialize) -> Response {
        uncached(Json(body))
    }
}
