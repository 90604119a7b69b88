use serde_json::{Value, json};
use tests::{Server, email};

#[tokio::test]
async fn each_decision_is_there_once_as_json_lines_and_table() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    other.register(&email("other")).await;
    let user = app.register(&email("ada")).await;
    let last = app.ban(&user.user_id).await;
    let (_, key) = app.api_key(&["audit:read"]).await;
    let read = |query: &str, accept: &str| {
        app.get(&format!("audit/events?{query}"))
            .bearer(&key)
            .header("accept", accept)
            .header("consistency-token", last.consistency())
    };
    let of_user = format!("user_id={}", user.user_id);
    let page = read(&of_user, "application/json").await.expect(200).json();
    let types: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap()).collect();
    for expected in ["UserRegistered", "SessionStarted", "UserBanned", "SessionRevoked"] {
        assert_eq!(types.iter().filter(|it| **it == expected).count(), 1, "{expected} in {types:?}");
    }
    let banned = read(&format!("{of_user}&type=UserBanned"), "application/json").await.expect(200).json();
    assert_eq!(banned["items"].as_array().unwrap().len(), 1);

    let lines = read(&of_user, "application/x-ndjson").await.expect(200);
    assert!(lines.header("content-type").unwrap().starts_with("application/x-ndjson"));
    let records: Vec<Value> = lines.text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(records.len(), types.len());

    let table = read(&of_user, "text/csv").await.expect(200);
    assert!(table.header("content-type").unwrap().starts_with("text/csv"));
    assert_eq!(table.text.lines().count(), types.len() + 1, "a heading and a line for each");

    let all = read("limit=200", "application/json").await.expect(200).text;
    assert!(!all.contains(&other.id), "another app's history is not shown");
}

#[tokio::test]
async fn pages_meet_without_gap_or_overlap() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let mut last = None;
    for _ in 0..5 {
        let user = app.register(&email("ada")).await;
        last = Some(app.ban(&user.user_id).await);
    }
    let token = last.unwrap().consistency().to_owned();
    let key = server.platform_key();
    let read = |query: String| {
        app.get(&format!("audit/events?{query}")).bearer(&key).header("consistency-token", &token)
    };
    let position = |it: &Value| it["position"].as_u64().unwrap();
    let whole = read("limit=200".to_owned()).await.expect(200).json();
    let whole: Vec<u64> = whole["items"].as_array().unwrap().iter().map(position).collect();
    let mut paged: Vec<u64> = vec![];
    loop {
        let after = paged.last().map_or(String::new(), |it| format!("&after={it}"));
        let page = read(format!("limit=3{after}")).await.expect(200).json();
        let items = page["items"].as_array().unwrap();
        if items.is_empty() {
            break;
        }
        paged.extend(items.iter().map(position));
    }
    assert_eq!(paged, whole);
}
