//! A stand-in for a KurrentDB server, in memory, with faults on request. It implements what the journal needs:
//! appending at a revision, reading forwards and the last event, accounts, a stream's `$acl`, and TLS. It shows that
//! the adapter works with a server that follows the protocol, not that a real server follows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::protocol::{
    AppendOptions, AppendReq, AppendResp, Empty, Proposed, ReadEvent, ReadOptions, ReadReq, ReadResp,
    Recorded, StreamIdentifier, StreamNotFound, Success, Uuid, WrongExpectedVersion,
};

/// A server's default limit for an append.
const MAX_APPEND_SIZE: usize = 1024 * 1024;

/// A refusal on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Refuses the next append for its content.
    Group,
}

#[derive(Clone, Default)]
struct Event {
    id: u128,
    metadata: HashMap<String, String>,
    custom_metadata: Vec<u8>,
    data: Vec<u8>,
}

#[derive(Default)]
struct State {
    /// Passwords by name; empty if no login is required. `admin` and `ops` are administrators.
    accounts: HashMap<String, String>,
    streams: HashMap<String, Vec<Event>>,
    refusals: Vec<Refusal>,
    is_down: bool,
    /// Notifies subscriptions of a write.
    written: watch::Sender<()>,
}

/// A server on a port of this machine, until it is dropped.
pub(crate) struct Server {
    port: u16,
    is_secured: bool,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0", &[], None).await
    }

    /// Starts with accounts and their passwords.
    pub(crate) async fn start_with(accounts: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1:0", accounts, None).await
    }

    pub(crate) async fn start_at(address: &str, accounts: &[(&str, &str)], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let accounts = accounts.iter().map(|(name, password)| ((*name).to_owned(), (*password).to_owned()));
        let state = Arc::new(Mutex::new(State { accounts: accounts.collect(), ..State::default() }));
        let (shared, is_secured) = (Arc::clone(&state), tls.is_some());
        let accepting = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).expect("is open");
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => speak(state, socket).await,
                        // A client that does not trust the certificate hangs up.
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                speak(state, socket).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, is_secured, state, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        self.url_of("")
    }

    /// For an account: `name:password@`.
    pub(crate) fn url_of(&self, account: &str) -> String {
        // The name in its certificate.
        let host = if self.is_secured { "localhost" } else { "127.0.0.1" };
        format!("esdb://{account}{host}:{}?tls={}", self.port, self.is_secured)
    }

    pub(crate) fn set_password(&self, account: &str, password: &str) {
        lock(&self.state).accounts.insert(account.to_owned(), password.to_owned());
    }

    /// A stream's metadata, as JSON.
    pub(crate) fn about(&self, stream: &str) -> Option<serde_json::Value> {
        lock(&self.state).about(stream)
    }

    pub(crate) fn fail(&self, refusals: &[Refusal]) {
        lock(&self.state).refusals.extend(refusals);
    }

    /// Stops the server and closes all connections.
    pub(crate) async fn stop(mut self) {
        self.accepting.abort();
        // The task owns the port until it has ended.
        let _ = (&mut self.accepting).await;
    }

    /// Makes it answer that it is unavailable, or work again.
    pub(crate) fn set_down(&self, is_down: bool) {
        lock(&self.state).is_down = is_down;
    }

    /// Tampers with stored events.
    pub(crate) fn tamper(&self, stream: &str, change: impl FnOnce(&mut Vec<StoredEvent>)) {
        let mut state = lock(&self.state);
        let events = state.streams.entry(stream.to_owned()).or_default();
        let mut stored = events.drain(..).map(StoredEvent).collect();
        change(&mut stored);
        events.extend(stored.into_iter().map(|event| event.0));
    }
}

/// An event as the server stores it.
#[derive(Clone, Default)]
pub(crate) struct StoredEvent(Event);

impl StoredEvent {
    pub(crate) fn data(&self) -> &[u8] {
        &self.0.data
    }

    pub(crate) fn metadata(&self) -> &[u8] {
        &self.0.custom_metadata
    }

    pub(crate) fn kind(&self) -> (&str, &str) {
        let header = |name| self.0.metadata.get(name).map_or("", String::as_str);
        (header("type"), header("content-type"))
    }

    pub(crate) fn set_data(&mut self, data: &[u8]) {
        self.0.data = data.to_vec();
    }

    pub(crate) fn set_metadata(&mut self, metadata: &[u8]) {
        self.0.custom_metadata = metadata.to_vec();
    }

    pub(crate) fn id(&self) -> u128 {
        self.0.id
    }

    pub(crate) fn set_id(&mut self, id: u128) {
        self.0.id = id;
    }

    pub(crate) fn set_kind(&mut self, kind: &str) {
        self.0.metadata.insert("type".to_owned(), kind.to_owned());
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The account of a request; `None` if it is rejected.
    fn account(&self, headers: &HeaderMap) -> Option<String> {
        if self.accounts.is_empty() {
            return Some(ADMINISTRATOR.to_owned());
        }
        let header = headers.get("authorization")?.to_str().ok()?.strip_prefix("Basic ")?;
        let text = String::from_utf8(STANDARD.decode(header).ok()?).ok()?;
        let (name, password) = text.split_once(':')?;
        let known = self.accounts.get(name)?;
        (known == password).then(|| name.to_owned())
    }

    fn about(&self, stream: &str) -> Option<serde_json::Value> {
        let last = self.streams.get(&format!("$${stream}"))?.last()?;
        serde_json::from_slice(&last.data).ok()
    }

    /// Whether an account may do this with a stream: according to its `$acl` or, without one, to a server's defaults.
    fn may(&self, account: &str, right: &str, stream: &str) -> bool {
        if [ADMINISTRATOR, "ops"].contains(&account) {
            return true;
        }
        let (right, stream) = match stream.strip_prefix("$$") {
            Some(stream) => (format!("$m{right}"), stream),
            None => (format!("${right}"), stream),
        };
        if stream.starts_with('$') {
            return false;
        }
        let allowed = match self.about(stream).map(|about| about["$acl"][&right].clone()) {
            None | Some(serde_json::Value::Null) => return true,
            Some(allowed) => allowed,
        };
        let names = allowed.as_array().cloned().unwrap_or_else(|| vec![allowed]);
        names.iter().any(|name| name == account || name == "$all")
    }
}

const ADMINISTRATOR: &str = "admin";

async fn speak(state: Arc<Mutex<State>>, socket: impl AsyncRead + AsyncWrite + Unpin) {
    // A client that goes away ends its connection, in whatever way.
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(serve(Arc::clone(&state), request, respond));
    }
}

/// gRPC status codes.
const INVALID_ARGUMENT: &str = "3";
const PERMISSION_DENIED: &str = "7";
const UNIMPLEMENTED: &str = "12";
const UNAVAILABLE: &str = "14";
const UNAUTHENTICATED: &str = "16";

async fn serve(state: Arc<Mutex<State>>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let messages = messages(body).await;
    // A client that goes away may leave half a call.
    if messages.is_empty() {
        return;
    }
    if lock(&state).is_down {
        return end(&mut respond, UNAVAILABLE);
    }
    let account = lock(&state).account(&head.headers);
    let may = |right: &str, stream: &str| {
        let Some(account) = &account else { return Err(UNAUTHENTICATED) };
        if lock(&state).may(account, right, stream) { Ok(()) } else { Err(PERMISSION_DENIED) }
    };
    match head.uri.path() {
        "/event_store.client.streams.Streams/Append" => {
            let (options, events) = proposal(&messages);
            match may("w", &name(options.stream.as_ref())) {
                Ok(()) => append(state, options, events, respond).await,
                Err(refusal) => end(&mut respond, refusal),
            }
        }
        "/event_store.client.streams.Streams/Read" => match may("r", &stream_to_read(&messages[0])) {
            Ok(()) => {
                let request = ReadReq::decode(messages[0].clone()).expect("is a request");
                let options = request.options.expect("has options");
                if options.subscription.is_some() {
                    subscribe(&state, options, respond).await;
                } else {
                    let answers = read(&lock(&state), &options);
                    send(&mut respond, answers).await;
                }
            }
            Err(refusal) => end(&mut respond, refusal),
        },
        // Like an early version: the client asks for the server's features.
        _ => end(&mut respond, UNIMPLEMENTED),
    }
}

async fn append(
    state: Arc<Mutex<State>>,
    options: AppendOptions,
    events: Vec<Event>,
    mut respond: SendResponse<Bytes>,
) {
    let refusal = lock(&state).refusals.pop();
    let size: usize = events.iter().map(|event| event.data.len() + event.custom_metadata.len()).sum();
    if size > MAX_APPEND_SIZE || refusal.is_some() {
        return end(&mut respond, INVALID_ARGUMENT);
    }
    let answer = write(&mut lock(&state), &options, events);
    send(&mut respond, vec![answer.encode_to_vec()]).await;
}

/// Appends at the expected revision. If exactly these events are there already, the answer is the same as if they were
/// written now.
fn write(state: &mut State, options: &AppendOptions, events: Vec<Event>) -> AppendResp {
    let stream = state.streams.entry(name(options.stream.as_ref())).or_default();
    let length = options.revision.map_or(0, |revision| index(revision) + 1);
    let is_there = |stream: &[Event]| {
        stream
            .get(length..length + events.len())
            .is_some_and(|found| found.iter().zip(&events).all(|(found, event)| found.id == event.id))
    };
    if options.any.is_some() || length == stream.len() {
        stream.extend(events);
        state.written.send_replace(());
    } else if !is_there(stream) {
        return AppendResp { success: None, wrong: Some(wrong(stream.len(), options)) };
    }
    let success = Success { revision: Some(stream.len() as u64 - 1), no_position: Some(Empty {}) };
    AppendResp { success: Some(success), wrong: None }
}

fn wrong(length: usize, options: &AppendOptions) -> WrongExpectedVersion {
    WrongExpectedVersion {
        revision: length.checked_sub(1).map(|last| last as u64),
        no_stream: (length == 0).then_some(Empty {}),
        expected_revision: options.revision,
        expected_no_stream: options.no_stream,
    }
}

fn stream_to_read(request: &[u8]) -> String {
    let request = ReadReq::decode(request).expect("is a request");
    let stream = request.options.and_then(|options| options.stream).expect("reads a stream");
    name(stream.stream.as_ref())
}

/// Sends the events after a revision, and then new ones, for as long as the client listens.
async fn subscribe(state: &Mutex<State>, mut options: ReadOptions, mut respond: SendResponse<Bytes>) {
    let Ok(mut stream) = respond.send_response(head(), false) else { return };
    let mut written = lock(state).written.subscribe();
    let from = options.stream.as_mut().expect("reads a stream");
    let mut next = from.revision.map_or(0, |after| after + 1);
    loop {
        written.mark_unchanged();
        options.stream.as_mut().expect("reads a stream").revision = Some(next);
        let pushed = {
            let state = lock(state);
            let name = name(options.stream.as_ref().and_then(|stream| stream.stream.as_ref()));
            let is_there =
                !state.is_down && state.streams.get(&name).is_some_and(|stream| !stream.is_empty());
            if is_there { read(&state, &options) } else { vec![] }
        };
        next += pushed.len() as u64;
        for message in pushed {
            if send_all(&mut stream, framed(&message)).await.is_none() {
                return;
            }
        }
        let gone = std::future::poll_fn(|context| stream.poll_reset(context));
        tokio::select! {
            changed = written.changed() => if changed.is_err() { return },
            _ = gone => return,
        }
    }
}

fn read(state: &State, options: &ReadOptions) -> Vec<Vec<u8>> {
    let ReadOptions { stream, direction, count, .. } = options.clone();
    let options = stream.expect("reads a stream");
    let stream_name = name(options.stream.as_ref());
    let Some(events) = state.streams.get(&stream_name).filter(|events| !events.is_empty()) else {
        let stream_not_found = Some(StreamNotFound { stream: options.stream });
        return vec![ReadResp { stream_not_found, ..ReadResp::default() }.encode_to_vec()];
    };
    // Reading backwards, clients only ever request the last event.
    assert!(direction == 0 || (options.revision, count) == (None, Some(1)));
    let first = if direction == 0 { index(options.revision.unwrap_or(0)) } else { events.len() - 1 };
    let answer = |(revision, event): (usize, &Event)| {
        let recorded = Recorded {
            id: Some(Uuid { structured: None, text: Some(uuid::Uuid::from_u128(event.id).to_string()) }),
            stream: options.stream.clone(),
            revision: revision as u64,
            metadata: event.metadata.clone(),
            custom_metadata: event.custom_metadata.clone(),
            data: event.data.clone(),
        };
        let event = ReadEvent { event: Some(recorded), no_position: Some(Empty {}) };
        ReadResp { event: Some(event), stream_not_found: None }.encode_to_vec()
    };
    events.iter().enumerate().skip(first).map(answer).collect()
}

fn index(revision: u64) -> usize {
    usize::try_from(revision).expect("a revision of a small stream")
}

fn name(stream: Option<&StreamIdentifier>) -> String {
    let name = stream.expect("names a stream").name.clone();
    String::from_utf8(name).expect("is text")
}

/// The options come first, then the events.
fn proposal(messages: &[Bytes]) -> (AppendOptions, Vec<Event>) {
    let mut requests =
        messages.iter().map(|message| AppendReq::decode(message.clone()).expect("is a request"));
    let options = requests.next().and_then(|request| request.options).expect("begins with its options");
    let event = |request: AppendReq| {
        let Proposed { id, metadata, custom_metadata, data } = request.proposed.expect("is an event");
        let id = id.and_then(|id| id.structured).expect("has an id");
        let id = u128::from(id.most.cast_unsigned()) << 64 | u128::from(id.least.cast_unsigned());
        Event { id, metadata, custom_metadata, data }
    };
    (options, requests.map(event).collect())
}

/// The messages of a request: each has a byte that says whether it is compressed, and its length, before it.
async fn messages(mut body: RecvStream) -> Vec<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    let mut messages = Vec::new();
    while bytes.remaining() >= 5 {
        assert_eq!(bytes.get_u8(), 0, "is not compressed");
        let length = usize::try_from(bytes.get_u32()).expect("fits");
        messages.push(bytes.split_to(length).freeze());
    }
    messages
}

/// Answers with these messages and success, unless the client went away.
async fn send(respond: &mut SendResponse<Bytes>, messages: Vec<Vec<u8>>) {
    let Ok(mut stream) = respond.send_response(head(), false) else { return };
    for message in messages {
        if send_all(&mut stream, framed(&message)).await.is_none() {
            return;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = stream.send_trailers(trailers);
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("is small"));
    frame.put_slice(message);
    frame.freeze()
}

/// Sends as fast as the client accepts.
async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Option<()> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let capacity = std::future::poll_fn(|context| stream.poll_capacity(context)).await?.ok()?;
        stream.send_data(bytes.split_to(capacity.min(bytes.len())), false).ok()?;
    }
    Some(())
}

fn end(respond: &mut SendResponse<Bytes>, status: &'static str) {
    let mut response = head();
    response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
    let _ = respond.send_response(response, true);
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).expect("is a response")
}
