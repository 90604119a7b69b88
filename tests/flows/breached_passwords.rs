use std::time::Duration;

use serde_json::json;
use tests::{Server, email};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Its SHA-1 hash is the two below, concatenated.
const BREACHED: &str = "Another-kettle-17-quay";
const SHA1_PREFIX: &str = "5ECF5";
const SHA1_REST: &str = "AF67D48D19D4BCAA9C9A189A56218B451BC";

/// A list with only that password, which answers after a while.
async fn list(pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("http://{}/range/", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let is_there = request[..length].starts_with(format!("GET /range/{SHA1_PREFIX} ").as_bytes());
            let known = if is_there { format!("{SHA1_REST}:7") } else { String::new() };
            tokio::time::sleep(pause).await;
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", known.len());
            // A client that gave up waiting is gone.
            let _ = stream.write_all([head, known].concat().as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn a_password_from_a_breach_is_refused() {
    let list = list(Duration::ZERO).await;
    let server = Server::start_with(&[("WATCHWORD_BREACHED_PASSWORDS_URL", &list)]).await;
    let app = server.default_app();
    let refused = app.post("auth/register").json(&json!({"email": email("ada"), "password": BREACHED})).await;
    let problem = refused.problem(422, "weak_password");
    assert_eq!(problem["errors"][0]["pointer"], "/password");
    app.register(&email("ada")).await;
    assert!(!server.log().contains(SHA1_PREFIX), "what was asked is in the log");
}

#[tokio::test]
async fn a_silent_list_locks_nobody_out() {
    let list = list(Duration::from_mins(1)).await;
    let server = Server::start_with(&[("WATCHWORD_BREACHED_PASSWORDS_URL", &list)]).await;
    let app = server.default_app();
    let body = json!({"email": email("ada"), "password": BREACHED});
    app.post("auth/register").json(&body).await.expect(201);
    let metrics = server.metrics().await;
    assert!(metrics.contains("watchword_breach_checks_failed_total 1"), "{metrics}");
}
