use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, Version};
use axum::routing::{get, post};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::*;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_mins(1);

const SETTINGS: HttpSettings = HttpSettings {
    head_time: Duration::from_mins(1),
    idle_time: Duration::from_mins(1),
    head_bytes: 64 * 1024,
    linger: Discard { time: Duration::from_secs(5), bytes: 1024 * 1024 },
    streams: 100,
    resets: 20,
};

/// For clients that dawdle.
const SHORT: HttpSettings =
    HttpSettings { head_time: Duration::from_millis(200), idle_time: Duration::from_millis(200), ..SETTINGS };

struct Serving {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    async fn start(router: Router, settings: HttpSettings) -> Self {
        Self::start_in(Room::new(1000, &[]), router, settings).await
    }

    async fn start_in(room: Room, router: Router, settings: HttpSettings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        Self { address, stop, task: tokio::spawn(serve(listener, router, settings, room, stopped)) }
    }

    async fn raw(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        stream.write_all(bytes).await.expect("writes");
        stream
    }

    async fn http2(&self) -> SendRequest<Empty<Bytes>> {
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("speaks HTTP/2");
        tokio::spawn(connection);
        sender
    }

    async fn end(self) {
        let _ = self.stop.send(());
        within(self.task).await.expect("drains");
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in time")
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

fn to(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://localhost{path}")).body(Empty::new()).expect("a request")
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> (StatusCode, Bytes) {
    let response = within(sender.send_request(to(path))).await.expect("an answer");
    assert_eq!(response.version(), Version::HTTP_2);
    let status = response.status();
    (status, within(response.into_body().collect()).await.expect("a body").to_bytes())
}

async fn ask_http1(serving: &Serving, head: &str) -> String {
    let mut stream = serving.raw(head.as_bytes()).await;
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("reads");
    answer
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET http://…/` as HPACK.
const GET_ROOT: &[u8] = &[0x82, 0x84, 0x86];

/// The preface and empty settings.
fn opening() -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[])].concat()
}

/// Reads frames until the connection ends, and returns the error of the last GOAWAY.
async fn goodbye(stream: &mut TcpStream) -> Option<u32> {
    let mut bytes = Vec::new();
    // It may end by a reset: what the client was sending is not read.
    let _ = within(stream.read_to_end(&mut bytes)).await;
    let (mut rest, mut error) = (bytes.as_slice(), None);
    while let Some((head, tail)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, tail)) = tail.split_at_checked(length) else { break };
        if head[3] == GOAWAY {
            error = Some(u32::from_be_bytes(payload[4..8].try_into().expect("an error")));
        }
        rest = tail;
    }
    error
}

const ENHANCE_YOUR_CALM: Option<u32> = Some(11);

#[tokio::test]
async fn both_versions_are_understood_on_one_address() {
    let serving = Serving::start(hello(), SETTINGS).await;
    let mut http2 = serving.http2().await;
    for _ in 0..3 {
        assert_eq!(ask(&mut http2, "/").await, (StatusCode::OK, "hello".into()));
        let answer = ask_http1(&serving, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }
    // What begins like the preface and is none.
    let answer = ask_http1(&serving, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let answer = ask_http1(&serving, &GET.replace("GET", "PRI")).await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    serving.end().await;
}

#[tokio::test]
async fn who_never_ends_a_request_is_let_go_and_the_others_are_answered() {
    let serving = Serving::start(hello(), SHORT).await;
    let never_ends = [opening(), frame(HEADERS, END_STREAM, 1, GET_ROOT)].concat();
    for begun in [
        b"".as_slice(),
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        &PREFACE[..10],
        PREFACE,
        &opening(),
        &never_ends,
    ] {
        let mut slow = serving.raw(begun).await;
        let answer = ask_http1(&serving, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        within(slow.read_to_end(&mut Vec::new())).await.expect("reads");
    }
    serving.end().await;
}

#[tokio::test]
async fn a_request_in_progress_keeps_its_connection() {
    let gate = Arc::new(Notify::new());
    let waits = Arc::clone(&gate);
    let wait = get(async move || {
        waits.notified().await;
        "at last"
    });
    let serving = Serving::start(hello().route("/wait", wait), SHORT).await;
    let mut http2 = serving.http2().await;
    let waiting = tokio::spawn({
        let mut http2 = http2.clone();
        async move { ask(&mut http2, "/wait").await }
    });
    assert_eq!(ask(&mut http2, "/").await.0, StatusCode::OK);
    // One that is idle from now on ends; this one does not, and a stop waits for it.
    let mut idle = serving.raw(&opening()).await;
    within(idle.read_to_end(&mut Vec::new())).await.expect("reads");
    assert_eq!(ask(&mut http2, "/").await.0, StatusCode::OK);
    let _ = serving.stop.send(());
    assert!(!serving.task.is_finished());
    gate.notify_one();
    assert_eq!(within(waiting).await.expect("answered"), (StatusCode::OK, "at last".into()));
    within(serving.task).await.expect("drains");
}

#[tokio::test]
async fn a_connection_has_so_many_requests_at_a_time() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        get(async move || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
        })
    };
    let settings = HttpSettings { streams: 2, ..SETTINGS };
    let serving = Serving::start(hello().route("/count", count), settings).await;
    let mut http2 = serving.http2().await;
    // The client knows the limit with the first answer.
    ask(&mut http2, "/").await;
    let many: Vec<_> = (0..20)
        .map(|_| {
            let mut http2 = http2.clone();
            tokio::spawn(async move { ask(&mut http2, "/count").await.0 })
        })
        .collect();
    for one in many {
        assert_eq!(within(one).await.expect("answered"), StatusCode::OK);
    }
    assert!(most.load(Ordering::SeqCst) <= 2);
    drop(http2);
    serving.end().await;
}

#[tokio::test]
async fn a_head_is_no_longer_than_this() {
    let serving = Serving::start(hello(), SETTINGS).await;
    let mut http2 = serving.http2().await;
    let with = |length: usize| {
        let mut request = to("/");
        request.headers_mut().insert("x-long", "a".repeat(length).parse().expect("a value"));
        request
    };
    let response = within(http2.send_request(with(60_000))).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    match within(http2.send_request(with(70_000))).await {
        Ok(response) => assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        // The server has told its limit, and the client keeps to it.
        Err(error) => assert!(error.is_user() || error.to_string().contains("http2"), "{error}"),
    }
    for (length, status) in [(60_000, "200"), (70_000, "431")] {
        let long = format!("Host: x\r\nX-Long: {}", "a".repeat(length));
        let answer = ask_http1(&serving, &GET.replace("Host: x", &long)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    drop(http2);
    serving.end().await;
}

#[tokio::test]
async fn who_floods_a_connection_loses_it_alone() {
    let serving = Serving::start(hello(), SETTINGS).await;
    let mut other = serving.http2().await;

    // Requests that are given up at once (CVE-2023-44487).
    let mut reset = opening();
    for stream in (1..2000).step_by(2) {
        reset.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, GET_ROOT));
        reset.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let mut flood = serving.raw(&reset).await;
    assert_eq!(goodbye(&mut flood).await, ENHANCE_YOUR_CALM);
    assert_eq!(ask(&mut other, "/").await.0, StatusCode::OK);

    // A head that never ends (CVE-2024-27316).
    let mut endless = [opening(), frame(HEADERS, END_STREAM, 1, GET_ROOT)].concat();
    for _ in 0..1000 {
        endless.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    let mut flood = serving.raw(&endless).await;
    assert_eq!(goodbye(&mut flood).await, ENHANCE_YOUR_CALM);
    assert_eq!(ask(&mut other, "/").await.0, StatusCode::OK);
    drop(other);
    serving.end().await;
}

/// Sends a request on a connection that is kept, and reads the answer, whose head ends with an empty line.
async fn ask_on(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let mut piece = [0; 1024];
        let read = within(stream.read(&mut piece)).await.expect("reads");
        assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    String::from_utf8(answer).expect("text")
}

const KEPT: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

async fn has_ended(stream: &mut TcpStream) -> bool {
    matches!(timeout(PATIENCE, stream.read(&mut [0; 64])).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_a_head_may_take() {
    let settings = HttpSettings { idle_time: Duration::from_hours(1), ..SHORT };
    let serving = Serving::start(hello(), settings).await;
    let mut http2 = serving.http2().await;
    assert_eq!(ask(&mut http2, "/").await.0, StatusCode::OK);
    let mut kept = serving.raw(b"").await;
    ask_on(&mut kept, KEPT).await;
    // One that sends nothing ends meanwhile, and one that begins another head does, too.
    let mut silent = serving.raw(b"").await;
    let mut slow = serving.raw(b"").await;
    ask_on(&mut slow, KEPT).await;
    slow.write_all(b"GET / HT").await.expect("writes");
    assert!(has_ended(&mut silent).await && has_ended(&mut slow).await);
    ask_on(&mut kept, KEPT).await;
    assert_eq!(ask(&mut http2, "/").await.0, StatusCode::OK);
    drop(kept);
    serving.end().await;
}

#[tokio::test]
async fn an_idle_connection_ends_at_last() {
    let serving = Serving::start(hello(), HttpSettings { head_time: Duration::from_hours(1), ..SHORT }).await;
    let mut kept = serving.raw(b"").await;
    ask_on(&mut kept, KEPT).await;
    assert!(has_ended(&mut kept).await);
    serving.end().await;
}

#[tokio::test]
async fn the_last_answer_says_so() {
    let gate = Arc::new(Notify::new());
    let (waits, begun) = (Arc::clone(&gate), Arc::new(Notify::new()));
    let begins = Arc::clone(&begun);
    let wait = get(async move || {
        begins.notify_one();
        waits.notified().await;
        "hello"
    });
    let serving = Serving::start(hello().route("/wait", wait), SETTINGS).await;
    let mut kept = serving.raw(b"").await;
    let answer = ask_on(&mut kept, KEPT).await.to_lowercase();
    assert!(!answer.contains("connection: close"), "{answer}");
    let mut busy = serving.raw(KEPT.replace("/ ", "/wait ").as_bytes()).await;
    within(begun.notified()).await;
    let _ = serving.stop.send(());
    gate.notify_one();
    let answer = ask_on(&mut busy, "").await.to_lowercase();
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(has_ended(&mut kept).await);
    within(serving.task).await.expect("drains");
}

#[tokio::test]
async fn a_full_room_has_room_for_those_who_ask() {
    let router = hello().route("/body", post(async |_: Bytes| "hello"));
    let serving = Serving::start_in(Room::new(8, &[]), router, SETTINGS).await;
    let post = "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1";
    for begun in ["", "GET / HTT", post] {
        let mut flood = vec![];
        for _ in 0..20 {
            flood.push(serving.raw(begun.as_bytes()).await);
            let answer = ask_http1(&serving, GET).await;
            assert!(answer.ends_with("hello"), "{begun}: {answer}");
        }
        let mut ended = 0;
        for stream in &mut flood[..10] {
            ended += u32::from(has_ended(stream).await);
        }
        assert_eq!(ended, 10, "{begun}: the oldest have made room");
    }
    serving.end().await;
}

#[tokio::test]
async fn who_is_being_answered_keeps_its_connection_in_a_full_room() {
    let gate = Arc::new(Notify::new());
    let (waits, begun) = (Arc::clone(&gate), Arc::new(Notify::new()));
    let begins = Arc::clone(&begun);
    let wait = post(async move |_: Bytes| {
        begins.notify_one();
        waits.notified().await;
        "hello"
    });
    let serving = Serving::start_in(Room::new(4, &[]), hello().route("/wait", wait), SETTINGS).await;
    let whole = "POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n";
    let mut busy = serving.raw(whole.as_bytes()).await;
    busy.write_all(b"1").await.expect("writes");
    within(begun.notified()).await;
    let mut flood = vec![];
    for _ in 0..20 {
        flood.push(serving.raw(b"GET /").await);
    }
    assert!(has_ended(&mut flood[0]).await);
    gate.notify_one();
    ask_on(&mut busy, "").await;
    drop((busy, flood));
    serving.end().await;
}

/// An endless answer in parts, so that no buffer holds all of it.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

fn endless() -> Router {
    hello().route("/endless", get(async || Body::new(Endless)))
}

const GET_ENDLESS: &str = "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n";

/// `GET http:///endless` as HPACK, for a client that has no room for any of the answer.
fn get_endless_and_read_nothing() -> Vec<u8> {
    let no_room = [&4_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
    let asked = [&[0x82, 0x86, 0x04, 8][..], b"/endless", &[0x01, 1], b"x"].concat();
    [PREFACE, &frame(4, 0, 0, &no_room), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &asked)].concat()
}

#[tokio::test]
async fn who_does_not_read_its_answer_makes_room() {
    for asked in [GET_ENDLESS.as_bytes(), &get_endless_and_read_nothing()] {
        let serving = Serving::start_in(Room::new(8, &[]), endless(), SETTINGS).await;
        let mut flood = vec![];
        for _ in 0..20 {
            flood.push(serving.raw(asked).await);
            let answer = ask_http1(&serving, GET).await;
            assert!(answer.ends_with("hello"), "{answer}");
        }
        drop(flood);
        serving.end().await;
    }
}

#[tokio::test]
async fn who_does_not_read_its_answer_is_let_go() {
    let settings = HttpSettings { head_time: Duration::from_mins(1), ..SHORT };
    for asked in [GET_ENDLESS.as_bytes(), &get_endless_and_read_nothing()] {
        let room = Room::new(8, &[]);
        let serving = Serving::start_in(room.clone(), endless(), settings).await;
        let _unread = serving.raw(asked).await;
        for is_there in [true, false] {
            let seen = async {
                while room.crowd.is_empty() == is_there {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            within(seen).await;
        }
        serving.end().await;
    }
}

/// A head that never ends after a request that was answered: not for as long as a connection may be idle.
#[tokio::test]
async fn a_later_head_that_never_ends_is_no_idle_connection() {
    let settings = HttpSettings { head_time: Duration::from_millis(200), ..SETTINGS };
    let serving =
        Serving::start(hello(), HttpSettings { idle_time: Duration::from_hours(1), ..settings }).await;
    let first = [opening(), frame(HEADERS, END_HEADERS | END_STREAM, 1, GET_ROOT)].concat();
    let begun = frame(HEADERS, END_STREAM, 3, GET_ROOT);
    for later in [&begun[..], &begun[..11], &frame(HEADERS, END_HEADERS | END_STREAM, 3, GET_ROOT)[..11]] {
        let mut slow = serving.raw(&[&first, later].concat()).await;
        within(slow.read_to_end(&mut Vec::new())).await.expect("reads");
    }
    serving.end().await;
}

/// A process without descriptors cannot accept, which only root could bring about here by lowering its own limit: so the
/// words for it are compared with the system's.
#[cfg(unix)]
#[test]
fn a_lack_of_descriptors_is_told_from_other_errors() {
    for (number, lacks) in [(24, true), (23, true), (12, false), (105, false)] {
        let error = io::Error::from_raw_os_error(number);
        assert_eq!(accepting::lacks_descriptors(&error), lacks, "{error}");
    }
}
