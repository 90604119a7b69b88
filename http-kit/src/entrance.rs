//! The entrance to a router: every route at each of its names ([`crate::aliases`]), below the path at which clients see
//! them, with the layer around it ([`crate::around`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{OriginalUri, Request};
use axum::response::Response;
use axum::routing::future::RouteFuture;
use http::Uri;
use schemas::problems;
use tower::Service;
use tower::layer::layer_fn;

use crate::aliases::{self, with_path};
use crate::around::Around;
use crate::problem::Problem;
use crate::request::{AUTHORIZATION_SERVER, PROBES, RequestLayer};

/// A router that sees a request's path as its routes have it. A layer of the router itself would see a request only after
/// routing.
#[derive(Clone)]
pub struct Entrance {
    router: Router,
    prefix: Arc<str>,
}

/// Wraps a whole router: other names of its routes, problems for unknown paths and methods, and the layer of
/// [`crate::request`]. Routes added afterwards are not covered.
pub fn around(router: Router, edge: Arc<RequestLayer>) -> Entrance {
    let router = router
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::new(problems::METHOD_NOT_ALLOWED))
        .layer(layer_fn(move |route| Around::new(Arc::clone(&edge), route)));
    router.into()
}

impl From<Router> for Entrance {
    fn from(router: Router) -> Self {
        Self { router, prefix: Arc::default() }
    }
}

impl Entrance {
    /// The same below a path ([`tokens::PublicUrl::prefix`]). Outside that path there are only the probes, for direct
    /// requests to the process.
    #[must_use]
    pub fn below(self, prefix: &str) -> Self {
        Self { prefix: prefix.into(), ..self }
    }
}

impl Service<Request> for Entrance {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // axum does so too, but only from the changed path on.
        let as_it_came = OriginalUri(request.uri().clone());
        request.extensions_mut().insert(as_it_came);
        if !self.prefix.is_empty() {
            *request.uri_mut() = below(&self.prefix, request.uri());
        }
        aliases::resolve_in(&mut request);
        self.router.call(request)
    }
}

/// The path for the routes, which know no prefix. A path outside the prefix becomes one that no route has.
fn below(prefix: &str, uri: &Uri) -> Uri {
    // RFC 8414 section 3.1: the path of the issuer follows the well-known path.
    let inserted = uri.path().strip_prefix(AUTHORIZATION_SERVER).and_then(|rest| rest.strip_prefix(prefix));
    if let Some(rest) = inserted.filter(|rest| rest.starts_with('/')) {
        return with_path(uri, &format!("{AUTHORIZATION_SERVER}{rest}"));
    }
    let path = match uri.path().strip_prefix(prefix) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ if PROBES.contains(&uri.path()) => uri.path(),
        _ => "//",
    };
    with_path(uri, path)
}
