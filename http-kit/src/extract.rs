//! Extractors that accept exactly what the contract says. Every refusal is a [`Problem`].

use std::convert::Infallible;
use std::sync::Arc;

use axum::Form;
use axum::body::Bytes;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Path, Query, RawPathParams, Request};
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{AppId, SessionId};
use event_store::Idempotency;
use http::request::Parts;
use http::{HeaderValue, Method, Uri, header};
use schemas::{field_codes, problems};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cookies;
use crate::problem::Problem;
use crate::reader::{self, Nulls};
use crate::request::Attached;

/// The longest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// A JSON body, for PATCH also a merge patch ([`Nulls`]). A handler that checks credentials takes
/// `Result<Body<T>, Problem>` and examines it after that check: a caller without access gets that error, not one about the
/// body. Another content type, or a content coding → 415, more than [`MAX_BODY`] → 413, anything that is not exactly one `T`
/// (nothing at all, bad UTF-8, a duplicate member, a wrong type, and an unknown member if `T` denies those) → 400 that
/// names every such member.
pub struct Body<T> {
    /// What was sent.
    pub value: T,
    /// Present if the request has an `Idempotency-Key`: pass it to the append.
    pub idempotency: Option<Idempotency>,
}

/// Like [`Body`], but it may be `null`, or absent whatever the content type.
pub struct OptionalBody<T> {
    /// What was sent.
    pub value: Option<T>,
    /// See [`Body::idempotency`].
    pub idempotency: Option<Idempotency>,
}

/// For commands that need only their path: no body, `null` or `{}`.
pub struct NoBody {
    /// See [`Body::idempotency`].
    pub idempotency: Option<Idempotency>,
}

/// A form body (`application/x-www-form-urlencoded`, as in the OAuth RFCs) or a JSON body.
pub struct FormOrJson<T> {
    /// What was sent.
    pub value: T,
    /// See [`Body::idempotency`].
    pub idempotency: Option<Idempotency>,
}

/// A text (`text/plain` in UTF-8), as it is. Handlers take `Result<Text, Problem>`, as with [`Body`].
pub struct Text(pub String);

/// The body of a request with NDJSON, which is not read yet: it may be longer than others, so only a caller who may send it is
/// read ([`UnreadLines::read`]).
pub struct UnreadLines(Request);

/// NDJSON (`application/x-ndjson`), as it came.
pub struct Lines {
    /// Without a byte order mark. Whether they are UTF-8 is for each line to say.
    pub bytes: Bytes,
    /// See [`Body::idempotency`].
    pub idempotency: Option<Idempotency>,
}

/// The query string. Bad → 400 that names every wrong parameter.
pub struct Params<T>(pub T);

/// Path segments. Bad → 404, as nothing can exist there.
pub struct Segments<T>(pub T);

/// The app of a route: its segment `{app_id}`, or the default app where a route has none. Whether there is
/// such an app is not checked here, see [`crate::auth::Authenticator::app`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppScope(pub AppId);

/// A body as it came.
struct Raw {
    /// Without a byte order mark.
    bytes: Bytes,
    media: Media,
    /// Whether the method is PATCH.
    is_patch: bool,
    idempotency: Option<Idempotency>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    /// RFC 7396, for PATCH only.
    MergePatch,
    Form,
    Text,
    Lines,
    Other,
    Absent,
}

fn too_large(most: usize) -> Problem {
    Problem::new(problems::PAYLOAD_TOO_LARGE).detail(format!("the body has more than {most} bytes"))
}

async fn read(request: Request) -> Result<Raw, Problem> {
    read_at_most(MAX_BODY, request).await
}

async fn read_at_most(most: usize, request: Request) -> Result<Raw, Problem> {
    let (mut parts, body) = request.into_parts();
    let is_patch = parts.method == Method::PATCH;
    let media = media_of(&parts.headers, is_patch);
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > most as u64) {
        return Err(too_large(most));
    }
    let bytes = Bytes::from(Attached::of(&parts.extensions)?.arriving.body(body, most).await?);
    if !bytes.is_empty() {
        require_no_coding(&parts.headers)?;
    }
    // Some platforms write it by themselves, and a parser may ignore it (RFC 8259 section 8.1).
    let bytes = if bytes.starts_with(BYTE_ORDER_MARK) { bytes.slice(BYTE_ORDER_MARK.len()..) } else { bytes };
    let idempotency = idempotency(&mut parts, &bytes, media).await?;
    Ok(Raw { bytes, media, is_patch, idempotency })
}

/// Of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bodies are small, and one that decompresses to something large is an attack: so they come as they are.
fn require_no_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let is_identity = |value: &HeaderValue| {
        let mut codings = value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
    };
    match values.find(|value| !is_identity(value)) {
        None => Ok(()),
        Some(coding) => {
            let coding =
                String::from_utf8_lossy(coding.as_bytes()).escape_debug().take(64).collect::<String>();
            Err(Problem::new(problems::UNSUPPORTED_CONTENT_ENCODING).detail(format!(
                "the body has the Content-Encoding {coding}, and bodies are taken as they are: send it without"
            )))
        }
    }
}

fn media_of(headers: &HeaderMap, is_patch: bool) -> Media {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(header::CONTENT_TYPE) { Media::Other } else { Media::Absent };
    };
    let Ok(value) = value.to_str() else { return Media::Other };
    let mut parts = value.split(';').map(str::trim);
    let media = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "application/json" => Media::Json,
        "application/merge-patch+json" if is_patch => Media::MergePatch,
        "application/x-www-form-urlencoded" => Media::Form,
        "text/plain" => Media::Text,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Media::Lines,
        _ => return Media::Other,
    };
    let utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, charset)) if name.eq_ignore_ascii_case("charset") => {
            charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    if parts.all(utf8) { media } else { Media::Other }
}

/// The same key of the same caller for the same route means the same request. Both values are keyed hashes: a body can
/// contain a password, and with a plain hash a reader of the journal could test guesses fast.
async fn idempotency(parts: &mut Parts, body: &[u8], media: Media) -> Result<Option<Idempotency>, Problem> {
    let attached = Arc::clone(Attached::of(&parts.extensions)?);
    let (context, keys) = (&attached.context, &attached.edge.idempotency);
    let Some(key) = &context.idempotency_key else { return Ok(None) };
    let AppScope(app_id) = AppScope::from_request_parts(parts, &()).await?;
    let method: &Method = &parts.method;
    let uri: &Uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let caller = match parts.headers.get(header::AUTHORIZATION) {
        Some(value) => caller_of(value.as_bytes()),
        None => cookies::caller(&parts.headers, &app_id).unwrap_or_else(|| {
            format!("address:{}", context.client.ip.as_deref().unwrap_or_default()).into_bytes()
        }),
    };
    let path = uri.path_and_query().map_or(uri.path(), |path| path.as_str());
    let fingerprint = match media {
        // The same text may mean something else.
        Media::MergePatch => keys.hash(&[b"fingerprint", body, b"merge-patch"]),
        _ => keys.hash(&[b"fingerprint", body]),
    };
    let key = keys.hash(&[b"key", &caller, method.as_str().as_bytes(), path.as_bytes(), key.as_bytes()]);
    Ok(Some(Idempotency { key, fingerprint }))
}

/// The caller of an `Authorization` header. A user is identified by their session, which stays the same when the access
/// token is refreshed between two attempts. Nothing is verified here: handlers verify credentials before anything is
/// done under the key, and a stored answer is returned only for the same body.
fn caller_of(authorization: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Claims {
        sid: SessionId,
    }
    let session = || {
        let mut parts = std::str::from_utf8(authorization).ok()?.split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        Some(claims.sid)
    };
    match session() {
        Some(session_id) => format!("session:{session_id}").into_bytes(),
        None => [b"credential:", authorization].concat(),
    }
}

pub(crate) const NO_LAYER: &str = "the router is not wrapped with http_kit::around";

impl Raw {
    fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        match self.media {
            Media::Json => reader::json(&self.bytes, Nulls::LeftOut),
            Media::MergePatch => reader::json(&self.bytes, Nulls::Remove),
            // Without content the type is meaningless: some clients send one nevertheless.
            _ if self.bytes.is_empty() => {
                Err(Problem::malformed(field_codes::MISSING, "a JSON body is needed"))
            }
            _ => Err(Problem::new(problems::UNSUPPORTED_MEDIA_TYPE).detail(if self.is_patch {
                "the body must be application/json or application/merge-patch+json"
            } else {
                "the body must be application/json"
            })),
        }
    }

    /// Whether an optional body is left out.
    fn is_absent(&self) -> bool {
        self.bytes.is_empty() || (self.media == Media::Json && reader::is_null(&self.bytes))
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let raw = read(request).await?;
        Ok(Self { value: raw.json()?, idempotency: raw.idempotency })
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let raw = read(request).await?;
        let value = if raw.is_absent() { None } else { Some(raw.json()?) };
        Ok(Self { value, idempotency: raw.idempotency })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl<S: Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let raw = read(request).await?;
        if !raw.is_absent() {
            let Nothing {} = raw.json()?;
        }
        Ok(Self { idempotency: raw.idempotency })
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for FormOrJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let raw = read(request).await?;
        let value = match raw.media {
            _ if raw.bytes.is_empty() => {
                return Err(Problem::malformed(field_codes::MISSING, "a form or a JSON body is needed"));
            }
            Media::Form => parse_form(raw.bytes).await?,
            Media::Json => reader::json(&raw.bytes, Nulls::LeftOut)?,
            Media::MergePatch | Media::Text | Media::Lines | Media::Other | Media::Absent => {
                return Err(Problem::new(problems::UNSUPPORTED_MEDIA_TYPE)
                    .detail("the body must be application/x-www-form-urlencoded or application/json"));
            }
        };
        Ok(Self { value, idempotency: raw.idempotency })
    }
}

impl<S: Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let raw = read(request).await?;
        if raw.media != Media::Text {
            return Err(
                Problem::new(problems::UNSUPPORTED_MEDIA_TYPE).detail("the body must be text/plain in UTF-8")
            );
        }
        String::from_utf8(raw.bytes.to_vec())
            .map(Self)
            .map_err(|_| Problem::malformed(field_codes::INVALID, "the text is not UTF-8"))
    }
}

impl<S: Sync> FromRequest<S> for UnreadLines {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        Ok(Self(request))
    }
}

impl UnreadLines {
    /// Reads at most so many bytes. More → 413, another content type → 415.
    pub async fn read(self, most: usize) -> Result<Lines, Problem> {
        let raw = read_at_most(most, self.0).await?;
        if raw.media != Media::Lines {
            return Err(Problem::new(problems::UNSUPPORTED_MEDIA_TYPE)
                .detail("the body must be application/x-ndjson"));
        }
        Ok(Lines { bytes: raw.bytes, idempotency: raw.idempotency })
    }
}

async fn parse_form<T: DeserializeOwned>(bytes: Bytes) -> Result<T, Problem> {
    // The parser would replace invalid bytes by a replacement character.
    std::str::from_utf8(&bytes)
        .map_err(|_| Problem::malformed(field_codes::INVALID, "the form is not UTF-8"))?;
    let request = Request::post("/")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(bytes.into())
        .map_err(Problem::internal)?;
    match Form::from_request(request, &()).await {
        Ok(Form(pairs)) => reader::form(pairs),
        Err(error) => Err(Problem::malformed(field_codes::INVALID, error.body_text())),
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => reader::query(pairs).map(Self),
            Err(error) => Err(Problem::malformed(field_codes::INVALID, error.body_text())),
        }
    }
}

/// What `null` means in the body of the request.
impl<S: Sync> FromRequestParts<S> for Nulls {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let is_merge = media_of(&parts.headers, parts.method == Method::PATCH) == Media::MergePatch;
        Ok(if is_merge { Self::Remove } else { Self::LeftOut })
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::not_found()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AppScope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = match RawPathParams::from_request_parts(parts, state).await {
            Ok(params) => params,
            // A route without segments has no parameters.
            Err(RawPathParamsRejection::MissingPathParams(_)) => return Ok(Self(AppId::default_app())),
            Err(_) => return Err(Problem::not_found()),
        };
        match params.iter().find(|(name, _)| *name == "app_id") {
            None => Ok(Self(AppId::default_app())),
            Some((_, text)) => AppId::parse(text).map(Self).map_err(|_| Problem::not_found()),
        }
    }
}
