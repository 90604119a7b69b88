//! A receiver of webhooks: a real HTTP server that accepts, refuses, hangs, redirects, or goes away.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::{App, PATIENCE, Server};

/// A request that came.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The body as an event.
    pub event: Value,
    /// When it came.
    pub at: Instant,
}

impl Message {
    /// A header that every message has.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The position of the event.
    pub fn position(&self) -> u64 {
        self.event["position"].as_u64().expect("an event has a position")
    }
}

/// What the receiver does with a message.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// It answers with this status.
    Answer(u16),
    /// It answers with 307 and this address.
    Redirect(String),
    /// It says nothing.
    Hang,
}

type React = Arc<dyn Fn(&Message) -> Reaction + Send + Sync>;

/// A receiver.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    task: Option<JoinHandle<()>>,
}

struct State {
    react: Mutex<React>,
    /// What was answered with 2xx.
    accepted: Mutex<Vec<Message>>,
    /// All that came.
    seen: Mutex<Vec<Message>>,
}

impl Receiver {
    /// Listens on a free port, and accepts everything.
    pub async fn start() -> Self {
        let react: React = Arc::new(|_| Reaction::Answer(204));
        let state = State { react: Mutex::new(react), accepted: Mutex::default(), seen: Mutex::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(state);
        let task = Some(tokio::spawn(serve(listener, Arc::clone(&state))));
        Self { address, state, task }
    }

    /// Where it listens, by address.
    pub fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Does this with messages from now on.
    pub fn react(&self, react: impl Fn(&Message) -> Reaction + Send + Sync + 'static) {
        *self.state.react.lock().expect("nobody panics") = Arc::new(react);
    }

    /// Goes away: connections are refused.
    pub fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Comes back at the same address.
    pub fn restart(&mut self) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("the port is its own");
        socket.bind(self.address).expect("the port is free");
        let listener = socket.listen(64).expect("it listens");
        self.task = Some(tokio::spawn(serve(listener, Arc::clone(&self.state))));
    }

    /// The messages that it accepted, in their order.
    pub fn accepted(&self) -> Vec<Message> {
        self.state.accepted.lock().expect("nobody panics").clone()
    }

    /// All messages that came, in their order.
    pub fn seen(&self) -> Vec<Message> {
        self.state.seen.lock().expect("nobody panics").clone()
    }

    /// The messages that it accepted, once they are as wanted.
    pub async fn until(&self, what: &str, is_it: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let accepted = self.accepted();
            if is_it(&accepted) {
                return accepted;
            }
            let types: Vec<_> = accepted.iter().map(|message| message.event["type"].to_string()).collect();
            assert!(Instant::now() < deadline, "{what}: there are only {types:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Each event came in the order of its stream: a repeated one may come again, but none before one that it follows.
#[track_caller]
pub fn assert_ordered(messages: &[Message]) {
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for message in messages {
        let stream = message.event["subject"].as_str().expect("a subject");
        let version = message.event["streamversion"].as_u64().expect("a version");
        let before = newest.entry(stream).or_insert(version - 1);
        assert!(version <= *before + 1, "{stream}: {version} came after {before}");
        *before = (*before).max(version);
    }
}

/// The positions of an app's events that a webhook of all events is sent, after a position.
pub async fn webhook_positions(server: &Server, app: &App<'_>, after: u64) -> BTreeSet<u64> {
    let events = server.events().await;
    let of_app = events.iter().filter(|event| event["appid"] == app.id);
    let sent =
        of_app.filter(|event| !["WebhookDelivered", "WebhookFailed"].iter().any(|it| event["type"] == *it));
    sent.map(|event| event["position"].as_u64().expect("a position")).filter(|it| *it > after).collect()
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // They end with the receiver.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("it listens");
        let state = Arc::clone(&state);
        let service = service_fn(move |request: Request<Incoming>| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(answer(&state, request).await) }
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> Response<Empty<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Response::new(Empty::new()) };
    let body = body.to_bytes();
    let event = serde_json::from_slice(&body).expect("the body is JSON");
    let message = Message { headers: head.headers, body, event, at: Instant::now() };
    state.seen.lock().expect("nobody panics").push(message.clone());
    let react = Arc::clone(&state.react.lock().expect("nobody panics"));
    let mut response = Response::new(Empty::new());
    match react(&message) {
        Reaction::Answer(status) => {
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            if response.status().is_success() {
                state.accepted.lock().expect("nobody panics").push(message);
            }
        }
        Reaction::Redirect(to) => {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert("location", to.parse().expect("a URL"));
        }
        Reaction::Hang => std::future::pending().await,
    }
    response
}
