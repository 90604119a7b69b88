//! API keys of organizations: what introspection says of them, and that they open nothing of Watchword's own.

use serde_json::{Value, json};
use tests::{App, Server, email};

async fn introspected(app: &App<'_>, server_key: &str, key: &str) -> Value {
    app.post("auth/introspect").bearer(server_key).json(&json!({"token": key})).await.expect(200).json()
}

#[tokio::test]
async fn an_api_key_of_an_organization_is_for_the_programs_of_the_app() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let other = server.create_app(json!({})).await;
    let ada = app.register(&email("ada")).await;
    let org = app.create_organization(&ada.access, "Engines").await;
    let org_id = org["id"].as_str().expect("an id");
    let permissions = ["billing:read", "reports:*"];
    let made = app.organization_key(&ada.access, org_id, &permissions).await;
    assert_eq!((&made["permissions"], &made["created_by"]), (&json!(permissions), &json!(ada.user_id)));
    let key = made["key"].as_str().expect("a key").to_owned();
    assert!(key.starts_with("wwk_"));

    let (_, server_key) = app.api_key(&["users:read"]).await;
    let found = introspected(&app, &server_key, &key).await;
    assert_eq!(found["active"], true);
    assert_eq!((&found["org_id"], &found["scope"]), (&org["id"], &json!("billing:read reports:*")));
    assert_eq!((&found["token_type"], &found["jti"]), (&json!("api_key"), &made["id"]));
    assert!(found.get("sub").is_none() && found.get("exp").is_none(), "it is nobody's: {found}");

    // Another app's server learns nothing, and it is not a client itself.
    let (_, other_key) = other.api_key(&["users:read"]).await;
    assert_eq!(introspected(&other, &other_key, &key).await, json!({"active": false}));
    app.post("auth/introspect")
        .bearer(&key)
        .json(&json!({"token": key}))
        .await
        .problem(401, "unauthenticated");
    let as_client =
        [("token", key.as_str()), ("client_id", app.id.as_str()), ("client_secret", key.as_str())];
    assert_eq!(app.post("auth/introspect").form(&as_client).await.status, 401);
    for path in ["auth/me", "admin/users", "orgs", &format!("orgs/{org_id}"), "events"] {
        app.get(path).bearer(&key).await.problem(401, "unauthenticated");
    }
    // Nor is an app's key ever active here.
    assert_eq!(introspected(&app, &server_key, &server_key).await, json!({"active": false}));

    let path = format!("orgs/{org_id}/api-keys");
    let list = app.get(&path).bearer(&ada.access).await.expect(200).json();
    assert_eq!((&list["items"][0]["id"], &list["total"]), (&made["id"], &json!(1)));
    assert!(list["items"][0].get("key").is_none());
    let bad = json!({"name": "", "permissions": ["Billing", "ok"], "expires_at": "2020-01-01T00:00:00Z"});
    let problem = app.post(&path).bearer(&ada.access).json(&bad).await.problem(422, "validation_failed");
    let pointers: Vec<_> =
        problem["errors"].as_array().expect("a list").iter().map(|it| &it["pointer"]).collect();
    assert_eq!(pointers, ["/name", "/permissions/0"]);
    let past = json!({"name": "ci", "permissions": ["ok"], "expires_at": "2020-01-01T00:00:00Z"});
    app.post(&path).bearer(&ada.access).json(&past).await.problem(422, "validation_failed");
    let none = json!({"name": "ci", "permissions": []});
    app.post(&path).bearer(&ada.access).json(&none).await.problem(422, "validation_failed");

    let one = format!("{path}/{}", made["id"].as_str().expect("an id"));
    app.delete(&one).bearer(&ada.access).await.expect(204);
    assert_eq!(introspected(&app, &server_key, &key).await, json!({"active": false}));
    app.delete(&one).bearer(&ada.access).await.problem(404, "not_found");

    // Nothing that is stored has the text of a key.
    let stored = server.stored_bytes();
    assert!(stored.iter().all(|(_, bytes)| !bytes.windows(key.len()).any(|window| window == key.as_bytes())));
}
