//! What handlers may need to know about a request besides its content, and what the layer around them needs
//! ([`crate::around`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use domain::AppId;
use domain::app::App;
use domain::user::Client;
use event_store::{Clock, InstanceKey, Repository};
use http::request::Parts;
use http::{Extensions, HeaderName, header};
use ipnet::IpNet;
use schemas::envelope::{Actor, Metadata};
use tokens::DerivedTokens;
use uuid::Uuid;

use crate::arriving::{Arriving, BodyTime, Room};
use crate::consistency::ConsistencyTokens;
use crate::extract::NO_LAYER;
use crate::forwarded::{Forwarded, is_trusted};
use crate::heads::{WrongHead, is_idempotency_key, request_id, single};
use crate::known::KnownAddresses;
use crate::measured::Measured;
use crate::places::Shares;
use crate::problem::{ANSWERED, Problem};
use crate::trace;
use crate::unread::Rest;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What handlers may need to know about a request besides its content.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The `X-Request-Id` of the request, or a new one.
    pub request_id: Arc<str>,
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
            request_id: Some(self.request_id.to_string()),
            traceparent: self.traceparent.clone(),
        }
    }

    pub(crate) fn of(extensions: &Extensions) -> Result<&Self, Problem> {
        Attached::of(extensions).map(|attached| &attached.context)
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.extensions).cloned()
    }
}

/// What the layer attaches to a request for those who handle it, as one of its extensions.
pub(crate) struct Attached {
    pub edge: Arc<RequestLayer>,
    pub context: RequestContext,
    pub arriving: Arriving,
}

impl Attached {
    pub fn of(extensions: &Extensions) -> Result<&Arc<Self>, Problem> {
        extensions.get::<Arc<Self>>().ok_or_else(|| Problem::internal(NO_LAYER))
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
pub(crate) const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";

/// Routes that inspect the process rather than use it.
pub(crate) const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What the layer needs.
pub struct RequestLayer {
    repository: Arc<Repository>,
    clock: Arc<dyn Clock>,
    trusted_proxies: Vec<IpNet>,
    pub(crate) idempotency: IdempotencyKeys,
    pub(crate) consistency: ConsistencyTokens,
    pub(crate) room: Room,
    pub(crate) request_time: Duration,
    pub(crate) known: KnownAddresses,
    pub(crate) keys: DerivedTokens,
    pub(crate) rest: Rest,
    /// In bytes; None: nothing is compressed.
    pub(crate) compress_from: Option<u64>,
    pub(crate) prefix: Arc<str>,
    forwarded: Forwarded,
    pub(crate) measured: Measured,
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
        let unlimited = Shares { total: unbounded, of_an_app: unbounded, of_a_caller: unbounded, reserve: 0 };
        Self {
            repository,
            clock,
            trusted_proxies,
            idempotency,
            consistency,
            room: Room::new(unlimited, BodyTime::default()),
            request_time: Duration::from_secs(10),
            known: KnownAddresses::default(),
            keys: DerivedTokens::new(instance),
            rest: Rest::default(),
            compress_from: Some(1024),
            prefix: Arc::default(),
            forwarded: Forwarded::default(),
            measured: Measured::default(),
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
        Self { room: Room::new(shares, body_time), ..self }
    }

    /// Answers each request within this time, once all of it has come. Streams that continue after that have begun then.
    #[must_use]
    pub fn answering_within(self, request_time: Duration) -> Self {
        Self { request_time, ..self }
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
    pub(crate) fn context(&self, request: &Request) -> (RequestContext, Option<Problem>) {
        let headers = request.headers();
        let correlation_id = self.clock.new_id();
        let request_id = request_id(headers, || correlation_id);
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

    /// Whether pages of this origin may call the paths of an app.
    pub(crate) async fn cross_origin(&self, app_id: &AppId, origin: &str) -> Option<CrossOrigin> {
        let app = self.repository.load::<App>(app_id).await.ok()?;
        let settings = &app.state.settings;
        let allowed = app.state.id.is_some() && settings.origins.iter().any(|known| known.as_str() == origin);
        allowed.then_some(CrossOrigin { credentials: settings.cookies })
    }
}

/// The app of a path, if it is a path of an app.
pub(crate) fn app_of(path: &str) -> Option<AppId> {
    let of_an_app = path.strip_prefix(AUTHORIZATION_SERVER).unwrap_or(path);
    let app_id = match of_an_app.strip_prefix("/v1/apps/") {
        Some(rest) => AppId::parse(rest.split('/').next().unwrap_or_default()).ok()?,
        None if path.starts_with("/auth/") || path.starts_with("/.well-known/") => AppId::default_app(),
        None => return None,
    };
    (!app_id.is_platform()).then_some(app_id)
}

pub(crate) struct CrossOrigin {
    pub credentials: bool,
}
