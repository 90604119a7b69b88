//! Answers that are sent before the request's body was read still reach the client, which writes head and body
//! separately, as most do, and keeps using the connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tests::{PASSWORD, Server, email, until};

/// A connection as in a client's pool.
struct Connection(TcpStream);

struct Raw {
    status: u16,
    head: String,
    closes: bool,
}

impl Connection {
    fn open(server: &Server) -> Self {
        let address = server.base();
        let stream =
            TcpStream::connect(address.strip_prefix("http://").expect("an address")).expect("connects");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
        Self(stream)
    }

    /// Sends head and body separately, and reads the whole answer. A broken connection fails the test.
    fn ask(&mut self, head: &str, body: &[u8], pause: Duration) -> Raw {
        let head = format!("{head}Host: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.0.write_all(head.as_bytes()).expect("the head is sent");
        std::thread::sleep(pause);
        for piece in body.chunks(16 * 1024) {
            // Most clients read no answer before they have written all of it.
            self.0.write_all(piece).expect("all of the body is taken");
        }
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            if let Some(end) = find(&text, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
                let length = header(&head, "content-length").map_or(0, |it| it.parse().expect("a number"));
                if text.len() >= end + 4 + length {
                    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
                    let closes = header(&head, "connection").is_some_and(|it| it == "close");
                    return Raw { status, head, closes };
                }
            }
            let read = self.0.read(&mut buffer).expect("the answer arrives");
            assert!(read > 0, "disconnected without an answer: {}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&buffer[..read]);
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

const JSON: &str = "Content-Type: application/json\r\n";

/// Makes many requests on as few connections as the server allows.
fn many(server: &Server, head: &str, body: &[u8], status: u16, times: usize) {
    let mut connection = Connection::open(server);
    for n in 0..times {
        let pause = Duration::from_micros([0, 100, 2_000][n % 3]);
        let answer = connection.ask(head, body, pause);
        assert_eq!(answer.status, status, "{head}: {}", answer.head);
        if answer.closes {
            connection = Connection::open(server);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_reaches_a_client_that_is_still_writing() {
    let server = Server::start().await;
    let login = json!({"email": email("ada"), "password": PASSWORD}).to_string();
    let path = "/v1/apps/default";
    let small = login.as_bytes();
    let large = vec![b' '; 300_000];
    for (line, kind, body, status) in [
        (format!("POST {path}/nothing/here"), JSON, small, 404),
        (format!("PUT {path}/auth/login"), JSON, small, 405),
        (format!("DELETE {path}/auth/login"), JSON, small, 405),
        (format!("POST {path}/auth/login"), "Content-Type: text/plain\r\n", small, 415),
        (format!("POST {path}/auth/login"), JSON, &large, 413),
        (format!("POST {path}/auth/logout"), JSON, &large, 413),
        (format!("GET {path}/auth/me"), JSON, small, 401),
        (format!("DELETE {path}/auth/sessions/018f0000-0000-7000-8000-000000000000"), JSON, small, 401),
        (format!("GET {path}/admin/users"), JSON, &large, 401),
        (
            format!("POST {path}/auth/refresh"),
            "Content-Type: application/json\r\nIdempotency-Key: a b\r\n",
            small,
            400,
        ),
    ] {
        many(&server, &format!("{line} HTTP/1.1\r\n{kind}"), body, status, 60);
    }
    // A successful route may not have read a body either.
    many(&server, &format!("GET /healthz HTTP/1.1\r\n{JSON}"), small, 200, 60);
}

/// The most memory that a process had so far, in bytes.
fn peak(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_body_is_told_so_and_takes_no_memory() {
    const MIB: usize = 1024 * 1024;
    let server = Server::start().await;
    let heads = ["POST /v1/apps/default/auth/login", "POST /absent"];
    let ask = |size: usize, kept: bool| {
        let huge = vec![b' '; size];
        for head in heads {
            let head = format!("{head} HTTP/1.1\r\n{JSON}");
            let answer = Connection::open(&server).ask(&head, &huge, Duration::ZERO);
            assert!(matches!(answer.status, 413 | 404), "{}", answer.head);
            assert_eq!(answer.closes, !kept, "{}", answer.head);
        }
    };
    ask(MIB, true);
    let before = peak(&server);
    for (mib, kept) in [(1, true), (3, false), (30, false)] {
        // Several at the same time.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..3).for_each(|_| ask(mib * MIB, kept)));
            }
        });
    }
    let more = peak(&server).saturating_sub(before);
    assert!(more < 30 * MIB, "{more} bytes more, which is a body");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_much_is_read_for_a_lost_request_has_limits() {
    let server = Server::start_with(&[
        ("WATCHWORD_HTTP_UNREAD_BYTES", "100000"),
        ("WATCHWORD_HTTP_LINGER_BYTES", "1000000"),
    ])
    .await;
    let head = format!("POST /absent HTTP/1.1\r\n{JSON}");
    assert!(!Connection::open(&server).ask(&head, &vec![b' '; 100_000], Duration::ZERO).closes);
    assert!(Connection::open(&server).ask(&head, &vec![b' '; 200_000], Duration::ZERO).closes);
    // Whoever never ends is cut off.
    let mut endless = Connection::open(&server).0;
    let head = format!("{head}Host: localhost\r\nContent-Length: 100000000000\r\n\r\n");
    endless.write_all(head.as_bytes()).expect("the head is sent");
    let piece = vec![b' '; 64 * 1024];
    let taken = (0..100_000).take_while(|_| endless.write_all(&piece).is_ok()).count();
    assert!(taken < 100_000, "it is cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_reaches_a_client_that_is_still_writing() {
    let server = Server::start_with(&[
        ("WATCHWORD_RATE_LIMITS", "on"),
        ("WATCHWORD_LIMITS_CREDENTIALS", "1/3600"),
        ("WATCHWORD_LIMITS_GENERAL", "3/3600"),
    ])
    .await;
    let login = json!({"email": email("ada"), "password": PASSWORD}).to_string();
    let ask = |path: &str| format!("POST /v1/apps/default/{path} HTTP/1.1\r\n{JSON}");
    for _ in 0..3 {
        Connection::open(&server).ask(&ask("auth/login"), login.as_bytes(), Duration::ZERO);
    }
    many(&server, &ask("auth/login"), login.as_bytes(), 429, 300);
    many(&server, &ask("auth/logout"), login.as_bytes(), 429, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_reaches_a_client_that_is_still_writing() {
    // A login that takes long holds the only place.
    let server =
        Server::start_with(&[("WATCHWORD_LIMITS_IN_FLIGHT", "1"), ("WATCHWORD_ARGON2", "m=262144,t=64,p=1")])
            .await;
    let login = json!({"email": email("ada"), "password": PASSWORD}).to_string();
    let head = format!("POST /v1/apps/default/auth/login HTTP/1.1\r\n{JSON}");
    let whole = format!("{head}Host: localhost\r\nContent-Length: {}\r\n\r\n{login}", login.len());
    let mut logins = Vec::new();
    until("a login has the place", async || {
        // The question may have had it, and the login before this one was refused.
        let mut connection = Connection::open(&server);
        connection.0.write_all(whole.as_bytes()).expect("writes");
        logins.push(connection);
        server.get("/.well-known/jwks.json").await.status == 503
    })
    .await;
    many(&server, &head, login.as_bytes(), 503, 300);
}
