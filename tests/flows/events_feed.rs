use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use tests::{Call, PASSWORD, PATIENCE, Server, assert_gapless, email};

/// Reads `count` server-sent events, each with its `id:`.
async fn read(call: Call, count: usize) -> Vec<(u64, Value)> {
    let response = call.header("accept", "text/event-stream").stream().await;
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let mut body = response.bytes_stream();
    let mut text = String::new();
    let mut events = vec![];
    while events.len() < count {
        let chunk = tokio::time::timeout(PATIENCE, body.next())
            .await
            .unwrap_or_else(|_| panic!("only {} of {count} events", events.len()));
        text.push_str(&String::from_utf8_lossy(&chunk.expect("the feed does not end").unwrap()));
        while let Some(end) = text.find("\n\n") {
            let block: String = text.drain(..end + 2).collect();
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                events.push((id.parse().unwrap(), serde_json::from_str(data).unwrap()));
            }
        }
    }
    events
}

#[tokio::test]
async fn pages_are_the_log() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let tokens = app.register(&address).await;
    let login = app.login(&address, PASSWORD).await.expect(200);
    let events = server.events().await;
    assert_gapless(&events);
    let registered = tests::of_type(&events, "UserRegistered")[0];
    assert_eq!(registered["specversion"], "1.0");
    assert_eq!(registered["subject"], format!("user-{}", tokens.user_id));
    assert_eq!(registered["appid"], *app.id);
    assert_eq!(registered["source"], format!("/v1/apps/{}", app.id));
    assert!(registered["personal"].is_string() && registered["actorkind"].is_string());
    // The schema is at the URL that the event names, and has that URL as its `$id`.
    let schema = registered["dataschema"].as_str().unwrap();
    let path = schema.strip_prefix(&server.url("")).expect("below the address of the first start");
    assert_eq!(path, "/schemas/events/user/UserRegistered.v1.json");
    let document = server.get(path).await.expect(200).json();
    assert_eq!(document["$id"], schema);

    // Filtered lists come from a read model, which may be a moment behind.
    let filtered = server
        .get(format!("/v1/events?type=UserRegistered&app_id={}", app.id))
        .bearer(&server.platform_key())
        .header("consistency-token", login.consistency())
        .await
        .json();
    assert_eq!(filtered["items"].as_array().unwrap().len(), 1);
}

/// The content of events does not change with the configuration.
#[tokio::test]
async fn a_later_address_changes_no_byte() {
    let mut server = Server::new(&[]);
    server.set_environment("WATCHWORD_LOG_ORIGIN", "https://events.example.com/auth/");
    server.up().await;
    let address = email("ada");
    server.default_app().register(&address).await;
    let login = server.default_app().login(&address, PASSWORD).await.expect(200);
    let token = login.consistency().to_owned();
    let bytes = async |server: &Server| {
        let export = server
            .default_app()
            .get("audit/events?type=UserRegistered,SessionStarted")
            .bearer(&server.platform_key())
            .header("consistency-token", &token)
            .header("accept", "application/x-ndjson");
        (server.events().await, export.await.expect(200).text)
    };
    let (mut then, exported) = bytes(&server).await;
    let first = &then[0];
    assert_eq!((&first["type"], &first["position"]), (&json!("JournalCreated"), &json!(1)));
    assert_eq!(first["data"]["origin"], "https://events.example.com/auth");
    for event in &then {
        let schema = event["dataschema"].as_str().unwrap();
        let path = schema.strip_prefix("https://events.example.com/auth").expect(schema);
        assert_eq!(server.get(path).await.expect(200).json()["$id"], schema);
    }
    assert!(
        exported.lines().count() == 3
            && exported.contains("\"dataschema\":\"https://events.example.com/auth/")
    );

    for (name, value) in [
        ("WATCHWORD_LOG_ORIGIN", "https://elsewhere.example"),
        ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
        ("WATCHWORD_LOG_ORIGIN", "another.example"),
    ] {
        server.terminate().await;
        server.set_environment(name, value);
        server.up().await;
        let (now, exported_now) = bytes(&server).await;
        // The first export was recorded after the existing events.
        assert_eq!(now[..then.len()], then, "{name}");
        assert_eq!(exported_now, exported);
        assert_eq!(tests::of_type(&now, "JournalCreated").len(), 1);
        then = now;
    }
}

#[tokio::test]
async fn the_live_feed_resumes_where_it_was() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    app.register(&email("ada")).await;
    let log = server.events().await;
    let key = server.platform_key();
    let feed = |path: &str| server.get(path).bearer(&key);

    let start = read(feed("/v1/events"), log.len()).await;
    assert_eq!(start.iter().map(|it| it.1.clone()).collect::<Vec<_>>(), log);
    assert!(start.iter().all(|(id, event)| event["position"] == *id));

    let middle = log.len() as u64 - 2;
    let resumed = read(feed("/v1/events").header("last-event-id", &middle.to_string()), 2).await;
    assert_eq!(resumed.iter().map(|it| it.0).collect::<Vec<_>>(), [middle + 1, middle + 2]);

    let head = log.len();
    let live = read(feed(&format!("/v1/events?after={head}")), 2);
    let (live, _) = tokio::join!(live, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        app.register(&email("grace")).await
    });
    assert_eq!(live[0].1["prevposition"], head);
    assert_eq!(live[0].1["type"], "UserRegistered");
}

#[tokio::test]
async fn an_app_sees_its_own() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    other.register(&email("other")).await;
    app.register(&email("ada")).await;
    let (_, key) = app.api_key(&["events:read"]).await;
    let page = app.get("events?limit=200").bearer(&key).await.expect(200).json();
    let items = page["items"].as_array().unwrap();
    assert!(items.len() >= 2 && items.iter().all(|it| it["appid"] == *app.id));
    other.get("events").bearer(&key).await.expect_refusal();
    server.get("/v1/events").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn trace_and_request_ids_are_carried_into_events() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = app
        .post("auth/register")
        .header("traceparent", trace)
        .header("x-request-id", "my-request-1")
        .json(&json!({"email": email("ada"), "password": PASSWORD}))
        .await
        .expect(201);
    assert_eq!(answer.header("x-request-id"), Some("my-request-1"));
    let events = server.events().await;
    let carried = tests::of_type(&events, "UserRegistered")[0]["traceparent"].as_str().unwrap().to_owned();
    assert_eq!(carried[3..35], trace[3..35], "the trace id");
}
