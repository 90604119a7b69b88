//! The number of concurrent requests is bounded: further ones are told to retry, and those inside are unaffected.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tests::{PASSWORD, Server, email};

/// A request whose body never comes: it is in progress until the connection ends.
fn unfinished(server: &Server) -> TcpStream {
    unfinished_from(server, "default", "192.0.2.1")
}

fn unfinished_from(server: &Server, app: &str, client: &str) -> TcpStream {
    let address = server.base();
    let address = address.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).expect("connects");
    let head = format!(
        "POST /v1/apps/{app}/auth/login HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).expect("writes");
    stream
}

#[tokio::test]
async fn more_requests_than_there_is_room_for_are_put_off() {
    let server = Server::start_with(&[("WATCHWORD_LIMITS_IN_FLIGHT", "2")]).await;
    let app = server.default_app();
    let address = email("ada");
    app.register(&address).await;
    let (mut held, mut refused) = (Vec::new(), None);
    for _ in 0..200 {
        // More than there are places: one that comes while the other request is inside is itself refused.
        held.push(unfinished(&server));
        let answer = app.post("auth/login").json(&json!({"email": address, "password": PASSWORD})).await;
        if answer.status == 503 {
            refused = Some(answer);
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = refused.expect("there is no third place");
    refused.problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Probes need no place: a busy process is not to be restarted.
    for probe in ["/healthz", "/readyz", "/metrics"] {
        server.get(probe).bearer(&server.platform_key()).await.expect(200);
    }
    drop(held);
    for _ in 0..200 {
        if app.login(&address, PASSWORD).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the places are not released");
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
    for _ in 0..200 {
        // A client that has gone is noticed when something is sent.
        server.default_app().register(&email("somebody")).await;
        if listen().stream().await.status() == 200 {
            drop(two);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place is not released");
}

/// Waits until a condition holds: the server needs a moment to notice that clients have come and gone.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn nobody_takes_all_the_places_for_requests() {
    let server = Server::start_with(&[
        ("WATCHWORD_LIMITS_IN_FLIGHT", "16"),
        ("WATCHWORD_TRUSTED_PROXIES", "127.0.0.0/8"),
    ])
    .await;
    let (app, quiet) = (server.default_app(), server.create_app(json!({})).await);
    let address = email("ada");
    quiet.register(&address).await;
    app.register(&address).await;
    let login = async |app: &tests::App<'_>, client: &str| {
        app.login(&address, PASSWORD).header("x-forwarded-for", client).await
    };
    // One address has a quarter.
    let mut held = vec![];
    until("its share is used up", async || {
        // One that comes while a login is inside is itself refused.
        held.push(unfinished_from(&server, "default", "198.51.100.1"));
        login(&app, "198.51.100.1").await.status == 503
    })
    .await;
    let refused = login(&app, "198.51.100.1").await;
    let detail = refused.problem(503, "overloaded")["detail"].as_str().expect("a detail").to_owned();
    assert!(detail.contains("this caller"), "{detail}");
    login(&app, "198.51.100.2").await.expect(200);
    // One app has three quarters, from however many addresses.
    let mut n = 2;
    until("the app's share is used up", async || {
        n += 1;
        held.push(unfinished_from(&server, "default", &format!("198.51.100.{n}")));
        login(&app, "198.51.100.2").await.status == 503
    })
    .await;
    login(&quiet, "198.51.100.2").await.expect(200);
    drop(held);
    until("the places are released", async || login(&app, "198.51.100.1").await.status == 200).await;
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
