use serde_json::json;
use tests::{Server, email};

#[tokio::test]
async fn tells_an_api_key_whether_a_token_is_alive() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let tokens = app.register(&email("ada")).await;
    let (_, key) = app.api_key(&["tokens:create"]).await;
    let (_, foreign_key) = other.api_key(&["tokens:create"]).await;
    let ask = |token: &str| app.post("auth/introspect").bearer(&key).form(&[("token", token)]);

    for token in [&tokens.access, &tokens.refresh] {
        let answer = ask(token).await.expect(200).json();
        assert_eq!(answer["active"], true, "{answer}");
        assert_eq!(answer["sub"], *tokens.user_id);
    }
    for token in ["", "x", "a.b.c", &key] {
        assert_eq!(ask(token).await.expect(200).json(), json!({"active": false}), "nothing else is told");
    }
    let foreign = other.post("auth/introspect").bearer(&foreign_key).form(&[("token", &tokens.access)]).await;
    assert_eq!(foreign.expect(200).json(), json!({"active": false}));

    app.post("auth/introspect").form(&[("token", &tokens.access)]).await.problem(401, "unauthenticated");
    app.post("auth/introspect")
        .bearer(&tokens.access)
        .form(&[("token", &tokens.access)])
        .await
        .expect_refusal();

    app.ban(&tokens.user_id).await;
    for token in [&tokens.access, &tokens.refresh] {
        assert_eq!(ask(token).await.expect(200).json(), json!({"active": false}));
    }
}

#[tokio::test]
async fn revocation_ends_the_session_and_never_tells_more() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for pick in [|it: &tests::Tokens| it.access.clone(), |it: &tests::Tokens| it.refresh.clone()] {
        let tokens = app.register(&email("ada")).await;
        for _ in 0..2 {
            app.post("auth/revoke").form(&[("token", &pick(&tokens))]).await.expect(200);
        }
        app.me(&tokens.access).await.problem(401, "unauthenticated");
        app.refresh(&tokens.refresh).await.problem(401, "session_revoked");
    }
    // RFC 7009 section 2.2: an invalid token is no error.
    app.post("auth/revoke").form(&[("token", "nonsense")]).await.expect(200);
}
