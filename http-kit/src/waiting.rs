//! The layer around the few routes of a process that waits for its stores. It does not yet know apps, keys or callers.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use event_store::Clock;
use http::{HeaderValue, header};
use schemas::problems;

use crate::heads::request_id;
use crate::problem::{ANSWERED, Answered, Problem};
use crate::request::X_REQUEST_ID;
use crate::unread::{Rest, Unread};

struct Waiting {
    clock: Arc<dyn Clock>,
    prefix: Arc<str>,
}

/// Wraps the routes of a process that waits for its stores: all other requests get 503 `unavailable`, with a request id
/// as usual. URLs in responses include this path ([`tokens::PublicUrl::prefix`]).
pub fn waiting(router: Router, clock: Arc<dyn Clock>, prefix: &str) -> Router {
    let state = Arc::new(Waiting { clock, prefix: prefix.into() });
    router
        .fallback(async || Problem::new(problems::UNAVAILABLE).retry_after(1))
        .method_not_allowed_fallback(async || Problem::new(problems::METHOD_NOT_ALLOWED))
        .layer(from_fn_with_state(state, handle))
}

async fn handle(State(state): State<Arc<Waiting>>, request: Request, next: Next) -> Response {
    let (request, unread) = Unread::watch(request, Rest::default());
    let request_id = request_id(request.headers(), || state.clock.new_id());
    let answered = Answered::new(Arc::clone(&request_id), Arc::clone(&state.prefix));
    let mut response = ANSWERED.scope(answered, next.run(request)).await;
    if let Some(unread) = unread
        && !unread.discard().await
    {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, HeaderValue::from_str(&request_id).expect("request ids are visible ASCII"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
