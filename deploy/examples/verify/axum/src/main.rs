//! An axum service that admits callers with an access token of a Watchword app.
//!
//! `ISSUER=https://auth.example.com/v1/apps/acme PORT=3000 cargo run`

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRef, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

/// How long keys are cached.
const KEPT: Duration = Duration::from_secs(300);
/// How soon they may be fetched again when a token names an unknown one: such a token costs nothing to make.
const AGAIN: Duration = Duration::from_secs(5);

/// Verifies the access tokens of one app.
#[derive(Clone)]
struct Verifier(Arc<Inner>);

struct Inner {
    /// `<public_url>/v1/apps/<app_id>`
    issuer: String,
    app_id: String,
    client: reqwest::Client,
    keys: Mutex<Option<(JwkSet, Instant)>>,
}

impl Verifier {
    fn new(issuer: &str) -> anyhow::Result<Self> {
        let app_id = issuer.rsplit('/').next().unwrap_or_default().to_owned();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        Ok(Self(Arc::new(Inner { issuer: issuer.to_owned(), app_id, client, keys: Mutex::default() })))
    }

    async fn key(&self, kid: &str) -> Result<DecodingKey, Refused> {
        let mut keys = self.0.keys.lock().await;
        let age = keys.as_ref().map(|(_, since)| since.elapsed());
        let is_known = keys.as_ref().is_some_and(|(set, _)| set.find(kid).is_some());
        if age.is_none_or(|age| age > if is_known { KEPT } else { AGAIN }) {
            let url = format!("{}/.well-known/jwks.json", self.0.issuer);
            let answer = async { self.0.client.get(url).send().await?.error_for_status()?.json().await }.await;
            match answer {
                Ok(set) => *keys = Some((set, Instant::now())),
                // Known keys stay valid while the server is away.
                Err(_) if is_known => {}
                Err(_) => return Err(Refused::NoKeys),
            }
        }
        let jwk = keys.as_ref().and_then(|(set, _)| set.find(kid)).ok_or(Refused::Token)?;
        DecodingKey::from_jwk(jwk).map_err(|_| Refused::Token)
    }

    async fn verify(&self, token: &str) -> Result<Caller, Refused> {
        let header = decode_header(token).map_err(|_| Refused::Token)?;
        let is_access_token = header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("at+jwt"));
        let known = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256];
        if !is_access_token || !known.contains(&header.alg) {
            return Err(Refused::Token);
        }
        let key = self.key(header.kid.as_deref().ok_or(Refused::Token)?).await?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = 30;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.app_id]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        decode(token, &key, &validation).map(|data| data.claims).map_err(|_| Refused::Token)
    }
}

/// The caller. As a handler argument it answers all others with 401.
#[derive(Deserialize)]
struct Caller {
    sub: String,
    sid: String,
}

enum Refused {
    NoToken,
    Token,
    NoKeys,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, name, value, detail) = match self {
            Self::NoToken => (StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE, "Bearer", "log in first"),
            Self::Token => (
                StatusCode::UNAUTHORIZED,
                header::WWW_AUTHENTICATE,
                "Bearer error=\"invalid_token\"",
                "the token is not valid",
            ),
            Self::NoKeys => {
                (StatusCode::SERVICE_UNAVAILABLE, header::RETRY_AFTER, "5", "the keys are not available")
            }
        };
        (status, [(name, value)], Json(json!({ "detail": detail }))).into_response()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Verifier: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, token) = value.and_then(|value| value.split_once(' ')).ok_or(Refused::NoToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refused::NoToken);
        }
        Verifier::from_ref(state).verify(token.trim()).await
    }
}

async fn hello(State(_): State<Verifier>, caller: Caller) -> Json<serde_json::Value> {
    Json(json!({ "user_id": caller.sub, "session_id": caller.sid }))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let verifier = Verifier::new(&std::env::var("ISSUER")?)?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let app = Router::new().route("/hello", get(hello)).with_state(verifier);
    Ok(axum::serve(listener, app).await?)
}
