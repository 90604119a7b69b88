//! The routes of a witness. Anybody may ask, so each request is bounded in length and in time.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::{Refusal, Request, Witness};

/// The longest body: the proof has at most 63 lines, and the rest is for signatures of other witnesses.
const MAX_BODY: usize = 128 * 1024;

/// The longest that a body may take to arrive, and a request to wait for its turn.
const BODY_TIME: Duration = Duration::from_secs(10);
const TURN_TIME: Duration = Duration::from_secs(10);

const TEXT: &str = "text/plain; charset=utf-8";
/// The kind of an answer that consists of the size of a tree.
const SIZE: &str = "text/x.tlog.size";

/// `add-checkpoint`, and the newest checkpoint of each log for whoever monitors it.
pub fn router(witness: Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin_hash}/checkpoint", get(checkpoint))
        .fallback(async || refused(StatusCode::NOT_FOUND, "there is nothing here"))
        .layer(DefaultBodyLimit::disable())
        .with_state(witness)
}

/// What names a log in the path of its checkpoint.
pub fn origin_hash(origin: &str) -> String {
    hex::encode(digest(&SHA256, origin.as_bytes()))
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Body) -> Response {
    let body = match tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => body,
        // The rest is not read: the connection ends.
        Ok(Err(_)) => return ended(refused(StatusCode::PAYLOAD_TOO_LARGE, "the body has more than 128 KiB")),
        Err(_) => return ended(refused(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
    };
    let Ok(body) = str::from_utf8(&body) else {
        return refusal(Refusal::Malformed("the body is not UTF-8"));
    };
    let request: Request = match body.parse() {
        Ok(request) => request,
        Err(malformed) => return refusal(malformed),
    };
    match tokio::time::timeout(TURN_TIME, witness.add(request)).await {
        Ok(Ok(signature)) => answer(StatusCode::OK, TEXT, signature.to_string()),
        Ok(Err(why)) => refusal(why),
        Err(_) => refusal(Refusal::Unavailable),
    }
}

async fn checkpoint(State(witness): State<Arc<Witness>>, Path(origin_hash): Path<String>) -> Response {
    match witness.newest(&origin_hash).await {
        Some(note) => answer(StatusCode::OK, TEXT, note),
        None => refused(StatusCode::NOT_FOUND, "this witness has signed no checkpoint of such a log"),
    }
}

fn refusal(why: Refusal) -> Response {
    let status = match why {
        Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        Refusal::UnknownLog => StatusCode::NOT_FOUND,
        Refusal::NotSigned => StatusCode::FORBIDDEN,
        Refusal::Inconsistent(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Conflict(size) => return answer(StatusCode::CONFLICT, SIZE, format!("{size}\n")),
    };
    refused(status, &why.to_string())
}

fn refused(status: StatusCode, why: &str) -> Response {
    answer(status, TEXT, format!("{why}\n"))
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response {
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, body).into_response()
}

fn ended(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
