//! HTTP/1.1 and HTTP/2 on one address, without TLS, which is left to a proxy. The first bytes of a connection tell which
//! one it is (RFC 9113 section 3.3).
//!
//! The limits of requests (rates, concurrent requests, sizes and times of bodies) are applied behind this module and so
//! hold for both. Those of connections are here. HTTP/2 needs more of them: on one connection a client can start many
//! requests and reset them (CVE-2023-44487), or send a head that never ends (CVE-2024-27316).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::header::CONNECTION;
use axum::response::Response;
use axum::serve::Listener;
use http_body::{Frame, SizeHint};
use http_kit::Discard;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tower::ServiceExt;

use crate::linger::Lingering;

/// The first bytes of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of request bodies that an HTTP/2 connection, and each of its requests, buffers until they are read.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const REQUEST_WINDOW: u32 = 64 * 1024;

/// Bytes of a response that are buffered for an HTTP/2 client that does not read it.
const SEND_BUFFER: usize = 64 * 1024;

/// How long an HTTP/2 client has to acknowledge that its idle connection ends.
const GOODBYE: Duration = Duration::from_secs(5);

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// How long a client may take to send the head of its next request. Without a limit, a client that sends it byte by
    /// byte, or not at all, would hold its connection indefinitely.
    pub head_time: Duration,
    /// The maximum length of a request's head, in bytes.
    pub head_bytes: u32,
    /// What is read after an answer that did not wait for its whole request.
    pub linger: Discard,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// How many requests an HTTP/2 client may reset before the server has looked at them.
    pub resets: usize,
}

/// The current handler of requests.
#[derive(Clone)]
pub struct Stage(Arc<RwLock<Router>>);

impl From<Router> for Stage {
    fn from(router: Router) -> Self {
        Self(Arc::new(RwLock::new(router)))
    }
}

impl Stage {
    pub fn set(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    fn router(&self) -> Router {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers requests until `stop`, then finishes pending ones.
pub async fn serve(
    mut listener: TcpListener,
    stage: impl Into<Stage>,
    settings: HttpSettings,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let stage = stage.into();
    let connections = Connections::new(settings);
    let mut stop = pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            // It waits while the system is out of file descriptors.
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut stop => break,
        };
        // Send small answers at once, without waiting for more data.
        let _ = stream.set_nodelay(true);
        connections.add(stream, peer, stage.clone());
    }
    drop(listener);
    connections.close().await;
}

/// The connections of an address.
struct Connections {
    settings: HttpSettings,
    /// Each connection holds a receiver for as long as it lasts.
    stopping: watch::Sender<bool>,
}

impl Connections {
    fn new(settings: HttpSettings) -> Self {
        Self { settings, stopping: watch::Sender::new(false) }
    }

    /// Answers the requests of a client, in the background.
    fn add(&self, stream: TcpStream, peer: SocketAddr, stage: Stage) {
        let client = Client { settings: self.settings, peer, stage };
        let mut stopping = self.stopping.subscribe();
        tokio::spawn(async move {
            metrics::gauge!("watchword_http_connections").increment(1);
            client.answer(stream, &mut stopping).await;
            metrics::gauge!("watchword_http_connections").decrement(1);
        });
    }

    /// Finishes pending requests, and accepts no new ones.
    async fn close(self) {
        self.stopping.send_replace(true);
        self.stopping.closed().await;
    }
}

struct Client {
    settings: HttpSettings,
    peer: SocketAddr,
    stage: Stage,
}

impl Client {
    async fn answer(&self, mut stream: TcpStream, stopping: &mut watch::Receiver<bool>) {
        let mut begun = Vec::with_capacity(PREFACE.len());
        let is_http2 = tokio::select! {
            first = timeout(self.settings.head_time, speaks_http2(&mut stream, &mut begun)) => first,
            () = stop(stopping) => return,
        };
        match is_http2 {
            Ok(Ok(true)) => self.http2(stream, begun, stopping).await,
            Ok(Ok(false)) => self.http1(stream, begun, stopping).await,
            // It broke, or the client was silent.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    async fn http1(&self, stream: TcpStream, begun: Vec<u8>, stopping: &mut watch::Receiver<bool>) {
        let HttpSettings { head_time, head_bytes, linger, .. } = self.settings;
        let closes = Arc::new(AtomicBool::new(false));
        let stream = Lingering::new(stream, begun, linger, Arc::clone(&closes));
        let answer = service_fn(|request: Request<Incoming>| {
            let (answering, closes) = (self.routed(request), Arc::clone(&closes));
            async move {
                let response = answering.await;
                // Set only by an answer that did not wait for its whole request.
                if response.as_ref().is_ok_and(|response| response.headers().contains_key(CONNECTION)) {
                    closes.store(true, Ordering::Relaxed);
                }
                response
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(head_time).max_buf_size(head_bytes as usize);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), answer));
        tokio::select! {
            // It can fail only because of the client, and there is no one to report that to.
            _ = connection.as_mut() => return,
            () = stop(stopping) => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn http2(&self, stream: TcpStream, begun: Vec<u8>, stopping: &mut watch::Receiver<bool>) {
        let HttpSettings { head_time, head_bytes, linger, streams, resets } = self.settings;
        // An unread body affects only its request, so nothing is left to read when the connection ends.
        let stream = Lingering::new(stream, begun, linger, Arc::default());
        let use_of_it = Arc::new(Use::default());
        let answer = service_fn(|request: Request<Incoming>| {
            let (answering, one) = (self.routed(request), One::of(&use_of_it));
            async move { answering.await.map(|response| response.map(|body| InUse { body, _one: one })) }
        });
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .max_header_list_size(head_bytes)
            .max_pending_accept_reset_streams(resets)
            .max_local_error_reset_streams(resets)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(REQUEST_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(head_time)
            .keep_alive_timeout(head_time);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), answer));
        let idle = tokio::select! {
            _ = connection.as_mut() => return,
            () = stop(stopping) => false,
            () = use_of_it.ends(head_time) => true,
        };
        connection.as_mut().graceful_shutdown();
        if idle {
            let _ = timeout(GOODBYE, connection).await;
        } else {
            let _ = connection.await;
        }
    }

    fn routed(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, Infallible>> + use<> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.stage.router().oneshot(request)
    }
}

/// Reads until the version is known. Whoever answers must read these bytes again.
async fn speaks_http2(stream: &mut TcpStream, begun: &mut Vec<u8>) -> io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    loop {
        let read = stream.read(&mut bytes[..PREFACE.len() - begun.len()]).await?;
        begun.extend_from_slice(&bytes[..read]);
        if read == 0 || !PREFACE.starts_with(begun) {
            return Ok(false);
        }
        if begun.len() == PREFACE.len() {
            return Ok(true);
        }
    }
}

async fn stop(stopping: &mut watch::Receiver<bool>) {
    // Without a sender, nothing waits for the connection.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// The pending requests of one connection.
#[derive(Default)]
struct Use {
    requests: AtomicUsize,
    changed: Notify,
}

impl Use {
    /// Returns after there was no request for this long.
    async fn ends(&self, idle: Duration) {
        loop {
            if self.requests.load(Ordering::Acquire) > 0 {
                self.changed.notified().await;
            } else if timeout(idle, self.changed.notified()).await.is_err()
                && self.requests.load(Ordering::Acquire) == 0
            {
                return;
            }
        }
    }
}

/// One of them, until its response is sent.
struct One(Arc<Use>);

impl One {
    fn of(all: &Arc<Use>) -> Self {
        all.requests.fetch_add(1, Ordering::AcqRel);
        all.changed.notify_one();
        Self(Arc::clone(all))
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// The body of a response. The request is pending until it ends.
struct InUse {
    body: Body,
    _one: One,
}

impl http_body::Body for InUse {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "connections/tests.rs"]
mod tests;
