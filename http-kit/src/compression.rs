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

use axum::response::Response;
use http::{Extensions, HeaderMap, Method, StatusCode, Version, header};
use http_body::Body as _;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;

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

/// In the extensions of a response that may be compressed.
#[derive(Clone, Copy)]
struct Compressible;

/// Compresses what [`mark`] allows, with zstd, Brotli or gzip.
pub(crate) fn layer() -> CompressionLayer<impl Predicate> {
    let may = |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| {
        extensions.get::<Compressible>().is_some()
    };
    CompressionLayer::new().compress_when(may)
}

/// Whether the responses to a request may be compressed.
pub(crate) fn may_be_asked_for(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET && !headers.contains_key(header::COOKIE)
}

/// Allows it, if the response is of at least so many bytes and of the right kind.
pub(crate) fn mark(response: &mut Response, least: u64) {
    let long = response.body().size_hint().exact().is_some_and(|length| length >= least);
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if long
        && response.status() == StatusCode::OK
        && TYPES.iter().any(|known| known.eq_ignore_ascii_case(kind))
    {
        response.extensions_mut().insert(Compressible);
    }
}
