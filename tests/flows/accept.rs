//! Which of several representations a client gets (RFC 9110 section 12.5.1), and the options of streams and tables.

use futures::StreamExt as _;
use serde_json::{Value, json};
use tests::{Server, email};

const HEARTBEAT: &str = "event: heartbeat\ndata: {}\n\n";

#[tokio::test]
async fn quality_decides_and_nothing_acceptable_is_406() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    app.register(&email("ada")).await;
    let key = server.platform_key();
    let kind = async |path: &str, accept: &str| {
        let answer = server.get(path).bearer(&key).header("accept", accept).stream().await;
        let kind = answer.headers()["content-type"].to_str().expect("ASCII").to_owned();
        assert_eq!(answer.headers()["vary"], "accept");
        (answer.status().as_u16(), kind.split(';').next().expect("one").to_owned())
    };
    let (json, stream) = ("application/json", "text/event-stream");
    let feeds = ["/v1/events".to_owned(), app.path("events")];
    for path in &feeds {
        for (accept, expected) in [
            ("text/event-stream;q=0, application/json", json),
            ("text/event-stream; q=0.0, */*", json),
            ("application/json, text/event-stream;q=0.9", json),
            ("text/event-stream;q=0.1, application/json;q=0.2", json),
            ("*/*", json),
            ("text/*", stream),
            ("TEXT/Event-Stream", stream),
            ("application/json;q=0.1, text/event-stream", stream),
            ("application/json;q=0, */*;q=0.1", stream),
        ] {
            assert_eq!(kind(path, accept).await, (200, expected.to_owned()), "{path} {accept}");
        }
    }
    let audit = app.path("audit/events");
    for (accept, expected) in [
        ("text/csv;q=0.1, application/json;q=0.2", json),
        ("text/csv;q=0, application/x-ndjson;q=0, */*", json),
        ("application/json;q=0.9, text/csv", "text/csv"),
        ("application/*;q=0.5, application/json;q=0", "application/x-ndjson"),
    ] {
        assert_eq!(kind(&audit, accept).await, (200, expected.to_owned()), "{accept}");
    }
    for path in [&feeds[0], &feeds[1], &audit] {
        for accept in ["text/html", "*/*;q=0", "application/json;q=0, image/*"] {
            let refused = server.get(path).bearer(&key).header("accept", accept).await;
            refused.problem(406, "not_acceptable");
            // A caller who may not read gets only this error.
            server.get(path).header("accept", accept).await.problem(401, "unauthenticated");
        }
    }
}

#[tokio::test]
async fn a_form_is_answered_with_a_page_only_on_request() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for (accept, page) in [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
        ("text/html, */*", true),
        ("text/html;q=0.9", true),
        ("*/*", false),
        ("application/json, text/plain, */*", false),
        ("text/html;q=0, application/json", false),
        ("text/html;q=0.5, application/json", false),
        ("text/html;q=0", false),
    ] {
        let answer = app.post("auth/password-reset/confirm").header("accept", accept);
        let answer = answer.form(&[("token", "x"), ("new_password", "x")]).await.expect(400);
        assert_eq!(answer.is_page(), page, "{accept}");
    }
}

#[tokio::test]
async fn a_stream_beats_and_a_table_says_that_it_is_utf8_on_request() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    app.register(&email("ada")).await;
    let key = server.platform_key();
    let begin = async |query: &str| {
        let call = server.get(format!("/v1/events?after=1{query}")).bearer(&key);
        let response = call.header("accept", "text/event-stream").stream().await;
        assert_eq!(response.status(), 200);
        let mut body = response.bytes_stream();
        let mut text = String::new();
        while text.matches("\n\n").count() < 3 {
            text.push_str(&String::from_utf8_lossy(&body.next().await.expect("more").expect("bytes")));
        }
        text.strip_prefix(": begins\n\n").expect("a comment comes first").to_owned()
    };
    let with = begin("&heartbeat=event").await;
    assert!(with.starts_with(HEARTBEAT) && with[HEARTBEAT.len()..].starts_with("id: 2\n"), "{with}");
    assert!(begin("").await.starts_with("id: 2\n"));
    server.get("/v1/events?heartbeat=often").bearer(&key).await.problem(400, "malformed_request");
    let page: Value = server.get("/v1/events?heartbeat=event").bearer(&key).await.expect(200).json();
    assert!(page["items"].is_array());

    let table = async |query: &str| {
        let call = app
            .get(&format!("audit/events?type=AppCreated{query}"))
            .bearer(&key)
            .header("accept", "text/csv");
        call.await.expect(200).text
    };
    let (bare, marked) = (table("").await, table("&bom=true").await);
    assert_eq!(marked.strip_prefix('\u{feff}'), Some(bare.as_str()));
    assert_eq!(table("&bom=false").await, bare);
    let lines = app.get("audit/events?bom=true").bearer(&key).header("accept", "application/x-ndjson").await;
    assert!(lines.expect(200).text.starts_with('{'));
}
