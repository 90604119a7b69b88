//! The unread rest of a request's body when its response is ready.
//!
//! A response need not wait for the body: a limit was reached, there is no such route, the caller has no credentials.
//! But hyper closes a connection with unread data, and a client that is still writing may then lose the response. So
//! the rest is read and discarded, within bounds; if they are not enough, the response says `Connection: close`. In
//! HTTP/2 hyper resets only the request, but some clients (curl 7.88) drop the response then. So the rest is read while
//! the response is sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use futures::StreamExt;
use http::{Version, header};
use http_body::{Body as _, Frame, SizeHint};

/// How much is read and discarded.
#[derive(Clone, Copy, Debug)]
pub struct Discard {
    /// The most bytes.
    pub bytes: u64,
    /// How long to read for.
    pub time: Duration,
}

/// What is done with an unread rest.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Before the response is sent, so that its connection can be used again.
    pub before: Discard,
    /// After that: in HTTP/2 on the same connection, in HTTP/1.1 while the server closes it.
    pub after: Discard,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            before: Discard { bytes: 2 * 1024 * 1024, time: Duration::from_secs(5) },
            after: Discard { bytes: 64 * 1024 * 1024, time: Duration::from_secs(20) },
        }
    }
}

/// The body of a request in progress.
pub(crate) struct Unread {
    left: Arc<Mutex<Left>>,
    /// The client sends nothing before `100 Continue`, which the first read sends.
    waits_to_be_asked: bool,
    is_http2: bool,
    rest: Rest,
}

#[derive(Default)]
struct Left {
    /// The unread rest.
    body: Option<Body>,
    begun: bool,
    ended: bool,
}

impl Unread {
    /// Watches the body, if the request has one.
    pub fn watch(request: Request, rest: Rest) -> (Request, Option<Self>) {
        if request.body().is_end_stream() {
            return (request, None);
        }
        let is_http2 = request.version() == Version::HTTP_2;
        let waits_to_be_asked = request.headers().contains_key(header::EXPECT);
        let left = Arc::new(Mutex::new(Left::default()));
        let request = request.map(|body| Body::new(Watched { inner: Some(body), left: Arc::clone(&left) }));
        (request, Some(Self { left, waits_to_be_asked, is_http2, rest }))
    }

    /// Reads the rest. False if the connection cannot be used again, because it is too much, takes too long, or was never
    /// requested from the client.
    pub async fn discard(self) -> bool {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        if left.ended {
            return true;
        }
        let is_sent = left.begun || !self.waits_to_be_asked;
        let Rest { before, after } = self.rest;
        match left.body {
            Some(body) if self.is_http2 && is_sent => {
                tokio::spawn(discard(body, after));
                true
            }
            _ if self.is_http2 => true,
            Some(body) if is_sent && body.size_hint().lower() <= before.bytes => discard(body, before).await,
            _ => false,
        }
    }
}

/// False if it is too much or takes too long.
async fn discard(body: Body, Discard { bytes, time }: Discard) -> bool {
    let reading = async {
        let (mut chunks, mut length) = (body.into_data_stream(), 0);
        while let Some(chunk) = chunks.next().await {
            let Ok(chunk) = chunk else { return false };
            length += chunk.len() as u64;
            if length > bytes {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(time, reading).await.unwrap_or(false)
}

struct Watched {
    /// Present until dropped.
    inner: Option<Body>,
    left: Arc<Mutex<Left>>,
}

impl Watched {
    fn note(&self, change: impl FnOnce(&mut Left)) {
        change(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let polled = Pin::new(inner).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.note(|left| left.ended = true),
            _ => self.note(|left| left.begun = true),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(body) = self.inner.take() else { return };
        let ended = body.is_end_stream();
        self.note(|left| {
            left.ended |= ended;
            left.body = Some(body);
        });
    }
}
