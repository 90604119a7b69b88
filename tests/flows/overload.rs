//! What comes in at the same time is bounded: more is told to come again, and whoever is inside notices nothing.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tests::{PASSWORD, Server, email};

/// A request whose body never comes: it is being answered until the connection ends.
fn unfinished(server: &Server) -> TcpStream {
    let address = server.base();
    let address = address.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).expect("connects");
    let head = "POST /v1/apps/default/auth/login HTTP/1.1\r\nHost: localhost\r\n\
        Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
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
        // More than there are places for: one that comes when the other request is inside is turned away itself.
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
    panic!("the places are not given back");
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
        // Whoever has gone is noticed with the next thing to send.
        server.default_app().register(&email("somebody")).await;
        if listen().stream().await.status() == 200 {
            drop(two);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place is not given back");
}
