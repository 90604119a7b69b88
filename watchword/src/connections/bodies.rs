//! The bodies of a connection's requests and responses, by which it knows what it still waits for.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::pace::One;

/// The body of a request that is not yet there.
pub struct Arriving {
    body: Incoming,
    /// The response may be sent before the body has come.
    one: Weak<One>,
}

impl Arriving {
    /// The body of a request.
    pub fn of(body: Incoming, one: &Arc<One>) -> Body {
        if body.is_end_stream() {
            one.is_whole();
            return Body::empty();
        }
        Body::new(Self { body, one: Arc::downgrade(one) })
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let is_whole = matches!(polled, Poll::Ready(None)) || self.body.is_end_stream();
        if is_whole && let Some(one) = self.one.upgrade() {
            one.is_whole();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response. The request is in progress until it ends.
pub struct InUse {
    body: Body,
    one: Arc<One>,
}

impl InUse {
    /// The body of a response.
    pub fn of(body: Body, one: Arc<One>) -> Body {
        // Nobody asks for the first part while the client takes nothing.
        if !body.is_end_stream() {
            one.has_more();
        }
        Body::new(Self { body, one })
    }
}

impl http_body::Body for InUse {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match polled {
            Poll::Pending => self.one.is_read(),
            Poll::Ready(Some(_)) if !self.body.is_end_stream() => self.one.has_more(),
            Poll::Ready(_) => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
