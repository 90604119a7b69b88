//! Rate limits by client address, and of mails by the address they go to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use domain::{AppId, Email};
use futures::future::BoxFuture;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use crate::problem::Problem;
use crate::request::RequestContext;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// So many requests of one client in so many seconds, spent in one go or spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many.
    pub requests: NonZeroU32,
    /// In how long.
    pub seconds: NonZeroU32,
}

/// The limits of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateSettings {
    /// Whether there are any.
    pub enabled: bool,
    /// For [`RateClass::Credentials`].
    pub credentials: Rate,
    /// For [`RateClass::Mail`].
    pub mail: Rate,
    /// For [`RateClass::Mailbox`].
    pub mailbox: Rate,
    /// For [`RateClass::General`].
    pub general: Rate,
}

impl Default for RateSettings {
    fn default() -> Self {
        let rate = |requests, seconds| Rate {
            requests: NonZeroU32::new(requests).expect("not zero"),
            seconds: NonZeroU32::new(seconds).expect("not zero"),
        };
        Self {
            enabled: true,
            credentials: rate(60, 60),
            mail: rate(20, 60),
            mailbox: rate(5, 600),
            general: rate(1200, 60),
        }
    }
}

/// What is limited together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateClass {
    /// Routes where passwords can be guessed, and those that hash them: login, register, the change of a password.
    Credentials,
    /// Requests of one client for mails. The app's own server, which asks for all of its people, is not limited by this.
    Mail,
    /// Requests for mails to one address of an app, whoever asks.
    Mailbox,
    /// All others.
    General,
}

impl RateClass {
    const ALL: [Self; 4] = [Self::Credentials, Self::Mail, Self::Mailbox, Self::General];

    fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Mail => "mail",
            Self::Mailbox => "mailbox",
            Self::General => "general",
        }
    }
}

/// The counters. One set serves all routes.
pub struct RateLimits(Option<Limiters>);

struct Limiters {
    credentials: Limiter,
    mail: Limiter,
    mailbox: Limiter,
    general: Limiter,
    clock: DefaultClock,
    checks: AtomicU32,
}

impl Limiters {
    fn of(&self, class: RateClass) -> &Limiter {
        match class {
            RateClass::Credentials => &self.credentials,
            RateClass::Mail => &self.mail,
            RateClass::Mailbox => &self.mailbox,
            RateClass::General => &self.general,
        }
    }
}

struct Limiter {
    rate: Rate,
    states: DefaultKeyedRateLimiter<u128, StateInformationMiddleware>,
}

impl Limiter {
    fn new(rate: Rate) -> Self {
        let period = Duration::from_secs(rate.seconds.get().into()) / rate.requests.get();
        let quota = Quota::with_period(period.max(Duration::from_nanos(1))).expect("the period is not zero");
        let quota = quota.allow_burst(rate.requests);
        Self { rate, states: RateLimiter::keyed(quota).with_middleware() }
    }
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    name: &'static str,
    requests: u32,
    seconds: u32,
    remaining: u32,
    reset: u64,
}

impl Standing {
    /// Nothing is left, for so many more seconds, of a limit of this name: so many `requests` in so many `seconds`.
    pub fn exhausted(name: &'static str, requests: u32, seconds: u32, reset: u64) -> Self {
        Self { name, requests, seconds, remaining: 0, reset }
    }

    /// The seconds until something is left again.
    pub fn reset(&self) -> u64 {
        self.reset
    }

    /// Sets `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10), unless a narrower limit has.
    pub fn describe(&self, headers: &mut HeaderMap) {
        if headers.contains_key(RATELIMIT) {
            return;
        }
        let Self { name, requests, seconds, remaining, reset } = self;
        let value = |text: String| HeaderValue::try_from(text).expect("visible ASCII");
        headers.insert(RATELIMIT, value(format!("\"{name}\";r={remaining};t={reset}")));
        let policy = format!("\"{name}\";q={requests};w={seconds}");
        headers.insert(RATELIMIT_POLICY, value(policy));
    }
}

impl RateLimits {
    /// Fresh counters.
    pub fn new(settings: &RateSettings) -> Self {
        Self(settings.enabled.then(|| Limiters {
            credentials: Limiter::new(settings.credentials),
            mail: Limiter::new(settings.mail),
            mailbox: Limiter::new(settings.mailbox),
            general: Limiter::new(settings.general),
            clock: DefaultClock::default(),
            checks: AtomicU32::new(0),
        }))
    }

    /// Counts a request of a client. `Ok(None)` when there are no limits.
    pub fn check(&self, class: RateClass, address: Option<IpAddr>) -> Result<Option<Standing>, Standing> {
        self.count(class, key(address))
    }

    /// Counts a request for a mail to this address, whether or not anybody has it.
    pub fn check_mailbox(&self, app_id: &AppId, email: &Email) -> Result<Option<Standing>, Standing> {
        // Most servers put `ada+shop` and `ada+news` into the mailbox of `ada` (RFC 5233).
        let (local, domain) = email.as_str().rsplit_once('@').unwrap_or_default();
        let user = local.split('+').next().unwrap_or_default();
        // None can hold a NUL. Hashed so that no address stays in memory.
        let text = [app_id.as_str(), user, domain].join("\0");
        let hash = digest(&SHA256, text.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash.as_ref()[..16]);
        self.count(RateClass::Mailbox, u128::from_be_bytes(key))
    }

    fn count(&self, class: RateClass, key: u128) -> Result<Option<Standing>, Standing> {
        let Some(limiters) = &self.0 else { return Ok(None) };
        let limiter = limiters.of(class);
        // Counters of clients that went away are full again and can be forgotten.
        if limiters.checks.fetch_add(1, Ordering::Relaxed) % 8192 == 8191 {
            for class in RateClass::ALL {
                limiters.of(class).states.retain_recent();
            }
        }
        let (name, requests, seconds) =
            (class.name(), limiter.rate.requests.get(), limiter.rate.seconds.get());
        match limiter.states.check_key(&key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let spent = u64::from(requests.saturating_sub(remaining));
                let reset = (spent * u64::from(seconds)).div_ceil(requests.into());
                Ok(Some(Standing { name, requests, seconds, remaining, reset }))
            }
            Err(until) => {
                metrics::counter!("watchword_rate_limited_total", "limit" => name).increment(1);
                let wait = until.wait_time_from(limiters.clock.now());
                let reset = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Err(Standing::exhausted(name, requests, seconds, reset.max(1)))
            }
        }
    }

    /// Tells metrics how many clients are being counted.
    pub fn measure(&self) {
        let Some(limiters) = &self.0 else { return };
        for class in RateClass::ALL {
            let clients = u32::try_from(limiters.of(class).states.len()).unwrap_or(u32::MAX);
            metrics::gauge!("watchword_rate_limit_clients", "limit" => class.name()).set(clients);
        }
    }

    /// The limit of a class as a layer for routes inside [`crate::request::around`].
    pub fn layer(self: &Arc<Self>, class: RateClass) -> RateLimitLayer {
        RateLimitLayer { limits: Arc::clone(self), class }
    }
}

/// One home is one client: IPv4 by address, IPv6 by /64, as everybody has 2⁶⁴ addresses there.
fn key(address: Option<IpAddr>) -> u128 {
    match address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.to_canonical()) {
        IpAddr::V4(address) => Ipv6Addr::to_bits(address.to_ipv6_mapped()),
        IpAddr::V6(address) => address.to_bits() & !u128::from(u64::MAX),
    }
}

/// See [`RateLimits::layer`].
#[derive(Clone)]
pub struct RateLimitLayer {
    limits: Arc<RateLimits>,
    class: RateClass,
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimited<S>;

    fn layer(&self, inner: S) -> RateLimited<S> {
        RateLimited { layer: self.clone(), inner }
    }
}

/// A service behind a [`RateLimitLayer`].
#[derive(Clone)]
pub struct RateLimited<S> {
    layer: RateLimitLayer,
    inner: S,
}

impl<S> Service<Request> for RateLimited<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let address = RequestContext::of(request.extensions()).ok().and_then(|context| context.address);
        match self.layer.limits.check(self.layer.class, address) {
            Ok(standing) => {
                let answering = self.inner.call(request);
                Box::pin(async move {
                    let mut response = answering.await?;
                    if let Some(standing) = standing {
                        standing.describe(response.headers_mut());
                    }
                    Ok(response)
                })
            }
            Err(standing) => Box::pin(async move { Ok(Problem::rate_limited(standing).into_response()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: u32) -> RateLimits {
        let rate = Rate {
            requests: NonZeroU32::new(requests).expect("not zero"),
            seconds: NonZeroU32::new(60).expect("not zero"),
        };
        RateLimits::new(&RateSettings { credentials: rate, ..RateSettings::default() })
    }

    fn from(limits: &RateLimits, address: &str) -> bool {
        limits.check(RateClass::Credentials, Some(address.parse().expect("an address"))).is_ok()
    }

    #[test]
    fn a_client_is_an_address_or_a_64() {
        let limits = limits(2);
        assert!(from(&limits, "192.0.2.1"));
        assert!(from(&limits, "::ffff:192.0.2.1"));
        assert!(!from(&limits, "192.0.2.1"));
        assert!(from(&limits, "192.0.2.2"));
        assert!(from(&limits, "2001:db8::1"));
        assert!(from(&limits, "2001:db8::2:0:0:2"));
        assert!(!from(&limits, "2001:db8::3"));
        assert!(from(&limits, "2001:db8:0:1::3"));
    }

    #[test]
    fn says_how_long_to_wait() {
        let limits = limits(1);
        let first = limits.check(RateClass::Credentials, None).expect("the first goes").expect("limited");
        assert_eq!((first.remaining, first.reset), (0, 60));
        let second = limits.check(RateClass::Credentials, None).expect_err("the second does not");
        assert!((59..=60).contains(&second.reset()), "{second:?}");
        let mut headers = HeaderMap::new();
        first.describe(&mut headers);
        assert_eq!(headers[RATELIMIT_POLICY], "\"credentials\";q=1;w=60");
        assert_eq!(headers[RATELIMIT], "\"credentials\";r=0;t=60");
    }

    #[test]
    fn mails_are_limited_by_the_address_they_go_to() {
        let limits = RateLimits::new(&RateSettings::default());
        let mail = |app: &str, email: &str| {
            let (app, email) = (AppId::parse(app).expect("valid"), Email::parse(email).expect("valid"));
            limits.check_mailbox(&app, &email).is_ok()
        };
        assert!((0..5).all(|_| mail("acme", "ada@example.com")));
        assert!(!mail("acme", "ADA@example.com"), "it is the same mailbox");
        assert!(!mail("acme", "ada+shop@example.com"), "and so is this");
        assert!(mail("acme", "bob@example.com") && mail("other", "ada@example.com"));
    }

    #[test]
    fn can_be_switched_off() {
        let limits = RateLimits::new(&RateSettings { enabled: false, ..RateSettings::default() });
        assert!((0..10_000).all(|_| limits.check(RateClass::Credentials, None) == Ok(None)));
    }
}
