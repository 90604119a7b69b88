use serde_json::json;
use tests::{Server, email, of_type};

#[tokio::test]
async fn are_shown_once_and_end_when_revoked() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (id, key) = app.api_key(&["users:read"]).await;
    app.get("admin/users").bearer(&key).await.expect(200);
    let list = app.get("admin/api-keys").bearer(&server.platform_key()).await.expect(200);
    assert_eq!(list.json()["items"][0]["id"], *id);
    assert!(!list.text.contains(&key) && !list.text.contains("wwk_"));
    app.delete(&format!("admin/api-keys/{id}")).bearer(&server.platform_key()).await.expect(204);
    app.get("admin/users").bearer(&key).await.problem(401, "unauthenticated");
    assert_eq!(of_type(&server.events().await, "ApiKeyRevoked").len(), 1);
}

#[tokio::test]
async fn do_what_they_are_for_and_nothing_else() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let user = app.register(&email("ada")).await;
    let (_, reader) = app.api_key(&["users:read"]).await;
    app.get("admin/users").bearer(&reader).await.expect(200);
    app.get("admin/stats").bearer(&reader).await.expect(200);
    app.post(&format!("admin/users/{}/ban", user.user_id))
        .bearer(&reader)
        .json(&json!({"reason": "x"}))
        .await
        .problem(403, "forbidden");
    app.get("audit/events").bearer(&reader).await.problem(403, "forbidden");
    app.get("events").bearer(&reader).await.problem(403, "forbidden");
    app.post("admin/keys/rotate").bearer(&reader).await.problem(403, "forbidden");
    server.get("/v1/apps").bearer(&reader).await.problem(403, "forbidden");
    server.get("/v1/events").bearer(&reader).await.problem(403, "forbidden");
}

#[tokio::test]
async fn of_one_app_open_no_other() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let (_, key) = app.api_key(&["users:read", "users:write", "audit:read", "events:read"]).await;
    for path in ["admin/users", "admin/stats", "audit/events", "events", "admin/api-keys"] {
        other.get(path).bearer(&key).await.expect_refusal();
    }
}

#[tokio::test]
async fn issue_no_more_than_they_have() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (_, key) = app.api_key(&["keys:write", "users:read"]).await;
    let issue = |permissions| {
        app.post("admin/api-keys").bearer(&key).json(&json!({"name": "child", "permissions": permissions}))
    };
    issue(json!(["users:read"])).await.expect(201);
    issue(json!(["users:read", "users:write"])).await.problem(403, "forbidden");
    let refused = issue(json!(["platform"])).await;
    assert!(matches!(refused.status, 403 | 422), "{}", refused.text);
    for wrong in [json!([]), json!(["everything"]), json!("users:read")] {
        let answer = app
            .post("admin/api-keys")
            .bearer(&server.platform_key())
            .json(&json!({"name": "wrong", "permissions": wrong}))
            .await;
        assert!(matches!(answer.status, 400 | 422), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_changed_key_is_not_accepted() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (_, key) = app.api_key(&["users:read"]).await;
    for index in 0..key.len() {
        let mut bytes = key.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        app.get("admin/users").bearer(&changed).await.problem(401, "unauthenticated");
    }
}
