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
    for granularity in ["hour", "day", "week", "month"] {
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
        assert_eq!(sum(items, "active_users"), 2, "{stats}");
        assert_eq!((&stats["time_zone"], &stats["live_sessions"]), (&json!("UTC"), &json!(2)), "{stats}");
    }
}

#[tokio::test]
async fn bad_ranges_are_refused() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for wrong in [
        "granularity=minute",
        "from=1900-01-01",
        "from=-009999-01-01T00:00:00Z",
        "org_id=acme",
        "from=yesterday",
        "to=x",
        "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
    ] {
        let answer = app.get(&format!("admin/stats?{wrong}")).bearer(&server.platform_key()).await;
        assert!(matches!(answer.status, 400 | 422), "{wrong}: {}", answer.text);
    }
}

#[tokio::test]
async fn days_are_those_of_the_apps_time_zone() {
    let server = Server::start().await;
    let (app, key) = (server.create_app(json!({"time_zone": "asia/kathmandu"})).await, server.platform_key());
    let last = app.post("auth/register").json(&json!({"email": email("ada"), "password": PASSWORD})).await;
    let days = async || {
        let stats = app.get("admin/stats").bearer(&key).header("consistency-token", last.consistency());
        let stats = stats.await.expect(200).json();
        let start = stats["items"][0]["start"].as_str().expect("a time").to_owned();
        (stats["time_zone"].clone(), start, sum(&stats["items"], "registrations"))
    };
    let (zone, start, registrations) = days().await;
    assert_eq!((zone, registrations), (json!("Asia/Kathmandu"), 1));
    assert!(start.ends_with("T18:15:00Z"), "{start}");
    // What was counted before the change is shown by the new days too.
    let settings = |zone: &str| json!({"settings": {"time_zone": zone}});
    server.patch(format!("/v1/apps/{}", app.id)).bearer(&key).json(&settings("UTC")).await.expect(200);
    let (zone, start, registrations) = days().await;
    assert_eq!((zone, registrations), (json!("UTC"), 1));
    assert!(start.ends_with("T00:00:00Z"), "{start}");
    for unknown in ["Mars/Olympus", "", "+05:45"] {
        let refused =
            server.patch(format!("/v1/apps/{}", app.id)).bearer(&key).json(&settings(unknown)).await;
        refused.problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn an_organization_has_the_stats_of_its_members() {
    let server = Server::start().await;
    let (app, other, key) =
        (server.create_app(json!({})).await, server.create_app(json!({})).await, server.platform_key());
    let (ada, eve) = (email("ada"), email("eve"));
    let of_ada = app.register(&ada).await;
    app.register(&eve).await;
    let organization = app.create_organization(&of_ada.access, "Engines").await;
    let id = organization["id"].as_str().expect("an id");
    app.login(&ada, PASSWORD).await.expect(200);
    app.login(&ada, "wrong-Kettle-93").await.expect(401);
    let last = app.login(&eve, PASSWORD).await.expect(200);
    let stats = async |query: &str| {
        let stats = app.get(&format!("admin/stats?{query}")).bearer(&key);
        stats.header("consistency-token", last.consistency()).await.expect(200).json()
    };
    let (all, its) = (stats("").await, stats(&format!("org_id={id}")).await);
    let figures = |stats: &Value| {
        ["registrations", "logins", "failures", "active_users"].map(|figure| sum(&stats["items"], figure))
    };
    assert_eq!((figures(&all), &all["live_sessions"]), ([2, 4, 1, 2], &json!(4)), "{all}");
    assert_eq!((figures(&its), &its["live_sessions"]), ([0, 1, 1, 1], &json!(2)), "{its}");
    // Another app does not learn that it exists.
    let refused = other.get(&format!("admin/stats?org_id={id}")).bearer(&key).await;
    assert_eq!(refused.problem(422, "validation_failed")["errors"][0]["code"], "unknown_organization");
}

#[tokio::test]
async fn show_how_far_accounts_come_and_who_returns() {
    let server = Server::start().await;
    let (app, key) = (server.create_app(json!({})).await, server.platform_key());
    let ada = email("ada");
    let of_ada = app.register(&ada).await;
    app.register(&email("grace")).await;
    app.login(&ada, PASSWORD).await.expect(200);
    let last = app.delete(&format!("admin/users/{}", of_ada.user_id)).bearer(&key).await.expect(200);
    let get = async |path: &str| {
        let answer = app.get(&format!("admin/stats/{path}")).bearer(&key);
        answer.header("consistency-token", last.consistency()).await.expect(200).json()
    };
    // Whoever was erased is nobody any more, and still counts.
    let funnel = get("funnel").await;
    let figures = ["registered", "verified", "logged_in"].map(|figure| funnel[figure].clone());
    assert_eq!(figures, [json!(2), json!(0), json!(1)], "{funnel}");
    assert_eq!(get("funnel?to=2026-01-01").await["registered"], 0);
    for granularity in ["week", "month"] {
        let retention = get(&format!("retention?granularity={granularity}")).await;
        let cohorts = retention["cohorts"].as_array().expect("a list");
        assert_eq!(cohorts.len(), 12, "{retention}");
        assert_eq!(cohorts[0]["active"].as_array().map(Vec::len), Some(12));
        assert_eq!((&cohorts[11]["size"], &cohorts[11]["active"]), (&json!(2), &json!([2])), "{retention}");
    }
    for wrong in ["retention?granularity=day", "funnel?from=2026-02-01&to=2026-01-01", "funnel?org_id=x"] {
        let answer = app.get(&format!("admin/stats/{wrong}")).bearer(&key).await;
        assert!(matches!(answer.status, 400 | 422), "{wrong}: {}", answer.text);
    }
}
