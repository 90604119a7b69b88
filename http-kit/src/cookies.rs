//! Cookie mode, for the web pages of apps with the setting `cookies`.
//!
//! The tokens are sent in `__Host-` cookies that no script can read, and never in a body. A browser also adds them to
//! requests from other sites, so a request that changes something must repeat in `X-CSRF-Token` what a script of the
//! app's own site can read from a third cookie. That value is made here for one session: a matching pair of cookie and
//! header is not enough, as a sibling domain may have planted the cookie.
//!
//! If the service is mounted below a path, the cookies still have `Path=/`: `__Host-` requires it (RFC 6265bis section
//! 4.1.3.2), which prevents a sibling domain from planting them, and the pages of the app, which are not below that
//! path, must be able to read the one for `X-CSRF-Token`.

use std::convert::Infallible;
use std::sync::Once;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponseParts, ResponseParts};
use domain::app::App;
use domain::{AppId, SessionId};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::problem::Problem;
use tokens::{DerivedTokens, PublicUrl, TokenPurpose};

/// The longest cookie that every browser stores, with its name and attributes (RFC 6265 section 6.1).
const LONGEST: usize = 4096;
/// A lifetime in seconds as long as any.
const LONG_LASTING: i64 = 9_999_999_999;

/// Prevents other hosts from setting a cookie.
const HOST: &str = "__Host-";

const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
/// Without cookies, shows that a device has logged in to the account before: sent with tokens, and returned with a
/// login.
const DEVICE_TOKEN: HeaderName = HeaderName::from_static("device-token");

/// The cookies of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCookie {
    /// The access token.
    Access,
    /// The refresh token.
    Refresh,
    /// The value that scripts read and send back in `X-CSRF-Token`.
    Csrf,
    /// The device token. It survives a logout.
    Device,
}

impl TokenCookie {
    /// The cookies of a session.
    const OF_A_SESSION: [Self; 3] = [Self::Access, Self::Refresh, Self::Csrf];

    /// Its name. All apps share one host, so it includes the app. Browsers do not store `__Host-` cookies sent over
    /// `http`, so on a developer's machine it has another name.
    pub fn name(self, app_id: &AppId, public_url: &PublicUrl) -> String {
        self.named(app_id, if public_url.is_local() { "" } else { HOST })
    }

    fn named(self, app_id: &AppId, prefix: &str) -> String {
        let kind = match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
            Self::Csrf => "csrf",
            Self::Device => "device",
        };
        format!("{prefix}ww-{app_id}-{kind}")
    }

    /// A whole `Set-Cookie` value. Tokens and app ids have no character that needs quoting.
    fn set(self, app_id: &AppId, public_url: &PublicUrl, value: &str, max_age: i64) -> HeaderValue {
        let hidden = if self == Self::Csrf { "" } else { "; HttpOnly" };
        let secure = if public_url.is_local() { "" } else { "; Secure" };
        let (name, max_age) = (self.name(app_id, public_url), max_age.max(0));
        let text = format!("{name}={value}; Max-Age={max_age}; Path=/{secure}{hidden}; SameSite=Lax");
        let mut value = HeaderValue::try_from(text).expect("tokens and app ids are visible ASCII");
        value.set_sensitive(true);
        value
    }
}

/// A token and its lifetime.
#[derive(Clone, Copy)]
pub struct Lasting<'a> {
    /// The token.
    pub token: &'a str,
    /// Its lifetime in seconds.
    pub seconds: i64,
}

/// What a response sets besides its body: cookies in cookie mode, otherwise only the device token, in a header.
#[derive(Default)]
pub struct SetCookies {
    cookies: Vec<HeaderValue>,
    device: Option<HeaderValue>,
}

impl SetCookies {
    /// The tokens of a session.
    pub fn of(
        app: &App,
        public_url: &PublicUrl,
        csrf: &str,
        access: Lasting<'_>,
        refresh: Lasting<'_>,
    ) -> Self {
        static TOLD: Once = Once::new();
        let Some(app_id) = in_cookie_mode(app) else { return Self::default() };
        if public_url.is_local() {
            TOLD.call_once(|| {
                tracing::warn!(
                    "public_url is http on this machine, so cookies have neither `__Host-` nor `Secure`: for development only"
                );
            });
        }
        let cookies = vec![
            TokenCookie::Access.set(app_id, public_url, access.token, access.seconds),
            TokenCookie::Refresh.set(app_id, public_url, refresh.token, refresh.seconds),
            TokenCookie::Csrf.set(app_id, public_url, csrf, refresh.seconds),
        ];
        Self { cookies, device: None }
    }

    /// A new access token of a session whose other cookies stay.
    pub fn of_access(app: &App, public_url: &PublicUrl, access: Lasting<'_>) -> Self {
        let Some(app_id) = in_cookie_mode(app) else { return Self::default() };
        let cookies = vec![TokenCookie::Access.set(app_id, public_url, access.token, access.seconds)];
        Self { cookies, device: None }
    }

    /// Adds a device token.
    #[must_use]
    pub fn with_device(mut self, app: &App, public_url: &PublicUrl, device: Lasting<'_>) -> Self {
        if let Some(app_id) = in_cookie_mode(app) {
            self.cookies.push(TokenCookie::Device.set(app_id, public_url, device.token, device.seconds));
        } else {
            let mut token = HeaderValue::try_from(device.token).expect("tokens are visible ASCII");
            token.set_sensitive(true);
            self.device = Some(token);
        }
        self
    }

    /// Makes the browser delete the cookies.
    pub fn cleared(app: &App, public_url: &PublicUrl) -> Self {
        let Some(app_id) = in_cookie_mode(app) else { return Self::default() };
        let cookies =
            TokenCookie::OF_A_SESSION.iter().map(|cookie| cookie.set(app_id, public_url, "", 0)).collect();
        Self { cookies, device: None }
    }

    /// Whether these contain the tokens, so that no body may.
    pub fn hold_the_tokens(&self) -> bool {
        !self.cookies.is_empty()
    }
}

impl IntoResponseParts for SetCookies {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        for cookie in self.cookies {
            parts.headers_mut().append(header::SET_COOKIE, cookie);
        }
        if let Some(device) = self.device {
            parts.headers_mut().insert(DEVICE_TOKEN, device);
        }
        Ok(parts)
    }
}

/// The credentials of a request, and whether it changes something. Cookies count only without `Authorization`, and only
/// in cookie mode.
#[derive(Clone)]
pub struct Credentials {
    headers: HeaderMap,
    mutating: bool,
}

/// A token that came with a request.
#[derive(Clone, Copy)]
pub(crate) enum Shown<'a> {
    /// In `Authorization`.
    Bearer(&'a str),
    /// In the access cookie, which counts only with [`Credentials::require_csrf`].
    Cookie(&'a str),
}

impl Credentials {
    /// The credentials of a request.
    pub fn new(method: &Method, headers: &HeaderMap) -> Self {
        let mutating = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        Self { headers: headers.clone(), mutating }
    }

    /// Every `Authorization` header.
    pub(crate) fn authorization(&self) -> impl Iterator<Item = &HeaderValue> {
        self.headers.get_all(header::AUTHORIZATION).iter()
    }

    /// The one bearer token (RFC 6750 section 2.1). Credentials of another scheme are none.
    pub fn bearer(&self) -> Result<&str, Problem> {
        let mut values = self.headers.get_all(header::AUTHORIZATION).iter();
        let (value, another) = (values.next(), values.next());
        let value = value.ok_or_else(Problem::unauthenticated)?.to_str().unwrap_or_default();
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        let token = token.trim_matches(' ');
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            Err(Problem::unauthenticated())
        } else if another.is_some() || token.contains(' ') {
            Err(Problem::invalid_token())
        } else {
            Ok(token)
        }
    }

    /// A cookie of the app, if cookies count.
    pub fn cookie(&self, app: &App, public_url: &PublicUrl, cookie: TokenCookie) -> Option<&str> {
        if self.headers.contains_key(header::AUTHORIZATION) {
            return None;
        }
        cookie_value(&self.headers, &cookie.name(in_cookie_mode(app)?, public_url))
    }

    /// The device token: of the header, or of its cookie in cookie mode.
    pub fn device(&self, app: &App, public_url: &PublicUrl) -> Option<&str> {
        if self.headers.contains_key(DEVICE_TOKEN) {
            return only(&self.headers, &DEVICE_TOKEN)?.to_str().ok();
        }
        cookie_value(&self.headers, &TokenCookie::Device.name(in_cookie_mode(app)?, public_url))
    }

    pub(crate) fn shown(&self, app: &App, public_url: &PublicUrl) -> Result<Shown<'_>, Problem> {
        match self.cookie(app, public_url, TokenCookie::Access) {
            Some(token) => Ok(Shown::Cookie(token)),
            None if self.headers.contains_key(header::AUTHORIZATION) => self.bearer().map(Shown::Bearer),
            None => Err(absent(app, public_url)),
        }
    }

    /// 403 if this request would change something for a session by cookie, and the page that made it cannot read that
    /// session's cookies.
    pub(crate) fn require_csrf(
        &self,
        app: &App,
        public_url: &PublicUrl,
        keys: &DerivedTokens,
        session_id: SessionId,
    ) -> Result<(), Problem> {
        let expected = csrf_token(keys, session_id);
        let same = |shown: Option<&[u8]>| {
            shown.is_some_and(|shown| verify_slices_are_equal(shown, expected.as_bytes()).is_ok())
        };
        let sent = only(&self.headers, &X_CSRF_TOKEN).map(HeaderValue::as_bytes);
        let kept = self.cookie(app, public_url, TokenCookie::Csrf).map(str::as_bytes);
        if !self.mutating || (same(sent) && same(kept)) {
            Ok(())
        } else {
            Err(Problem::forbidden().detail("X-CSRF-Token must be the csrf cookie of this session"))
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Credentials {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::new(&parts.method, &parts.headers))
    }
}

/// Distinguishes callers by cookie, for idempotency keys. Without `X-CSRF-Token` no cookie authenticates a change, and
/// the cookies that a login set must not make its repetition another caller's.
pub(crate) fn caller(headers: &HeaderMap, app_id: &AppId) -> Option<Vec<u8>> {
    headers.get(X_CSRF_TOKEN)?;
    // Nothing is trusted here, so either name will do.
    let value = |cookie: TokenCookie| {
        [HOST, ""].iter().find_map(|prefix| cookie_value(headers, &cookie.named(app_id, prefix)))
    };
    match (value(TokenCookie::Access), value(TokenCookie::Refresh)) {
        (None, None) => None,
        (access, refresh) => {
            Some(format!("cookies:{};{}", access.unwrap_or_default(), refresh.unwrap_or_default()).into())
        }
    }
}

/// In cookie mode, the name of the cookie that did not come shows a developer what their browser left out.
fn absent(app: &App, public_url: &PublicUrl) -> Problem {
    let problem = Problem::unauthenticated();
    let Some(app_id) = in_cookie_mode(app) else { return problem };
    let secure = if public_url.is_local() { "" } else { ", which browsers keep and send over https only" };
    let name = TokenCookie::Access.name(app_id, public_url);
    problem.detail(format!("no credentials were sent: neither `Authorization` nor the cookie {name}{secure}"))
}

/// In cookie mode, the most bytes of an access token whose cookie browsers store.
pub fn longest_access_token(app: &App, public_url: &PublicUrl) -> Option<usize> {
    let app_id = in_cookie_mode(app)?;
    Some(LONGEST - 1 - TokenCookie::Access.set(app_id, public_url, "", LONG_LASTING).len())
}

fn in_cookie_mode(app: &App) -> Option<&AppId> {
    app.id.as_ref().filter(|_| app.settings.cookies)
}

/// The value that scripts send back in `X-CSRF-Token`: always the same for a session, so nothing is stored.
pub fn csrf_token(keys: &DerivedTokens, session_id: SessionId) -> String {
    keys.seal(TokenPurpose::Csrf, session_id.0.as_bytes())
}

/// A header that was sent exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// A cookie that was sent exactly once. Others on the host may not be text.
fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    let mut values =
        all.filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
#[path = "cookies_tests.rs"]
mod tests;
