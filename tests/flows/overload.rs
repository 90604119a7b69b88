//! The number of concurrent requests is bounded: further ones are told to retry, and those inside are unaffected. What
//! only waits for its client takes no place.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;
use tests::{App, PASSWORD, PATIENCE, Server, email, until};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream as Stream};
use tokio::task::AbortHandle;

/// Logins take seconds, one after the other.
const SLOW_HASHES: [(&str, &str); 2] =
    [("WATCHWORD_ARGON2", "m=65536,t=64,p=1"), ("WATCHWORD_PASSWORD_HASHING_THREADS", "1")];

/// A request in progress until it is dropped, or its turn comes.
struct Held(AbortHandle);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn login(app: &App<'_>, client: &str) -> Held {
    let body = json!({"email": email("nobody"), "password": PASSWORD});
    let call = app.post("auth/login").header("x-forwarded-for", client).json(&body);
    let asking = call.into_future();
    Held(tokio::spawn(async move { drop(asking.await) }).abort_handle())
}

#[tokio::test]
async fn more_requests_than_there_is_room_for_are_put_off() {
    let [cost, threads] = SLOW_HASHES;
    let server = Server::start_with(&[("WATCHWORD_LIMITS_IN_FLIGHT", "2"), cost, threads]).await;
    let app = server.default_app();
    let keys = "/.well-known/jwks.json";
    let mut held = vec![];
    until("there is no third place", async || {
        held.push(login(&app, "192.0.2.1"));
        let refused = server.get(keys).await;
        if refused.status == 503 {
            refused.problem(503, "overloaded");
            assert_eq!(refused.header("retry-after"), Some("1"));
        }
        refused.status == 503
    })
    .await;
    // Probes need no place: a busy process is not to be restarted.
    for probe in ["/healthz", "/readyz", "/metrics"] {
        server.get(probe).bearer(&server.platform_key()).await.expect(200);
    }
    drop(held);
    until("the places are released", async || server.get(keys).await.status == 200).await;
}

fn stranger(n: u32) -> String {
    format!("198.18.{}.{}", n / 200, n % 200)
}

/// A connection from another address of this machine.
async fn from(server: &Server, client: u8) -> Stream {
    let base = server.base();
    let server = base.strip_prefix("http://").and_then(|it| it.parse().ok()).expect("an address");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, client], 0).into()).expect("loopback has many addresses");
    socket.connect(server).await.expect("connects")
}

const UNFINISHED: &str = "POST /v1/apps/default/auth/login HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";

#[tokio::test]
async fn bodies_that_do_not_end_keep_nobody_out() {
    for limit in ["WATCHWORD_LIMITS_IN_FLIGHT", "WATCHWORD_HTTP_CONNECTIONS"] {
        let server = Server::start_with(&[(limit, "64")]).await;
        let app = server.default_app();
        let address = email("ada");
        app.register(&address).await;
        let mut held = vec![];
        for _ in 0..10 {
            for client in 2..=21 {
                let mut slow = from(&server, client).await;
                // It may have been ended already.
                let _ = slow.write_all(UNFINISHED.as_bytes()).await;
                held.push(slow);
            }
            app.login(&address, PASSWORD).await.expect(200);
        }
        let metrics = server.metrics().await;
        let (of, what) = if limit.ends_with("CONNECTIONS") {
            ("connections", "connections")
        } else {
            ("bodies", "requests whose bodies are arriving")
        };
        let ended = format!("watchword_ended_for_room_total{{of=\"{of}\"}}");
        let ended = metrics.lines().find_map(|line| line.strip_prefix(&ended)).expect("it is counted");
        assert!(ended.trim().parse::<f64>().expect("a number") >= 100.0, "{ended}");
        let said = format!("there is no room for more than 64 {what}");
        server.says(&said).await;
        assert_eq!(server.log().matches(&said).count(), 1, "said once");
    }
}

#[tokio::test]
async fn a_body_that_is_too_slow_is_told_so() {
    let server = Server::start_with(&[("WATCHWORD_HTTP_BODY_TIME", "2")]).await;
    let base = server.base();
    let mut slow = TcpStream::connect(base.strip_prefix("http://").expect("an address")).expect("connects");
    slow.write_all(UNFINISHED.as_bytes()).expect("writes");
    slow.set_read_timeout(Some(PATIENCE)).expect("an option");
    let mut answer = [0; 4096];
    let read = slow.read(&mut answer).expect("an answer comes");
    let answer = String::from_utf8_lossy(&answer[..read]).to_lowercase();
    assert!(answer.starts_with("http/1.1 400") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn event_streams_have_places_of_their_own() {
    let server = Server::start_with(&[("WATCHWORD_LIMITS_EVENT_STREAMS", "2")]).await;
    let key = server.platform_key();
    let listen = || server.get("/v1/events").bearer(&key).header("accept", "text/event-stream");
    let (one, two) = (listen().stream().await, listen().stream().await);
    assert_eq!((one.status().as_u16(), two.status().as_u16()), (200, 200));
    let refused = listen().await;
    refused.problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("5"));
    server.get("/v1/events").bearer(&key).await.expect(200);
    drop(one);
    until("the place is released", async || {
        // A client that has gone is noticed when something is sent.
        server.default_app().register(&email("somebody")).await;
        listen().stream().await.status() == 200
    })
    .await;
    drop(two);
}

#[tokio::test]
async fn nobody_takes_all_the_places_for_requests() {
    let [cost, threads] = SLOW_HASHES;
    let server = Server::start_with(&[
        ("WATCHWORD_LIMITS_IN_FLIGHT", "16"),
        ("WATCHWORD_LIMITS_IN_FLIGHT_OF_AN_ADDRESS", "4"),
        ("WATCHWORD_LIMITS_IN_FLIGHT_RESERVE", "2"),
        ("WATCHWORD_TRUSTED_PROXIES", "127.0.0.0/8"),
        cost,
        threads,
    ])
    .await;
    let key = server.platform_key();
    let (app, quiet, third) =
        (server.default_app(), server.create_app(json!({})).await, server.create_app(json!({})).await);
    let keys =
        |app: &App<'_>, client: &str| app.get(".well-known/jwks.json").header("x-forwarded-for", client);
    // One address has its share.
    let mut held = vec![];
    until("its share is used up", async || {
        held.push(login(&app, "198.51.100.1"));
        let refused = keys(&app, "198.51.100.1").await;
        refused.status == 503 && refused.text.contains("of this caller")
    })
    .await;
    keys(&app, "198.51.100.2").await.expect(200);
    // One app has three quarters, from however many addresses.
    let mut n = 0;
    until("the app's share is used up", async || {
        n += 1;
        held.push(login(&app, &stranger(n)));
        let refused = keys(&app, "198.51.100.2").await;
        refused.status == 503 && refused.text.contains("of this app")
    })
    .await;
    keys(&quiet, "198.51.100.2").await.expect(200);
    // Strangers do not get what is reserved, in any app.
    until("all but the reserve is used up", async || {
        n += 1;
        held.push(login(&quiet, &stranger(n)));
        keys(&third, "198.51.100.2").await.status == 503
    })
    .await;
    server.get("/v1/apps").bearer(&key).header("x-forwarded-for", "198.51.100.3").await.expect(200);
    // The address has shown credentials now.
    keys(&third, "198.51.100.3").await.expect(200);
    until("strangers still get none", async || {
        n += 1;
        held.push(login(&quiet, &stranger(n)));
        keys(&third, "198.51.100.2").await.status == 503
    })
    .await;
    drop(held);
    until("the places are released", async || keys(&app, "198.51.100.1").await.status == 200).await;
}

#[tokio::test]
async fn an_apps_key_takes_its_share_of_the_event_streams_and_no_more() {
    let server = Server::start_with(&[
        ("WATCHWORD_LIMITS_EVENT_STREAMS", "8"),
        ("WATCHWORD_LIMITS_EVENT_STREAMS_OF_AN_APP", "3"),
        ("WATCHWORD_LIMITS_EVENT_STREAMS_OF_A_CALLER", "2"),
        ("WATCHWORD_LIMITS_EVENT_STREAMS_RESERVE", "2"),
    ])
    .await;
    let mut held = vec![];
    let mut got = vec![];
    for _ in 0..4 {
        let app = server.create_app(json!({})).await;
        let mut of_app = vec![];
        for _ in 0..2 {
            let (_, key) = app.api_key(&["events:read"]).await;
            for _ in 0..3 {
                let call = app.get("events").bearer(&key).header("accept", "text/event-stream");
                let stream = call.stream().await;
                of_app.push(stream.status().as_u16());
                if stream.status() == 200 {
                    held.push(stream);
                }
            }
        }
        got.push(of_app);
    }
    // Two of a key, three of an app, six of all apps together.
    assert_eq!(got[0], [200, 200, 503, 200, 503, 503]);
    assert_eq!(got[1], [200, 200, 503, 200, 503, 503]);
    assert_eq!(got[2..], [[503; 6], [503; 6]]);
    let listen =
        || server.get("/v1/events").bearer(&server.platform_key()).header("accept", "text/event-stream");
    let kept = [listen().stream().await, listen().stream().await].map(|stream| stream.status().as_u16());
    assert_eq!(kept, [200, 200], "the platform's");
}
