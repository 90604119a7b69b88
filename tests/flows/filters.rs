use serde_json::json;
use tests::{Server, email};

/// Filters that name something nonexistent are errors: an empty page would say that it never happened.
#[tokio::test]
async fn unknown_types_and_apps_in_filters_are_errors() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (_, key) = app.api_key(&["audit:read", "events:read"]).await;
    let platform = server.platform_key();
    for wrong in ["UserRegisterd", "userregistered", "UserRegistered.v1", "*", ""] {
        for accept in ["application/json", "application/x-ndjson", "text/csv"] {
            let answer = app.get(&format!("audit/events?type={wrong}")).bearer(&key).header("accept", accept);
            let problem = answer.await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["code"], "unknown_type", "{wrong:?} as {accept}: {problem}");
        }
        for accept in ["application/json", "text/event-stream"] {
            let answer = app.get(&format!("events?type={wrong}")).bearer(&key).header("accept", accept);
            answer.await.problem(422, "validation_failed");
            let answer =
                server.get(format!("/v1/events?type={wrong}")).bearer(&platform).header("accept", accept);
            answer.await.problem(422, "validation_failed");
        }
    }
    for accept in ["application/json", "text/event-stream"] {
        let answer = server.get("/v1/events?app_id=acne").bearer(&platform).header("accept", accept);
        let problem = answer.await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["code"], "unknown_app", "{problem}");
    }
    // A known type of which there are no events gives an empty page.
    let none = app.get("audit/events?type=UserBanned").bearer(&key).await.expect(200).json();
    assert_eq!(none["total"], 0);
    for known in [app.id.as_str(), "platform", "default"] {
        server.get(format!("/v1/events?app_id={known}")).bearer(&platform).await.expect(200);
    }
}

#[tokio::test]
async fn only_the_platform_sees_the_history_of_its_own_keys() {
    let server = Server::start().await;
    let platform = server.platform_key();
    let app = server.create_app(json!({})).await;
    let body = json!({ "name": "second", "permissions": ["platform"] });
    let keys = "/v1/apps/platform/admin/api-keys";
    let made = server.post(keys).bearer(&platform).json(&body).await.expect(201);
    let second = made.json();
    let id = second["id"].as_str().unwrap();
    let revoked = server.delete(format!("{keys}/{id}")).bearer(&platform).await.expect(204);
    let log = "/v1/apps/platform/audit/events";
    let read = |query: &str| {
        server
            .get(format!("{log}?{query}"))
            .bearer(&platform)
            .header("consistency-token", revoked.consistency())
    };
    let issued = read("type=ApiKeyIssued").await.expect(200).json();
    let by: Vec<_> =
        issued["items"].as_array().unwrap().iter().map(|it| it["actor"]["kind"].as_str()).collect();
    assert_eq!(by, [Some("system"), Some("api_key")], "{issued}");
    let ended = read("type=ApiKeyRevoked").await.expect(200).json();
    assert_eq!(ended["items"][0]["data"]["key_id"], id, "{ended}");
    let table = read("").header("accept", "text/csv").await.expect(200).text;
    assert!(table.contains("ApiKeyIssued") && !table.contains(&app.id), "{table}");
    // For all other callers there is no such app.
    let (_, all) = app.api_key(&["audit:read", "events:read", "keys:write", "users:read"]).await;
    let admin = app.register(&email("ada")).await;
    for token in [all.as_str(), admin.access.as_str()] {
        let answer = server.get(log).bearer(token).await;
        assert!(matches!(answer.status, 401 | 404), "{}", answer.text);
    }
    server.get(log).bearer(second["key"].as_str().unwrap()).await.problem(401, "unauthenticated");
    server.get(log).await.problem(401, "unauthenticated");
}
