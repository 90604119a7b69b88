//! The layer around a route: what happens to each request before and after its route answers it ([`crate::request`] says
//! what it needs). Nothing that it reports contains personal data: it uses the route's template, never the path.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use domain::AppId;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;
use tower::Service;
use tracing::Instrument;

use crate::aliases::Alias;
use crate::arriving::Arriving;
use crate::compression::Compressing;
use crate::consistency::{CONSISTENCY_TOKEN, ConsistencyToken};
use crate::cookies::Credentials;
use crate::heads::known_method;
use crate::limits::address_key;
use crate::places::Applicant;
use crate::problem::{ANSWERED, Answered, PROBLEM_JSON, Problem, Refusal};
use crate::request::{Attached, PROBES, RequestLayer, Requester, X_REQUEST_ID, app_of};
use crate::trace::Span;
use crate::unread::Unread;

/// A route with the layer around it.
#[derive(Clone)]
pub(crate) struct Around<S> {
    edge: Arc<RequestLayer>,
    inner: S,
}

impl<S> Around<S> {
    pub(crate) fn new(edge: Arc<RequestLayer>, inner: S) -> Self {
        Self { edge, inner }
    }
}

impl<S> Service<Request> for Around<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (begun, request) = Begun::of(&self.edge, request);
        // Nothing happens before the future is polled, and nothing ever if the request is refused.
        let answering = self.inner.call(request);
        Box::pin(begun.answered(answering))
    }
}

/// A request that is being answered.
struct Begun {
    attached: Arc<Attached>,
    started: Instant,
    method: &'static str,
    /// The template of its route.
    route: String,
    requester: Requester,
    /// Whether the address is one of [`KnownAddresses`].
    is_known: bool,
    /// Why it is not answered by its route, if so.
    refusal: Option<Problem>,
    /// The page that sends it, if a browser says so.
    page: Option<Page>,
    is_head: bool,
    compressing: Option<Compressing>,
    unread: Option<Unread>,
    traced: Span,
}

/// A page that sends a request, as the browser says (<https://fetch.spec.whatwg.org/#http-requests>).
struct Page {
    origin: HeaderValue,
    /// The app of the path.
    app_id: Option<AppId>,
    /// It only asks whether it may send the request.
    is_preflight: bool,
}

impl Page {
    fn of(request: &Request, app_id: Option<&AppId>) -> Option<Self> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let origin = headers.get(header::ORIGIN)?.clone();
        Some(Self { origin, app_id: app_id.cloned(), is_preflight })
    }
}

impl Begun {
    fn of(edge: &Arc<RequestLayer>, request: Request) -> (Self, Request) {
        let started = Instant::now();
        let (mut request, unread) = Unread::watch(request, edge.rest);
        let method = known_method(request.method());
        let matched = request.extensions().get::<MatchedPath>().map(|path| {
            let alias = request.extensions().get::<Alias>();
            alias.map_or_else(|| path.as_str().to_owned(), |alias| alias.route(path.as_str()))
        });
        let (mut context, mut refusal) = edge.context(&request);
        let traced = Span::request(method, matched.as_deref(), context.traceparent.as_deref());
        context.traceparent = traced.traceparent().or(context.traceparent);
        let route = matched.unwrap_or_else(|| "unmatched".to_owned());
        let requester =
            Requester { app_id: app_of(request.uri().path()), address: address_key(context.address) };
        let is_known = edge.known.has(requester.address);
        let applicant = Applicant {
            app_id: requester.app_id.clone(),
            caller: Some(requester.address),
            is_platform: false,
            is_known: is_known
                || Credentials::new(request.method(), request.headers()).api_key(&edge.keys).is_some(),
        };
        let waits_for_body = Arriving::waits(request.method(), unread.is_some());
        let (arriving, no_place) = edge.room.enter(applicant, started, waits_for_body);
        // Probes are always answered: a busy process is not a failed one.
        if !PROBES.contains(&route.as_str()) {
            refusal = no_place.or(refusal);
        }
        let attached = Arc::new(Attached { edge: Arc::clone(edge), context, arriving });
        request.extensions_mut().insert(Arc::clone(&attached));
        let begun = Self {
            attached,
            started,
            method,
            route,
            is_known,
            refusal,
            page: Page::of(&request, requester.app_id.as_ref()),
            requester,
            is_head: *request.method() == Method::HEAD,
            compressing: edge.compress_from.and_then(|least| Compressing::of(&request, least)),
            unread,
            traced,
        };
        (begun, request)
    }

    /// The whole response to it.
    #[expect(clippy::manual_async_fn, reason = "that would hold what it captures twice")]
    fn answered(
        mut self,
        answering: impl Future<Output = Result<Response, Infallible>>,
    ) -> impl Future<Output = Result<Response, Infallible>> {
        async move {
            let attached = Arc::clone(&self.attached);
            let Attached { edge, context, arriving } = &*attached;
            let answered = Answered {
                requester: self.requester.clone(),
                ..Answered::new(Arc::clone(&context.request_id), Arc::clone(&edge.prefix))
            };
            let span = tracing::info_span!("request", request_id = %context.request_id, method = self.method, route = %self.route);
            // In one place: each of these futures would be larger, and longer to move, by it.
            let answering = pin!(answering);
            let answering = guarded(answering, self.refusal.take(), self.is_head);
            let answering = in_time(arriving, edge.request_time, self.started, answering);
            let answering = across_origins(edge, self.page.take(), answering);
            let mut answering = pin!(ANSWERED.scope(answered, answering));
            let response = self.traced.around(answering.as_mut().instrument(span)).await;

            arriving.is_answered();
            let has_credentials = answering.take_value().is_some_and(|it| it.has_credentials.get());
            if has_credentials && !self.is_known {
                edge.known.add(self.requester.address);
            }
            self.report(&response);
            Ok(self.finished(response).await)
        }
    }

    /// Tells log, metrics and trace of the response.
    fn report(&self, response: &Response) {
        let Self { attached, method, route, traced, .. } = self;
        let request_id = &attached.context.request_id;
        let status = response.status().as_u16();
        traced.set("http.response.status_code", i64::from(status));
        if status >= 500 {
            traced.fail(status.to_string());
        }
        if let Some(Refusal(code)) = response.extensions().get() {
            traced.set("watchword.problem", *code);
            metrics::counter!("watchword_refusals_total", "problem" => *code).increment(1);
        }
        let elapsed = self.started.elapsed();
        tracing::info!(target: "http", %request_id, method, %route, status, duration_ms = elapsed.as_secs_f64() * 1000.0);
        attached.edge.measured.add(route, method, status, elapsed);
    }

    /// Adds what every response has.
    async fn finished(self, mut response: Response) -> Response {
        if let Some(unread) = self.unread
            && !Box::pin(unread.discard()).await
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let consistency = response.extensions_mut().remove::<ConsistencyToken>();
        let headers = response.headers_mut();
        if let Some(token) = consistency {
            headers.insert(CONSISTENCY_TOKEN, self.attached.edge.consistency.header(token));
        }
        let id =
            HeaderValue::from_str(&self.attached.context.request_id).expect("request ids are visible ASCII");
        headers.insert(X_REQUEST_ID, id);
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        match self.compressing {
            Some(compressing) => compressing.apply(response).await,
            None => response,
        }
    }
}

/// The response, or a problem if it takes longer than this after all of the request has come.
async fn in_time(
    arriving: &Arriving,
    limit: Duration,
    started: Instant,
    answering: impl Future<Output = Response>,
) -> Response {
    // What was looked up before is part of it.
    let left = limit.saturating_sub(started.elapsed());
    tokio::select! {
        biased;
        response = answering => response,
        () = arriving.is_overdue(left) => Problem::overdue().into_response(),
    }
}

/// What a page of another origin may see of a response.
async fn across_origins(
    edge: &RequestLayer,
    page: Option<Page>,
    answering: impl Future<Output = Response>,
) -> Response {
    let Some(Page { origin, app_id, is_preflight }) = page else { return answering.await };
    let allowed = match (origin.to_str(), app_id) {
        // Boxed: few requests come from pages of others, and each would be larger by this.
        (Ok(text), Some(app_id)) => {
            let looked = Box::pin(edge.cross_origin(&app_id, text));
            tokio::time::timeout(edge.request_time / 2, looked).await.ok().flatten()
        }
        _ => None,
    };
    let mut response = if is_preflight && allowed.is_some() {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE");
        set(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, idempotency-key, consistency-token, last-event-id, x-request-id, x-csrf-token, \
             traceparent, device-token",
        );
        set(header::ACCESS_CONTROL_MAX_AGE, "600");
        response
    } else {
        answering.await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(allowed) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "consistency-token, journal-epoch, as-of-position, x-request-id, retry-after, ratelimit, ratelimit-policy, \
                 www-authenticate, device-token",
            ),
        );
        if allowed.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
    response
}

/// Every failure inside becomes a problem: a panic, or a refusal by axum or another library.
async fn guarded(
    answering: impl Future<Output = Result<Response, Infallible>>,
    refusal: Option<Problem>,
    is_head: bool,
) -> Response {
    if let Some(problem) = refusal {
        return problem.into_response();
    }
    let Ok(Ok(response)) = AssertUnwindSafe(answering).catch_unwind().await else {
        // The panic hook has logged it already.
        return Problem::internal("a handler panicked").into_response();
    };
    let status = response.status();
    // An HTML page can be a refusal too; no library creates one.
    let is_told = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == PROBLEM_JSON || kind.as_bytes().starts_with(b"text/html"));
    if !(status.is_client_error() || status.is_server_error()) || is_told || is_head {
        return response;
    }
    let mut problem = Problem::for_status(status).into_response();
    for name in [header::ALLOW, header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
        if let Some(value) = response.headers().get(&name) {
            problem.headers_mut().insert(name, value.clone());
        }
    }
    problem
}

#[cfg(test)]
#[path = "around_tests.rs"]
mod tests;
