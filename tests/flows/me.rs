use serde_json::json;
use tests::{Server, email, of_type};

#[tokio::test]
async fn shows_the_caller() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let tokens = app.register(&address).await;
    let me = app.me(&tokens.access).await.expect(200).json();
    assert_eq!(me["email"], *address);
    assert_eq!(me["session_id"], *tokens.session);
    assert_eq!(me["id"], *tokens.user_id);
    assert!(me["orgs"].as_array().is_some_and(Vec::is_empty));
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let tokens = app.register(&email("ada")).await;
    let patch = |body| app.patch("auth/me").bearer(&tokens.access).json(&body);
    let changed = patch(json!({"name": "Ada Lovelace", "phone": "+44 1"})).await.expect(200).json();
    assert_eq!((&changed["name"], &changed["phone"]), (&json!("Ada Lovelace"), &json!("+44 1")));
    let cleared = patch(json!({"phone": ""})).await.expect(200).json();
    assert_eq!((&cleared["name"], &cleared["phone"]), (&json!("Ada Lovelace"), &json!(null)));
    patch(json!({})).await.expect(200);
    assert_eq!(app.me(&tokens.access).await.json()["name"], "Ada Lovelace");
    assert_eq!(
        of_type(&server.events().await, "ProfileUpdated").len(),
        2,
        "nothing changed, nothing written"
    );
}

#[tokio::test]
async fn a_patch_takes_nothing_else() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let tokens = app.register(&email("ada")).await;
    for body in [
        json!({"roles": ["admin"]}),
        json!({"email": "eve@example.org"}),
        json!({"email_verified": true}),
        json!({"name": 7}),
        json!({"banned": false}),
        json!([]),
        json!("name"),
    ] {
        let answer = app.patch("auth/me").bearer(&tokens.access).json(&body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        answer.problem(400, "malformed_request");
    }
    for body in [json!({"name": "x".repeat(5000)}), json!({"avatar_url": "javascript:alert(1)"})] {
        app.patch("auth/me").bearer(&tokens.access).json(&body).await.problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn needs_a_token_of_this_app() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let tokens = app.register(&email("ada")).await;
    app.get("auth/me").await.problem(401, "unauthenticated");
    other.me(&tokens.access).await.problem(401, "unauthenticated");
    app.me(&tokens.refresh).await.problem(401, "unauthenticated");
    app.me(&server.platform_key()).await.problem(401, "unauthenticated");
    app.get("auth/me")
        .header("authorization", &format!("Basic {}", tokens.access))
        .await
        .problem(401, "unauthenticated");
}
