use serde_json::{Value, json};
use tests::{PASSWORD, Server, email};

fn sum(items: &Value, member: &str) -> u64 {
    items.as_array().unwrap().iter().map(|it| number(&it[member])).sum()
}

/// A figure, or the sum of figures by method.
fn number(value: &Value) -> u64 {
    match value {
        Value::Object(members) => members.values().map(number).sum(),
        other => other.as_u64().unwrap_or_else(|| panic!("no figure: {other}")),
    }
}

#[tokio::test]
async fn count_what_happened_by_hour_and_day() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    other.register(&email("other")).await;
    let address = email("ada");
    app.register(&address).await;
    app.register(&email("grace")).await;
    app.login(&address, "wrong-Kettle-93").await.problem(401, "invalid_credentials");
    let tokens = app.login(&address, PASSWORD).await.tokens();
    let tokens = app.refresh(&tokens.refresh).await.tokens();
    let last = app.post("auth/logout").bearer(&tokens.access).await.expect(204);
    for granularity in ["day", "hour"] {
        let stats = app
            .get(&format!("admin/stats?granularity={granularity}"))
            .bearer(&server.platform_key())
            .header("consistency-token", last.consistency())
            .await
            .expect(200)
            .json();
        let items = &stats["items"];
        assert_eq!(sum(items, "registrations"), 2, "{stats}");
        assert_eq!(sum(items, "failures"), 1, "{stats}");
        assert_eq!(sum(items, "refreshes"), 1, "{stats}");
        assert_eq!(sum(items, "revocations"), 1, "{stats}");
        assert!(sum(items, "logins") >= 1, "{stats}");
    }
}

#[tokio::test]
async fn bad_ranges_are_refused() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for wrong in
        ["granularity=minute", "from=yesterday", "to=x", "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z"]
    {
        let answer = app.get(&format!("admin/stats?{wrong}")).bearer(&server.platform_key()).await;
        assert!(matches!(answer.status, 400 | 422), "{wrong}: {}", answer.text);
    }
}
