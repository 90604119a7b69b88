use serde_json::json;
use tests::{PASSWORD, Server, email, jwt_header_of, of_type};

#[tokio::test]
async fn rotation_lets_the_next_key_sign_and_keeps_the_last_one_published() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let before = app.register(&address).await;
    let status_of = |keys: &serde_json::Value, status: &str| {
        keys["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["status"] == status)
            .map(|key| key["kid"].clone())
    };
    let key = server.platform_key();
    let old = app.get("admin/keys").bearer(&key).await.expect(200).json();
    app.post("admin/keys/rotate").bearer(&key).await.expect_success();
    let new = app.get("admin/keys").bearer(&key).await.expect(200).json();
    assert_eq!(status_of(&new, "current"), status_of(&old, "next"));
    assert_eq!(status_of(&new, "previous"), status_of(&old, "current"));

    let after = app.login(&address, PASSWORD).await.tokens();
    assert_eq!(Some(jwt_header_of(&after.access)["kid"].clone()), status_of(&new, "current"));
    app.me(&before.access).await.expect(200);
    app.me(&after.access).await.expect(200);

    app.post("admin/keys/rotate").bearer(&key).await.expect_success();
    app.me(&before.access).await.problem(401, "unauthenticated");
    app.me(&after.access).await.expect(200);
    let events = server.events().await;
    assert!(!of_type(&events, "SigningKeyActivated").is_empty());
    assert!(!events.iter().any(|event| event.to_string().contains("\"d\":")), "no private key in an event");
}

#[tokio::test]
async fn another_algorithm_gets_new_keys() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let before = app.register(&address).await;
    server
        .patch(format!("/v1/apps/{}", app.id))
        .bearer(&server.platform_key())
        .json(&json!({"settings": {"token_algorithm": "EdDSA"}}))
        .await
        .expect(200);
    let after = app.login(&address, PASSWORD).await.tokens();
    assert_eq!(jwt_header_of(&after.access)["alg"], "EdDSA");
    app.me(&before.access).await.expect(200);
    app.me(&after.access).await.expect(200);
}
