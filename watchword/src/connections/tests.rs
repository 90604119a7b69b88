use axum::http::{StatusCode, Version};
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_mins(1);

const SETTINGS: HttpSettings = HttpSettings {
    head_time: Duration::from_mins(1),
    head_bytes: 64 * 1024,
    linger: Discard { time: Duration::from_secs(5), bytes: 1024 * 1024 },
    streams: 100,
    resets: 20,
};

/// For clients that dawdle.
const SHORT: HttpSettings = HttpSettings { head_time: Duration::from_millis(200), ..SETTINGS };

struct Serving {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    async fn start(router: Router, settings: HttpSettings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        Self { address, stop, task: tokio::spawn(serve(listener, router, settings, stopped)) }
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
