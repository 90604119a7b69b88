use serde_json::json;
use tests::{PASSWORD, Server, email, of_type};

const NEW: &str = "Another-kettle-17-quay";

#[tokio::test]
async fn a_reset_ends_older_tokens_and_all_sessions() {
    let server = Server::start().await;
    let app = server.create_app(json!({"delivery": "app"})).await;
    let (_, key) = app.api_key(&["users:write"]).await;
    let address = email("ada");
    let before = app.register(&address).await;
    let body = json!({ "email": address });
    let first = app.mailed_token(&key, "password-reset/request", &body).await;
    let second = app.mailed_token(&key, "forgot-password", &body).await;
    let confirm = |token: &str, password: &str| {
        app.post("auth/password-reset/confirm").json(&json!({"token": token, "new_password": password}))
    };
    confirm(&second, "password1").await.problem(422, "weak_password");
    confirm(&second, NEW).await.expect(204);
    for token in [&first, &second] {
        confirm(token, NEW).await.problem(400, "invalid_or_expired_token");
    }
    app.me(&before.access).await.problem(401, "unauthenticated");
    app.refresh(&before.refresh).await.problem(401, "session_revoked");
    app.login(&address, PASSWORD).await.problem(401, "invalid_credentials");
    let after = app.login(&address, NEW).await.expect(200).tokens();
    assert_eq!(after.user["email_verified"], true);
    let events = server.events().await;
    assert_eq!(of_type(&events, "SessionRevoked").len(), 1);

    app.post("auth/password/change")
        .bearer(&after.access)
        .json(&json!({"old_password": NEW, "new_password": PASSWORD}))
        .await
        .expect(204);
    app.me(&after.access).await.expect(200);
    app.login(&address, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn an_admin_hands_on_a_token() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let user = app.register(&address).await;
    let admin = app.register_admin(&email("admin")).await;
    let path = format!("admin/users/{}/password-reset", user.user_id);
    let made = app.post(&path).bearer(&admin.access).await.expect_success().json();
    let token = made["token"].as_str().expect("a token");
    let page = app.get(&format!("auth/password-reset?token={token}")).await.expect(200);
    assert!(page.is_page() && page.text.contains("autocomplete=\"new-password\""), "{}", page.text);
    let filled = [("token", token), ("new_password", NEW)];
    let done =
        app.post("auth/password-reset/confirm").header("accept", "text/html").form(&filled).await.expect(200);
    assert!(done.is_page(), "{}", done.text);
    let dead = app.get(&format!("auth/password-reset?token={token}")).await.expect(400);
    assert!(dead.is_page(), "{}", dead.text);
    assert_eq!(app.login(&address, NEW).await.expect(200).tokens().user["email_verified"], false, "inv_q");
}
