//! What is read from the heads of requests.

use std::sync::Arc;

use axum::extract::Request;
use http::{HeaderMap, HeaderName, Method, Version, header};
use uuid::Uuid;

use crate::request::X_REQUEST_ID;

/// Why the head of a request is refused, in the extensions of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongHead(pub &'static str);

/// Checks the name of the host (RFC 9112 section 3.2, RFC 9113 section 8.3.1), for requests that came through a connection.
/// [`crate::around`] refuses those that are wrong.
pub fn check_host(request: &mut Request) {
    if let Some(wrong) = wrong_host(request) {
        request.extensions_mut().insert(wrong);
    }
}

fn wrong_host(request: &Request) -> Option<WrongHead> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Some(WrongHead("the request has more than one Host"));
    }
    let authority = request.uri().authority();
    let Some(host) = host else {
        let is_needed = match request.version() {
            Version::HTTP_2 => authority.is_none(),
            version => version >= Version::HTTP_11,
        };
        return is_needed.then_some(WrongHead("the request has no Host"));
    };
    // Whoever has no name to give sends an empty value.
    let is_name = host.is_empty()
        || http::uri::Authority::try_from(host.as_bytes())
            .is_ok_and(|name| !name.as_str().contains('@') && !name.host().is_empty());
    if !is_name {
        return Some(WrongHead("the Host of the request is not the name of a host"));
    }
    let is_other =
        authority.is_some_and(|name| !name.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()));
    (request.version() == Version::HTTP_2 && is_other)
        .then_some(WrongHead("Host and :authority of the request name two hosts"))
}

/// Callers choose methods freely; a metric must not grow with what they choose.
pub(crate) fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

/// A header that was sent exactly once, as text.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

/// The id in a request if it has a valid one, else this.
pub(crate) fn request_id(headers: &HeaderMap, other: impl FnOnce() -> Uuid) -> Arc<str> {
    match single(headers, &X_REQUEST_ID).filter(|id| is_request_id(id)) {
        Some(id) => id.into(),
        None => (&*other().hyphenated().encode_lower(&mut Uuid::encode_buffer())).into(),
    }
}

fn is_request_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b))
}

pub(crate) fn is_idempotency_key(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn wrong(version: Version, uri: &str, hosts: &[&str]) -> bool {
        let mut request = Request::get(uri).version(version);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        wrong_host(&request.body(Body::empty()).expect("a request")).is_some()
    }

    #[test]
    fn a_request_names_one_host() {
        for hosts in
            [&["login.example.com"][..], &["login.example.com:8080"], &["[::1]:80"], &["127.0.0.1"], &[""]]
        {
            assert!(!wrong(Version::HTTP_11, "/", hosts), "{hosts:?}");
            assert!(!wrong(Version::HTTP_10, "/", hosts), "{hosts:?}");
        }
        for hosts in
            [&["a", "a"][..], &["a", "b"], &["a b"], &["a, b"], &["ada@a"], &["a/b"], &["http://a"], &[":80"]]
        {
            assert!(wrong(Version::HTTP_11, "/", hosts), "{hosts:?}");
            assert!(wrong(Version::HTTP_10, "/", hosts), "{hosts:?}");
        }
        assert!(wrong(Version::HTTP_11, "/", &[]));
        assert!(wrong(Version::HTTP_11, "http://a/", &[]));
        // Version 1.0 knows no hosts.
        assert!(!wrong(Version::HTTP_10, "/", &[]));
        // For a proxy, the name in the target comes first.
        assert!(!wrong(Version::HTTP_11, "http://a/", &["b"]));
        assert!(!wrong(Version::HTTP_2, "http://a/", &[]));
        assert!(!wrong(Version::HTTP_2, "http://a/", &["A"]));
        assert!(!wrong(Version::HTTP_2, "/", &["a"]));
        assert!(wrong(Version::HTTP_2, "/", &[]));
        assert!(wrong(Version::HTTP_2, "http://a/", &["b"]));
        assert!(wrong(Version::HTTP_2, "http://a/", &["a", "a"]));
    }
}
