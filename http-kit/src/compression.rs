//! Which responses are compressed, if the client asks for it.
//!
//! The length of a compressed text tells how much of it repeats. If a text has a secret and something that an attacker
//! chooses, and the attacker can make the victim's browser ask for it many times, the lengths reveal the secret (BREACH,
//! CVE-2013-3587). So what must hold of a response is listed here, rather than what must not:
//!
//! - It answers a GET. Tokens, keys and codes are only in the responses of commands, which are short anyway.
//! - The request had no cookies, the only credentials that a browser adds to requests made by others.
//! - It is data, a script or a style, no page: pages of ours carry the tokens of mailed links in their forms.
//! - It is there as a whole. A live stream would wait in the compressor, and an export is compressed where it is stored.
//!
//! Compressing a long text takes a processor for far longer than asking for it. So documents that are always the same, which
//! anybody may ask for as often as they like, are compressed once ([`Unchanging`]).

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body::Body as _;
use tokio::sync::OnceCell;
use tower::{ServiceExt, service_fn};
use tower_http::compression::Compression;

/// Types of content that hold no secret.
const TYPES: [&str; 7] = [
    "application/json",
    "application/schema+json",
    "application/javascript",
    "text/javascript",
    "text/css",
    "text/plain",
    "image/svg+xml",
];

/// In the extensions of a response that is always the same: what is kept of it once it was compressed.
#[derive(Clone, Default)]
pub struct Unchanging(Arc<[OnceCell<Bytes>; 3]>);

impl Unchanging {
    /// A response to the same request, whose body is compressed only once.
    async fn kept(self, mut compressed: Response) -> Response {
        let coding = compressed.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let kept = match coding {
            Some(b"zstd") => &self.0[0],
            Some(b"br") => &self.0[1],
            Some(b"gzip") => &self.0[2],
            _ => return compressed,
        };
        let body = std::mem::take(compressed.body_mut());
        match kept.get_or_try_init(async || to_bytes(body, usize::MAX).await).await {
            Ok(bytes) => {
                compressed.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
                compressed.map(|_| Body::from(bytes.clone()))
            }
            Err(error) => crate::Problem::internal(error).into_response(),
        }
    }
}

/// A request whose response may be compressed.
pub(crate) struct Compressing {
    /// Shorter responses stay as they are, in bytes.
    least: u64,
    /// What the client understands (`Accept-Encoding`).
    accepted: Vec<HeaderValue>,
}

impl Compressing {
    /// `None` if the response to this request must not be compressed.
    pub(crate) fn of(request: &Request, least: u64) -> Option<Self> {
        let headers = request.headers();
        let may_be = *request.method() == Method::GET && !headers.contains_key(header::COOKIE);
        let accepted = || headers.get_all(header::ACCEPT_ENCODING).iter().cloned().collect();
        may_be.then(|| Self { least, accepted: accepted() })
    }

    /// Compresses a response with zstd, Brotli or gzip, if it is of the right kind and the client understands that.
    ///
    /// No layer of the router does it: that would move every response through the compressor's large state.
    pub(crate) async fn apply(self, response: Response) -> Response {
        if !is_compressible(&response, self.least) {
            return response;
        }
        let unchanging = response.extensions().get::<Unchanging>().cloned();
        let mut request = http::Request::new(());
        for accepted in self.accepted {
            request.headers_mut().append(header::ACCEPT_ENCODING, accepted);
        }
        let mut response = Some(response);
        let made = service_fn(move |_| ready(Ok::<_, Infallible>(response.take().expect("one request"))));
        let always = |_: StatusCode, _: Version, _: &HeaderMap, _: &Extensions| true;
        let compressed = Compression::new(made).compress_when(always).oneshot(request).await;
        let Ok(compressed) = compressed;
        let compressed = compressed.map(Body::new);
        match unchanging {
            Some(unchanging) => unchanging.kept(compressed).await,
            None => compressed,
        }
    }
}

/// Whether a response is of at least so many bytes and of the right kind.
fn is_compressible(response: &Response, least: u64) -> bool {
    let long = response.body().size_hint().exact().is_some_and(|length| length >= least);
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    long && response.status() == StatusCode::OK && TYPES.iter().any(|known| known.eq_ignore_ascii_case(kind))
}
