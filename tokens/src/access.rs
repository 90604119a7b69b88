//! Access tokens: JWTs of type `at+jwt` (RFC 9068), verified with only what the app publishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::app::App;
use domain::organization::RolePermission;
use domain::signing_key::{PublicJwk, TokenAlgorithm};
use domain::{AppId, OrganizationId, Role, SessionId, Timestamp, UserId};
use event_store::measure;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::org_claims::OrgClaim;
use crate::public_url::PublicUrl;
use crate::strict_json;

/// Longer than any issued token: 2000 characters of roles and 4 KiB of organizations are about 9 500.
const MAX_TOKEN: usize = 12 * 1024;

/// How many verified tokens are cached: verifying an RS256 or ES256 signature costs more than a hash.
const REMEMBERED: usize = 10_000;
/// The default maximum size of that cache.
const REMEMBERED_BYTES: u64 = 8 << 20;
/// The overhead of an entry beside the text of its claims: its members, its place in the cache, and the allocations.
const VERIFIED_BYTES: usize = 600;

/// How many seconds another node's clock may be ahead, by default.
pub const LEEWAY: i64 = 60;

/// The claims of an access token, for issuing and verifying.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessClaims {
    /// The issuer: `<public_url>/v1/apps/<app_id>`.
    pub iss: String,
    /// The user's id.
    pub sub: UserId,
    /// The audience: the app's id.
    pub aud: String,
    /// The app's id again (RFC 9068 section 2.2).
    pub client_id: String,
    /// When it expires, in seconds since 1970.
    pub exp: i64,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// Before this time it is not valid. Tokens issued here do not set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// The id of the token.
    pub jti: String,
    /// The session it belongs to.
    pub sid: SessionId,
    /// The user's roles when it was issued.
    pub roles: Vec<Role>,
    /// Whether the user's address was verified when it was issued.
    pub email_verified: bool,
    /// The user's organizations when it was issued: by id the `slug`, the `role` and its `permissions`. Absent if they did
    /// not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orgs: Option<BTreeMap<OrganizationId, OrgClaim>>,
    /// `true` if organizations, or the permissions in the active one, did not fit: above 4 KiB, in a cookie above 512 bytes.
    /// Then `GET …/orgs` lists them, and introspection tells of the active one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orgs_truncated: bool,
    /// The organization that the session acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<OrganizationId>,
    /// The user's role in it when the token was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_role: Option<Role>,
    /// What that role allowed. Absent also if it did not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_permissions: Option<Vec<RolePermission>>,
}

/// Why a token was refused. For tests and their logs: callers see only `unauthenticated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It is not a JWT.
    #[error("malformed")]
    Malformed,
    /// It is a JWT for another purpose: wrong `typ`, or an unknown critical header.
    #[error("wrong kind of token")]
    Kind,
    /// The app publishes no such key, or the key belongs to another algorithm.
    #[error("unknown key")]
    Key,
    /// The signature or a claim is wrong.
    #[error("wrong signature or claims")]
    Refused,
    /// It has expired, or is not valid yet.
    #[error("expired or not valid yet")]
    Time,
}

/// Verifies access tokens.
pub struct AccessTokens {
    public_url: PublicUrl,
    /// How many seconds another node's clock may be ahead.
    leeway: i64,
    keys: Cache<String, Arc<DecodingKey>>,
    verified: Cache<[u8; 32], Arc<Verified>, Bytes>,
}

struct Verified {
    kid: String,
    claims: Arc<AccessClaims>,
    bytes: u64,
}

/// Weighs a verified token by its size.
#[derive(Clone)]
struct Bytes;

impl Weighter<[u8; 32], Arc<Verified>> for Bytes {
    fn weight(&self, _: &[u8; 32], verified: &Arc<Verified>) -> u64 {
        verified.bytes
    }
}

/// The members of the header that are used. `jku`, `jwk`, `x5u` and the like are ignored: keys come from the app.
#[derive(Deserialize)]
struct Header {
    typ: String,
    alg: TokenAlgorithm,
    kid: String,
    crit: Option<Value>,
}

impl AccessTokens {
    /// For a service at this URL.
    pub fn new(public_url: PublicUrl) -> Self {
        let verified = Cache::with_weighter(REMEMBERED, REMEMBERED_BYTES, Bytes);
        Self { public_url, leeway: LEEWAY, keys: Cache::new(1_000), verified }
    }

    /// Accepts tokens issued up to this many seconds in the future, by a node whose clock is ahead.
    #[must_use]
    pub fn with_leeway(self, seconds: u32) -> Self {
        Self { leeway: seconds.into(), ..self }
    }

    /// Limits the memory for verified tokens to this many bytes.
    pub fn limit_cache(&self, bytes: u64) {
        self.verified.set_capacity(bytes);
    }

    /// Reports the size of the cache of verified tokens.
    pub fn measure(&self) {
        let cache = &self.verified;
        measure::cache("access_tokens", cache.len(), cache.weight(), cache.hits(), cache.misses());
    }

    /// The `iss` of an app's tokens: `<public_url>/v1/apps/<app_id>`.
    pub fn issuer(&self, app: &AppId) -> String {
        self.public_url.of_app(app)
    }

    /// The URL of the service.
    pub fn public_url(&self) -> &PublicUrl {
        &self.public_url
    }

    /// Checks type, key, signature, issuer, audience and times. Whether the session is live is in the log.
    pub fn verify(&self, app: &App, token: &str, at: Timestamp) -> Result<Arc<AccessClaims>, InvalidToken> {
        let app_id = app.id.as_ref().ok_or(InvalidToken::Key)?;
        if token.len() > MAX_TOKEN {
            return Err(InvalidToken::Malformed);
        }
        let hash = remembered_under(app_id, token);
        if let Some(known) = self.verified.get(&hash) {
            app.verification_key(&known.kid).ok_or(InvalidToken::Key)?;
            self.check_times(&known.claims, at)?;
            return Ok(Arc::clone(&known.claims));
        }
        let header = header_of(token)?;
        let jwk = app.verification_key(&header.kid).ok_or(InvalidToken::Key)?;
        if header.alg != jwk.alg {
            return Err(InvalidToken::Key);
        }
        let claims = self.check(app_id, jwk, token)?;
        self.check_times(&claims, at)?;
        let claims = Arc::new(claims);
        // The claims are shorter than the token, plus the overhead of their members.
        let bytes = (token.len() + VERIFIED_BYTES) as u64;
        let verified = Verified { kid: header.kid, claims: Arc::clone(&claims), bytes };
        self.verified.insert(hash, Arc::new(verified));
        Ok(claims)
    }

    fn check(&self, app_id: &AppId, jwk: &PublicJwk, token: &str) -> Result<AccessClaims, InvalidToken> {
        let key = self.key(jwk)?;
        let mut validation = Validation::new(match jwk.alg {
            TokenAlgorithm::Es256 => Algorithm::ES256,
            TokenAlgorithm::EdDsa => Algorithm::EdDSA,
            TokenAlgorithm::Rs256 => Algorithm::RS256,
        });
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[self.issuer(app_id)]);
        validation.set_audience(&[app_id.as_str()]);
        // The library uses the machine's clock; the times are checked against ours, and their types by `AccessClaims`.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let data = jsonwebtoken::decode::<AccessClaims>(token, &key, &validation);
        let claims = data.map_err(|_| InvalidToken::Refused)?.claims;
        // The library accepts a list that contains the audience; ours is exactly one.
        if claims.aud != app_id.as_str() || claims.client_id != app_id.as_str() {
            return Err(InvalidToken::Refused);
        }
        Ok(claims)
    }

    /// No leeway at the end: tokens are issued by the clocks that check them.
    fn check_times(&self, claims: &AccessClaims, at: Timestamp) -> Result<(), InvalidToken> {
        let now = at.as_second();
        let is_over = now >= claims.exp || claims.exp <= claims.iat;
        // A future `iat` comes from a clock that was ahead; accepting it would extend the token's intended lifetime.
        let is_early =
            claims.iat > now.saturating_add(self.leeway) || claims.nbf.is_some_and(|from| now < from);
        if is_over || is_early { Err(InvalidToken::Time) } else { Ok(()) }
    }

    /// A `kid` is the thumbprint of its key (RFC 7638), so the same kid means the same key in every app.
    fn key(&self, jwk: &PublicJwk) -> Result<Arc<DecodingKey>, InvalidToken> {
        if let Some(key) = self.keys.get(&jwk.kid) {
            return Ok(key);
        }
        let key = Arc::new(decoding_key(jwk).ok_or(InvalidToken::Key)?);
        self.keys.insert(jwk.kid.clone(), Arc::clone(&key));
        Ok(key)
    }
}

fn decoding_key(jwk: &PublicJwk) -> Option<DecodingKey> {
    match jwk.alg {
        TokenAlgorithm::Es256 => DecodingKey::from_ec_components(jwk.x.as_deref()?, jwk.y.as_deref()?),
        TokenAlgorithm::EdDsa => DecodingKey::from_ed_components(jwk.x.as_deref()?),
        TokenAlgorithm::Rs256 => DecodingKey::from_rsa_components(jwk.n.as_deref()?, jwk.e.as_deref()?),
    }
    .ok()
}

fn header_of(token: &str) -> Result<Header, InvalidToken> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(InvalidToken::Malformed);
    };
    let bytes = URL_SAFE_NO_PAD.decode(header).map_err(|_| InvalidToken::Malformed)?;
    let header: Header = strict_json::parse(&bytes).map_err(|_| InvalidToken::Malformed)?;
    let typ = header.typ.to_ascii_lowercase();
    if typ.strip_prefix("application/").unwrap_or(&typ) != "at+jwt" || header.crit.is_some() {
        return Err(InvalidToken::Kind);
    }
    Ok(header)
}

fn remembered_under(app_id: &AppId, token: &str) -> [u8; 32] {
    // An app id contains no NUL, so the bytes are unique for each pair.
    let bytes = [app_id.as_str().as_bytes(), &[0], token.as_bytes()].concat();
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    hash
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
