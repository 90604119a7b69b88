//! Rate limits: of requests by requester, and of mails by mailbox.
//!
//! A client uses up its own limit: by address or, for an app's server, by API key. A mailbox's limit is used up only by
//! sent mails, so that requests that send none do not count; part of it is reserved for clients that have logged in to
//! the account before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use domain::{ApiKeyId, AppId, DeviceId, Email, OrganizationId, UserId};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use crate::cookies::Credentials;
use crate::gcra::Gcra;
use crate::problem::Problem;
use crate::request::RequestContext;
use tokens::DerivedTokens;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A number of requests of one client in a number of seconds, at once or spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many.
    pub requests: NonZeroU32,
    /// In how many seconds.
    pub seconds: NonZeroU32,
}

/// The limits of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateSettings {
    /// Whether limits apply at all.
    pub enabled: bool,
    /// For [`RateClass::Credentials`].
    pub credentials: Rate,
    /// For [`RateClass::Mail`].
    pub mail: Rate,
    /// For [`RateClass::Mailbox`].
    pub mailbox: Rate,
    /// For [`RateClass::Mails`].
    pub mails: Rate,
    /// For [`RateClass::KnownMails`].
    pub known_mails: Rate,
    /// For [`RateClass::Invitations`].
    pub invitations: Rate,
    /// For [`RateClass::Server`].
    pub server: Rate,
    /// For [`RateClass::Person`].
    pub person: Rate,
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
            mails: rate(8, 600),
            known_mails: rate(3, 600),
            invitations: rate(100, 86_400),
            server: rate(6000, 60),
            person: rate(30, 60),
            general: rate(1200, 60),
        }
    }
}

/// Requests that share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateClass {
    /// Routes where passwords can be guessed, or are hashed: login, register, password change.
    Credentials,
    /// Requests of one client for mails. Does not apply to the app's own server, which asks for all of its users.
    Mail,
    /// Requests of one client for mails of one purpose to one address of an app.
    Mailbox,
    /// Mails of one purpose that are sent to one address of an app, for any requester.
    Mails,
    /// Further mails, for clients that have logged in to the account before.
    KnownMails,
    /// Invitations that one user, or all members of one organization, send to whomever.
    Invitations,
    /// All requests with one API key.
    Server,
    /// Logins of one person: through one API key, or successful ones from one address.
    Person,
    /// All others.
    General,
}

impl RateClass {
    const ALL: [Self; 9] = [
        Self::Credentials,
        Self::Mail,
        Self::Mailbox,
        Self::Mails,
        Self::KnownMails,
        Self::Invitations,
        Self::Server,
        Self::Person,
        Self::General,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Mail => "mail",
            Self::Mailbox => "mailbox",
            Self::Mails => "mails",
            Self::KnownMails => "known-mails",
            Self::Invitations => "invitations",
            Self::Server => "server",
            Self::Person => "person",
            Self::General => "general",
        }
    }
}

/// The requester of a mail, by whom requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Anyone, by IP address.
    Address(Option<IpAddr>),
    /// An app's own server.
    Server(ApiKeyId),
    /// A device that has logged in to the account before.
    Device(DeviceId),
    /// A logged-in user.
    User(UserId),
}

/// Purposes of mails, which are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailPurpose {
    /// The mail of a registration: the link that verifies the address, or a notice to its owner.
    Registration,
    /// The link that verifies the address, requested again.
    EmailVerification,
    /// The link for choosing a new password.
    PasswordReset,
    /// The link that changes the account's address.
    EmailChange,
    /// The link that logs in.
    MagicLink,
    /// The link that accepts an invitation.
    Invitation,
}

/// The counters. One set serves all routes.
pub struct RateLimits(Option<[Limiter; RateClass::ALL.len()]>);

struct Limiter {
    rate: Rate,
    states: Gcra,
}

/// A mail that counts as sent.
#[derive(Debug)]
#[must_use = "a mail that is not sent is given back"]
pub struct Spent(Option<(RateClass, u128)>);

/// The state of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    name: &'static str,
    requests: u32,
    seconds: u32,
    remaining: u32,
    reset: u64,
}

impl Standing {
    /// An exhausted limit with this name, of `requests` in `seconds`; `reset` seconds until something is left again.
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
        let rate = |class| match class {
            RateClass::Credentials => settings.credentials,
            RateClass::Mail => settings.mail,
            RateClass::Mailbox => settings.mailbox,
            RateClass::Mails => settings.mails,
            RateClass::KnownMails => settings.known_mails,
            RateClass::Invitations => settings.invitations,
            RateClass::Server => settings.server,
            RateClass::Person => settings.person,
            RateClass::General => settings.general,
        };
        let limiter = |class| Limiter { rate: rate(class), states: Gcra::new(rate(class)) };
        Self(settings.enabled.then(|| RateClass::ALL.map(limiter)))
    }

    /// Counts a request of a client. `Ok(None)` if there are no limits.
    pub fn check(&self, class: RateClass, address: Option<IpAddr>) -> Result<Option<Standing>, Standing> {
        self.count(class, address_key(address))
    }

    /// Undoes a count of [`RateLimits::check`].
    pub fn give_back(&self, class: RateClass, address: Option<IpAddr>) {
        if let Some(limiters) = &self.0 {
            limiters[class as usize].states.give_back(address_key(address));
        }
    }

    /// Counts a request with an API key.
    pub fn check_server(&self, key: ApiKeyId) -> Result<Option<Standing>, Standing> {
        self.count(RateClass::Server, key.0.as_u128())
    }

    /// Counts a login of a person, by the given email address, whether or not it is known.
    pub fn check_person(
        &self,
        asker: Asker,
        app_id: &AppId,
        name: &str,
    ) -> Result<Option<Standing>, Standing> {
        let person = [&asker_key(asker)[..], app_id.as_str().as_bytes(), &[0], name.as_bytes()].concat();
        self.count(RateClass::Person, hashed(&person))
    }

    /// Counts a request for a mail, whether or not anything is sent.
    pub fn check_mailbox(
        &self,
        app_id: &AppId,
        email: &Email,
        purpose: MailPurpose,
        asker: Asker,
    ) -> Result<Option<Standing>, Standing> {
        let key = [&asker_key(asker)[..], &mailbox(app_id, email, purpose)].concat();
        self.count(RateClass::Mailbox, hashed(&key))
    }

    /// Counts a mail that is about to be sent. An error means that there were too many, and it must not be sent.
    /// `is_known` says that the requester has logged in to the account before.
    pub fn spend_mail(
        &self,
        app_id: &AppId,
        email: &Email,
        purpose: MailPurpose,
        is_known: bool,
    ) -> Result<Spent, Standing> {
        if self.0.is_none() {
            return Ok(Spent(None));
        }
        let key = hashed(&mailbox(app_id, email, purpose));
        let spend = |class| self.count(class, key).map(|_| Spent(Some((class, key))));
        match spend(RateClass::Mails) {
            Err(_) if is_known => spend(RateClass::KnownMails),
            counted => counted,
        }
    }

    /// Counts an invitation that is about to be sent by a user in the name of an organization. An error means that there were
    /// too many by one of them.
    pub fn spend_invitation(
        &self,
        inviter: UserId,
        organization: OrganizationId,
    ) -> Result<[Spent; 2], Standing> {
        if self.0.is_none() {
            return Ok([Spent(None), Spent(None)]);
        }
        let class = RateClass::Invitations;
        let spend = |id: u128| self.count(class, id).map(|_| Spent(Some((class, id))));
        let of_user = spend(inviter.0.as_u128())?;
        match spend(organization.0.as_u128()) {
            Ok(of_organization) => Ok([of_user, of_organization]),
            Err(standing) => {
                self.not_sent(of_user);
                Err(standing)
            }
        }
    }

    /// Undoes a count of [`RateLimits::spend_mail`] or [`RateLimits::spend_invitation`], as no mail was sent.
    pub fn not_sent(&self, spent: Spent) {
        if let (Spent(Some((class, key))), Some(limiters)) = (spent, &self.0) {
            limiters[class as usize].states.give_back(key);
        }
    }

    fn count(&self, class: RateClass, key: u128) -> Result<Option<Standing>, Standing> {
        let Some(limiters) = &self.0 else { return Ok(None) };
        let limiter = &limiters[class as usize];
        let (name, requests, seconds) =
            (class.name(), limiter.rate.requests.get(), limiter.rate.seconds.get());
        match limiter.states.check(key) {
            Ok(remaining) => {
                let spent = u64::from(requests.saturating_sub(remaining));
                let reset = (spent * u64::from(seconds)).div_ceil(requests.into());
                Ok(Some(Standing { name, requests, seconds, remaining, reset }))
            }
            Err(wait) => {
                metrics::counter!("watchword_rate_limited_total", "limit" => name).increment(1);
                let reset = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Err(Standing::exhausted(name, requests, seconds, reset.max(1)))
            }
        }
    }

    /// Reports how many clients are being counted.
    pub fn measure(&self) {
        let Some(limiters) = &self.0 else { return };
        for class in RateClass::ALL {
            let clients = u32::try_from(limiters[class as usize].states.len()).unwrap_or(u32::MAX);
            metrics::gauge!("watchword_rate_limit_clients", "limit" => class.name()).set(clients);
        }
    }

    /// The limit of a class as a layer for routes inside [`crate::around`](fn@crate::around).
    pub fn layer(self: &Arc<Self>, class: RateClass) -> RateLimitLayer {
        RateLimitLayer { limits: Arc::clone(self), class, keys: None }
    }
}

/// A mailbox of an app, hashed so that no address remains in memory.
fn mailbox(app_id: &AppId, email: &Email, purpose: MailPurpose) -> [u8; 17] {
    // Most servers deliver `ada+shop` and `ada+news` to the mailbox of `ada` (RFC 5233).
    let (local, domain) = email.as_str().rsplit_once('@').unwrap_or_default();
    let user = local.split('+').next().unwrap_or_default();
    // None of these can contain a NUL.
    let text = [app_id.as_str(), user, domain].join("\0");
    let mut mailbox = [purpose as u8; 17];
    mailbox[1..].copy_from_slice(&hashed(text.as_bytes()).to_be_bytes());
    mailbox
}

fn asker_key(asker: Asker) -> [u8; 17] {
    let (kind, id) = match asker {
        Asker::Address(address) => (0, address_key(address)),
        Asker::Server(key) => (1, key.0.as_u128()),
        Asker::Device(device) => (2, device.0.as_u128()),
        Asker::User(user) => (3, user.0.as_u128()),
    };
    let mut key = [kind; 17];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

fn hashed(bytes: &[u8]) -> u128 {
    let mut key = [0; 16];
    key.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..16]);
    u128::from_be_bytes(key)
}

/// One home is one client: IPv4 by address, IPv6 by /64, as each home has 2⁶⁴ addresses.
pub(crate) fn address_key(address: Option<IpAddr>) -> u128 {
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
    keys: Option<DerivedTokens>,
}

impl RateLimitLayer {
    /// Counts requests with an API key of this instance by that key, in [`RateClass::Server`], and not by address: one
    /// server asks for all users of an app. Whether the key is still active is not checked here: with an inactive one
    /// the request fails anyway.
    #[must_use]
    pub fn by_key(self, keys: DerivedTokens) -> Self {
        Self { keys: Some(keys), ..self }
    }

    fn check(&self, request: &Request) -> Result<Option<Standing>, Standing> {
        let key = self
            .keys
            .as_ref()
            .and_then(|keys| Credentials::new(request.method(), request.headers()).api_key(keys));
        if let Some(key) = key {
            return self.limits.check_server(key.key_id);
        }
        let address = RequestContext::of(request.extensions()).ok().and_then(|context| context.address);
        self.limits.check(self.class, address)
    }
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
        match self.layer.check(&request) {
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
#[path = "limits_tests.rs"]
mod tests;
