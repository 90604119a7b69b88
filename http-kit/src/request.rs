//! The layer around every request: ids, the client's address, CORS, panics, logs, metrics and traces. Nothing that it
//! reports contains personal data: it uses the route's template, never the path.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use domain::AppId;
use domain::app::App;
use domain::user::Client;
use event_store::{Clock, InstanceKey, Repository};
use futures::FutureExt;
use http::request::Parts;
use http::{Extensions, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use ipnet::IpNet;
use schemas::envelope::{Actor, Metadata};
use schemas::problems;
use tokens::DerivedTokens;
use tower::ServiceExt;
use tracing::Instrument;
use uuid::Uuid;

use crate::aliases::{self, Alias, with_path};
use crate::arriving::{Arriving, BODIES, BodyTime};
use crate::compression::Compressing;
use crate::consistency::{CONSISTENCY_TOKEN, ConsistencyToken, ConsistencyTokens};
use crate::cookies::Credentials;
use crate::crowd::Crowd;
use crate::extract::NO_LAYER;
use crate::forwarded::{Forwarded, is_trusted};
use crate::heads::{WrongHead, is_idempotency_key, known_method, request_id, single};
use crate::known::{HasCredentials, KnownAddresses};
use crate::limits::address_key;
use crate::places::{Applicant, Places, Shares};
use crate::problem::{ANSWERED, Answered, PROBLEM_JSON, Problem, Refusal};
use crate::trace::{self, Span};
use crate::unread::{Rest, Unread};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What handlers may need to know about a request besides its content.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The `X-Request-Id` of the request, or a new one.
    pub request_id: String,
    /// Identifies everything that follows from this request.
    pub correlation_id: Uuid,
    /// The W3C trace context: that of the span, or the one of the request, if valid.
    pub traceparent: Option<String>,
    /// The origin of the request, as stored in events.
    pub client: Client,
    /// The client's address, for rate limits. Absent in tests without a connection.
    pub address: Option<IpAddr>,
    /// The `Idempotency-Key`. Its use is in the body extractors, see [`crate::extract::Body::idempotency`].
    pub idempotency_key: Option<String>,
}

impl RequestContext {
    /// The metadata of the events of this request.
    pub fn metadata(&self, app_id: AppId, actor: Actor) -> Metadata {
        Metadata {
            app_id,
            actor,
            correlation_id: self.correlation_id,
            causation_id: None,
            request_id: Some(self.request_id.clone()),
            traceparent: self.traceparent.clone(),
        }
    }

    pub(crate) fn of(extensions: &Extensions) -> Result<&Self, Problem> {
        extensions.get::<Arc<Self>>().map(Arc::as_ref).ok_or_else(|| Problem::internal(NO_LAYER))
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.extensions).cloned()
    }
}

/// The requester of the request that a task answers, as far as known before anything is looked up: for shares of scarce
/// resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requester {
    /// The app of the path.
    pub app_id: Option<AppId>,
    /// A number for each client address.
    pub address: u128,
}

impl Requester {
    /// The requester of the request that this task answers; the default outside requests.
    pub fn current() -> Self {
        ANSWERED.try_with(|answered| answered.requester.clone()).unwrap_or_default()
    }
}

/// Hashes what makes a request the same request.
#[derive(Clone)]
pub(crate) struct IdempotencyKeys(Arc<hmac::Key>);

impl IdempotencyKeys {
    pub(crate) fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}

/// What stands before the path of an issuer where its metadata are (RFC 8414 section 3.1).
const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";

/// Routes that inspect the process rather than use it.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What the layer needs.
pub struct RequestLayer {
    repository: Arc<Repository>,
    clock: Arc<dyn Clock>,
    trusted_proxies: Vec<IpNet>,
    idempotency: IdempotencyKeys,
    consistency: ConsistencyTokens,
    in_flight: Places,
    bodies: Arc<Crowd>,
    body_time: BodyTime,
    known: KnownAddresses,
    keys: DerivedTokens,
    rest: Rest,
    /// In bytes; None: nothing is compressed.
    compress_from: Option<u64>,
    prefix: Arc<str>,
    forwarded: Forwarded,
}

impl RequestLayer {
    /// `X-Forwarded-For` is trusted only if it comes from one of the trusted proxies.
    pub fn new(
        repository: Arc<Repository>,
        clock: Arc<dyn Clock>,
        instance: &InstanceKey,
        trusted_proxies: Vec<IpNet>,
    ) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*instance.derive("watchword/v1/idempotency"));
        let (idempotency, consistency) = (IdempotencyKeys(Arc::new(key)), ConsistencyTokens::new(instance));
        let unbounded = usize::MAX;
        let in_flight = Places::new(Shares {
            total: unbounded,
            of_an_app: unbounded,
            of_a_caller: unbounded,
            reserve: 0,
        });
        Self {
            repository,
            clock,
            trusted_proxies,
            idempotency,
            consistency,
            in_flight,
            bodies: Crowd::new(unbounded, BODIES),
            body_time: BodyTime::default(),
            known: KnownAddresses::default(),
            keys: DerivedTokens::new(instance),
            rest: Rest::default(),
            compress_from: Some(1024),
            prefix: Arc::default(),
            forwarded: Forwarded::default(),
        }
    }

    /// Clients see everything below this path ([`tokens::PublicUrl::prefix`]), so this layer's responses include it in
    /// URLs.
    #[must_use]
    pub fn below(self, prefix: &str) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Limits concurrent requests; further ones get 503 `overloaded`. A request counts from when all of it is there until
    /// its response begins: streams that continue after that are limited where they are made. A caller is an address
    /// here. As many bodies may arrive at the same time.
    #[must_use]
    pub fn limited_to(self, shares: Shares, body_time: BodyTime) -> Self {
        let bodies = Crowd::new(shares.total, BODIES);
        Self { in_flight: Places::new(shares), bodies, body_time, ..self }
    }

    /// Limits what is read of a body after its response was made.
    #[must_use]
    pub fn discarding(self, rest: Rest) -> Self {
        Self { rest, ..self }
    }

    /// Compresses responses of at least so many bytes for clients that ask for it; `None`: none.
    #[must_use]
    pub fn compressing_from(self, bytes: Option<u64>) -> Self {
        Self { compress_from: bytes, ..self }
    }

    /// The context, and a refusal if a header that must not be ignored is wrong.
    fn context(&self, request: &Request) -> (RequestContext, Option<Problem>) {
        let headers = request.headers();
        let correlation_id = self.clock.new_id();
        let request_id = request_id(headers).unwrap_or_else(|| correlation_id.to_string());
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let address = peer.map(|peer| self.forwarded.client_address(peer, headers, &self.trusted_proxies));
        if let Some(peer) = peer
            && !is_trusted(peer.to_canonical(), &self.trusted_proxies)
            && !PROBES.contains(&request.uri().path())
            && self.forwarded.notices(peer, headers)
        {
            tracing::warn!(
                "all requests so far came from one address, or a few, and say that they are passed on for others, which is not \
                 believed: all clients share one rate limit, and sessions and the audit log show that address. If it is your \
                 proxy, set trusted_proxies (WATCHWORD_TRUSTED_PROXIES) to its network"
            );
        }
        let user_agent = headers.get(header::USER_AGENT).map(|value| {
            // Header bytes need not be text, and this many characters are enough.
            String::from_utf8_lossy(value.as_bytes()).chars().filter(|c| !c.is_control()).take(256).collect()
        });
        let mut context = RequestContext {
            request_id,
            correlation_id,
            traceparent: single(headers, &TRACEPARENT)
                .filter(|it| trace::parse(it).is_some())
                .map(str::to_owned),
            client: Client { ip: address.map(|address| address.to_string()), user_agent },
            address,
            idempotency_key: None,
        };
        let key = single(headers, &IDEMPOTENCY_KEY).filter(|key| is_idempotency_key(key));
        context.idempotency_key = key.map(str::to_owned);
        let wrong = (headers.contains_key(IDEMPOTENCY_KEY) && context.idempotency_key.is_none())
            .then_some(("Idempotency-Key", "must be 1 to 255 visible ASCII characters, once"));
        let wrong = request.extensions().get::<WrongHead>().map(|wrong| ("Host", wrong.0)).or(wrong);
        (context, wrong.map(|(name, detail)| Problem::malformed_header(name, detail)))
    }

    /// The app whose origins may call a path, if it is a path of an app.
    async fn cross_origin(&self, path: &str, origin: &str) -> Option<CrossOrigin> {
        let app_id = app_of(path)?;
        let app = self.repository.load::<App>(&app_id).await.ok()?;
        let settings = &app.state.settings;
        let allowed = app.state.id.is_some() && settings.origins.iter().any(|known| known.as_str() == origin);
        allowed.then_some(CrossOrigin { credentials: settings.cookies })
    }
}

/// The app of a path, if it is a path of an app.
fn app_of(path: &str) -> Option<AppId> {
    let of_an_app = path.strip_prefix(AUTHORIZATION_SERVER).unwrap_or(path);
    let app_id = match of_an_app.strip_prefix("/v1/apps/") {
        Some(rest) => AppId::parse(rest.split('/').next().unwrap_or_default()).ok()?,
        None if path.starts_with("/auth/") || path.starts_with("/.well-known/") => AppId::default_app(),
        None => return None,
    };
    (!app_id.is_platform()).then_some(app_id)
}

struct CrossOrigin {
    credentials: bool,
}

/// Wraps a whole router: other names of its routes, problems for unknown paths and methods, and the layer described in this
/// module. Routes added afterwards are not covered.
pub fn around(router: Router, edge: Arc<RequestLayer>) -> Router {
    let router = router
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::new(problems::METHOD_NOT_ALLOWED))
        .layer(from_fn_with_state(edge, handle));
    aliases::understood(router)
}

/// A router of [`around`] below a path ([`tokens::PublicUrl::prefix`]). Outside that path there are only the probes,
/// for direct requests to the process.
pub fn mounted(router: Router, prefix: &str) -> Router {
    if prefix.is_empty() {
        return router;
    }
    let prefix = prefix.to_owned();
    // A layer of the router itself would see a request only after routing.
    let below = tower::service_fn(move |mut request: Request| {
        *request.uri_mut() = below(&prefix, request.uri());
        router.clone().oneshot(request)
    });
    Router::new().fallback_service(below)
}

/// The path for the routes, which know no prefix. A path outside the prefix becomes one that no route has.
fn below(prefix: &str, uri: &Uri) -> Uri {
    // RFC 8414 section 3.1: the path of the issuer follows the well-known path.
    let inserted = uri.path().strip_prefix(AUTHORIZATION_SERVER).and_then(|rest| rest.strip_prefix(prefix));
    if let Some(rest) = inserted.filter(|rest| rest.starts_with('/')) {
        return with_path(uri, &format!("{AUTHORIZATION_SERVER}{rest}"));
    }
    let path = match uri.path().strip_prefix(prefix) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ if PROBES.contains(&uri.path()) => uri.path(),
        _ => "//",
    };
    with_path(uri, path)
}

async fn handle(State(edge): State<Arc<RequestLayer>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (mut request, unread) = Unread::watch(request, edge.rest);
    let method = known_method(request.method());
    let matched = request.extensions().get::<MatchedPath>().map(|path| {
        let alias = request.extensions().get::<Alias>();
        alias.map_or_else(|| path.as_str().to_owned(), |alias| alias.route(path.as_str()))
    });
    let (mut context, mut refusal) = edge.context(&request);
    let compressing = edge.compress_from.and_then(|least| Compressing::of(&request, least));
    let traced = Span::request(method, matched.as_deref(), context.traceparent.as_deref());
    context.traceparent = traced.traceparent().or(context.traceparent);
    let route = matched.unwrap_or_else(|| "unmatched".to_owned());
    // Probes are always answered: a busy process is not a failed one.
    let requester = Requester { app_id: app_of(request.uri().path()), address: address_key(context.address) };
    let is_known = edge.known.has(requester.address)
        || Credentials::new(request.method(), request.headers()).api_key(&edge.keys).is_some();
    let applicant = Applicant {
        app_id: requester.app_id.clone(),
        caller: Some(requester.address),
        is_platform: false,
        is_known,
    };
    let waits = Arriving::waits(request.method(), unread.is_some());
    let (arriving, no_place) = Arriving::new(&edge.in_flight, &edge.bodies, applicant, edge.body_time, waits);
    if !PROBES.contains(&route.as_str()) {
        refusal = no_place.or(refusal);
    }
    let context = Arc::new(context);
    request.extensions_mut().insert(Arc::clone(&context));
    request.extensions_mut().insert(edge.idempotency.clone());
    request.extensions_mut().insert(edge.consistency.clone());
    request.extensions_mut().insert(Arc::clone(&arriving));
    let request_id = context.request_id.clone();
    let span = tracing::info_span!("request", request_id = %request_id, method, route = %route);
    let answering = answer(&edge, request, refusal, next);
    let (address, has_credentials) = (requester.address, HasCredentials::default());
    let answered = Answered {
        request_id: request_id.clone(),
        prefix: Arc::clone(&edge.prefix),
        has_written: Cell::new(false),
        has_credentials: Arc::clone(&has_credentials),
        requester,
    };
    let answering = ANSWERED.scope(answered, answering).instrument(span);
    let mut response = traced.around(answering).await;

    arriving.is_answered();
    if has_credentials.load(Ordering::Relaxed) {
        edge.known.add(address);
    }

    let status = response.status().as_u16();
    traced.set("http.response.status_code", i64::from(status));
    if status >= 500 {
        traced.fail(status.to_string());
    }
    if let Some(Refusal(code)) = response.extensions().get() {
        traced.set("watchword.problem", *code);
        metrics::counter!("watchword_refusals_total", "problem" => *code).increment(1);
    }
    let elapsed = started.elapsed();
    tracing::info!(target: "http", %request_id, method, %route, status, duration_ms = elapsed.as_secs_f64() * 1000.0);
    let labels = [("route", route.clone()), ("method", method.to_owned()), ("status", status.to_string())];
    metrics::counter!("http_requests_total", &labels).increment(1);
    metrics::histogram!("http_request_duration_seconds", &labels[..2]).record(elapsed.as_secs_f64());

    if let Some(unread) = unread
        && !unread.discard().await
    {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let consistency = response.extensions_mut().remove::<ConsistencyToken>();
    let headers = response.headers_mut();
    if let Some(token) = consistency {
        headers.insert(CONSISTENCY_TOKEN, edge.consistency.header(token));
    }
    let id = HeaderValue::try_from(request_id).expect("request ids are visible ASCII");
    headers.insert(X_REQUEST_ID, id);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    match compressing {
        Some(compressing) => compressing.apply(response).await,
        None => response,
    }
}

async fn answer(edge: &RequestLayer, request: Request, refusal: Option<Problem>, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let Some(origin) = origin else { return guarded(request, refusal, next).await };
    let allowed = match origin.to_str() {
        Ok(text) => edge.cross_origin(request.uri().path(), text).await,
        Err(_) => None,
    };
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight && allowed.is_some() {
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
        guarded(request, refusal, next).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(allowed) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "consistency-token, journal-epoch, x-request-id, retry-after, ratelimit, ratelimit-policy, \
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
async fn guarded(request: Request, refusal: Option<Problem>, next: Next) -> Response {
    if let Some(problem) = refusal {
        return problem.into_response();
    }
    let head = request.method() == Method::HEAD;
    let Ok(response) = AssertUnwindSafe(next.run(request)).catch_unwind().await else {
        // The panic hook has logged it already.
        return Problem::internal("a handler panicked").into_response();
    };
    let status = response.status();
    // An HTML page can be a refusal too; no library creates one.
    let is_told = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == PROBLEM_JSON || kind.as_bytes().starts_with(b"text/html"));
    if !(status.is_client_error() || status.is_server_error()) || is_told || head {
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
#[path = "request_tests.rs"]
mod tests;
