//! HTTP/1.1 and HTTP/2 on one address, without TLS, which is left to a proxy. The first bytes of a connection tell which
//! one it is (RFC 9113 section 3.3).
//!
//! The limits of requests (rates, concurrent requests, sizes and times of bodies) are applied behind this module and so
//! hold for both. Those of connections are here. HTTP/2 needs more of them: on one connection a client can start many
//! requests and reset them (CVE-2023-44487), or send a head that never ends (CVE-2024-27316).

mod accepting;
mod bodies;
mod pace;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use axum::response::Response;
use http_kit::crowd::{Crowd, Member, Words};
use http_kit::{Discard, Entrance, check_host, peer_of};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::linger::Lingering;
use accepting::Accepting;
use bodies::{Arriving, InUse};
pub use pace::Pace;
use pace::{One, TooLong};

/// The first bytes of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of request bodies that an HTTP/2 connection, and each of its requests, buffers until they are read.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const REQUEST_WINDOW: u32 = 64 * 1024;

/// Bytes of a response that are buffered for an HTTP/2 client that does not read it.
const SEND_BUFFER: usize = 64 * 1024;

/// How long the end of an idle connection may take: an HTTP/2 client acknowledges it.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long a connection without requests stays open when the process stops.
const LAST_CALL: Duration = Duration::from_millis(250);

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// How long a client may take to send the head of its next request. Without a limit, a client that sends it byte by
    /// byte, or not at all, would hold its connection indefinitely.
    pub head_time: Duration,
    /// How long a connection is kept without a request. A proxy must end it first: a request that it sends while we close
    /// is lost, and it cannot send it again if it may have had an effect.
    pub idle_time: Duration,
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
pub struct Stage(Arc<RwLock<Entrance>>);

impl<R: Into<Entrance>> From<R> for Stage {
    fn from(routes: R) -> Self {
        Self(Arc::new(RwLock::new(routes.into())))
    }
}

impl Stage {
    pub fn set(&self, entrance: Entrance) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = entrance;
    }

    fn entrance(&self) -> Entrance {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The room for connections.
#[derive(Clone)]
pub struct Room {
    crowd: Arc<Crowd>,
    trusted_proxies: Arc<[IpNet]>,
}

impl Room {
    /// Room for so many. Those of trusted proxies make no room for those of others.
    pub fn new(connections: usize, trusted_proxies: &[IpNet]) -> Self {
        let words = Words {
            label: "connections",
            what: "connections",
            advice: "If these are not attacks, raise http.connections (WATCHWORD_HTTP_CONNECTIONS), and the limit of open \
                     files with it.",
        };
        Self { crowd: Crowd::new(connections, words), trusted_proxies: trusted_proxies.into() }
    }
}

/// Answers requests until `stop`, then finishes pending ones.
pub async fn serve(
    listener: TcpListener,
    stage: impl Into<Stage>,
    settings: HttpSettings,
    room: Room,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let stage = stage.into();
    let mut accepting = Accepting::new(listener);
    let connections = Connections::new(settings);
    let mut stop = pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = accepting.next(&room) => accepted,
            () = &mut stop => break,
        };
        // Send small answers at once, without waiting for more data.
        let _ = stream.set_nodelay(true);
        // Without room it is closed at once.
        if let Ok(member) = room.crowd.enter(peer_of(peer.ip(), &room.trusted_proxies)) {
            connections.add(stream, peer, stage.clone(), member);
        }
    }
    drop(accepting);
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
    fn add(&self, stream: TcpStream, peer: SocketAddr, stage: Stage, member: Member) {
        let client =
            Client { settings: self.settings, peer, stage, pace: Pace::new(), member: Arc::new(member) };
        let mut stopping = self.stopping.subscribe();
        tokio::spawn(async move {
            metrics::gauge!("watchword_http_connections").increment(1);
            tokio::select! {
                () = client.answer(stream, &mut stopping) => {}
                () = client.member.has_to_leave() => {}
            }
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
    pace: Arc<Pace>,
    member: Arc<Member>,
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
        let HttpSettings { head_time, idle_time, head_bytes, linger, .. } = self.settings;
        let closes = Arc::new(AtomicBool::new(false));
        let stream = Lingering::new(stream, begun, linger, Arc::clone(&closes), Some(Arc::clone(&self.pace)));
        let stops = stopping.clone();
        let answer = service_fn(|request: Request<Incoming>| {
            let (answering, closes, stops) = (self.routed(request), Arc::clone(&closes), stops.clone());
            async move {
                let mut response = answering.await?;
                // Set only by an answer that did not wait for its whole request.
                if response.headers().contains_key(CONNECTION) {
                    closes.store(true, Ordering::Relaxed);
                } else if *stops.borrow() {
                    // A client that knows that it was the last answer sends its next request elsewhere.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut http = http1::Builder::new();
        // The time of a head is limited below, together with the time without one.
        http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(head_bytes as usize);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), answer));
        let too_long = tokio::select! {
            // It can fail only because of the client, and there is no one to report that to.
            _ = connection.as_mut() => return,
            () = stop(stopping) => None,
            why = self.pace.ends(head_time, idle_time) => Some(why),
        };
        match too_long {
            Some(TooLong::Head) => return,
            Some(TooLong::Idle) => {
                connection.as_mut().graceful_shutdown();
                let _ = timeout(GOODBYE, connection).await;
                return;
            }
            None => {}
        }
        // The client's next request may be on its way; its answer says that it was the last.
        if self.pace.is_idle() && timeout(LAST_CALL, connection.as_mut()).await.is_ok() {
            return;
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    async fn http2(&self, stream: TcpStream, begun: Vec<u8>, stopping: &mut watch::Receiver<bool>) {
        let HttpSettings { head_time, idle_time, head_bytes, linger, streams, resets } = self.settings;
        // An unread body affects only its request, so nothing is left to read when the connection ends.
        let stream = Lingering::new(stream, begun, linger, Arc::default(), None);
        let answer = service_fn(|request: Request<Incoming>| self.routed(request));
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
            _ = self.pace.ends(head_time, idle_time) => true,
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
        let one = One::of(&self.pace, &self.member);
        let mut request = request.map(|body| Arriving::of(body, &one));
        check_host(&mut request);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let answering = self.stage.entrance().oneshot(request);
        async move { answering.await.map(|response| response.map(|body| InUse::of(body, one))) }
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

#[cfg(test)]
#[path = "connections/tests.rs"]
mod tests;
