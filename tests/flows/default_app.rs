use serde_json::json;
use tests::{PASSWORD, Server, claims_of, email};

#[tokio::test]
async fn is_there_on_a_fresh_start_and_answers_without_its_id() {
    let server = Server::start().await;
    let address = email("ada");
    let body = json!({"email": address, "password": PASSWORD});
    let tokens = server.post("/auth/register").json(&body).await.expect(201).tokens();
    assert_eq!(tokens.user["app_id"], "default");
    assert_eq!(claims_of(&tokens.access)["iss"], server.url("/v1/apps/default"));
    server.get("/auth/me").bearer(&tokens.access).await.expect(200);
    server.default_app().me(&tokens.access).await.expect(200);
    server.post("/auth/login").json(&body).await.expect(200);
    server.default_app().login(&address, PASSWORD).await.expect(200);
    let tokens = server
        .post("/auth/refresh")
        .json(&json!({"refresh_token": tokens.refresh}))
        .await
        .expect(200)
        .tokens();
    server.get("/auth/sessions").bearer(&tokens.access).await.expect(200);
    server.post("/auth/logout").bearer(&tokens.access).await.expect(204);
    assert_eq!(
        server.get("/.well-known/jwks.json").await.expect(200).json(),
        server.default_app().get(".well-known/jwks.json").await.expect(200).json()
    );
}

#[tokio::test]
async fn another_apps_tokens_do_not_open_it() {
    let server = Server::start().await;
    let other = server.create_app(json!({})).await;
    let tokens = other.register(&email("ada")).await;
    server.get("/auth/me").bearer(&tokens.access).await.problem(401, "unauthenticated");
}
