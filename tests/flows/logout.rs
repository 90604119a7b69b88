use serde_json::json;
use tests::{PASSWORD, Server, email, of_type};

#[tokio::test]
async fn by_refresh_token_or_bearer_and_repeatedly() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let one = app.register(&address).await;
    let two = app.login(&address, PASSWORD).await.tokens();
    for _ in 0..2 {
        app.post("auth/logout").json(&json!({"refresh_token": one.refresh})).await.expect(204);
    }
    app.me(&one.access).await.problem(401, "unauthenticated");
    app.me(&two.access).await.expect(200);
    app.post("auth/logout").bearer(&two.access).await.expect(204);
    app.me(&two.access).await.problem(401, "unauthenticated");
    app.refresh(&two.refresh).await.problem(401, "session_revoked");
    let events = server.events().await;
    let reasons: Vec<_> =
        of_type(&events, "SessionRevoked").iter().map(|it| it["data"]["reason"].clone()).collect();
    assert_eq!(reasons, ["logout", "logout"]);
}

#[tokio::test]
async fn needs_a_credential() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    assert_eq!(app.post("auth/logout").await.status, 401);
    assert_eq!(app.post("auth/logout").json(&json!({"refresh_token": "wwr_x"})).await.status, 401);
    assert_eq!(app.post("auth/logout").bearer("x.y.z").await.status, 401);
}
