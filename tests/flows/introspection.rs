use serde_json::json;
use tests::{Server, email};

#[tokio::test]
async fn an_api_key_learns_whether_a_token_is_active() {
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
        assert_eq!(ask(token).await.expect(200).json(), json!({"active": false}), "nothing else is returned");
    }
    let foreign = other.post("auth/introspect").bearer(&foreign_key).form(&[("token", &tokens.access)]).await;
    assert_eq!(foreign.expect(200).json(), json!({"active": false}));

    app.post("auth/introspect").form(&[("token", &tokens.access)]).await.problem(401, "unauthenticated");
    let (_, any) = app.api_key(&["orgs:*"]).await;
    for key in [&any, &server.platform_key()] {
        let json = app.post("auth/introspect").bearer(key).json(&json!({"token": tokens.access}));
        assert_eq!(json.await.expect(200).json()["active"], true, "whatever else the key may do");
    }
    app.post("auth/introspect")
        .bearer(&foreign_key)
        .form(&[("token", &tokens.access)])
        .await
        .problem(404, "not_found");
    // RFC 7662 section 2.1: a form, with any further parameters of the caller's library.
    let hint = [("token", tokens.access.as_str()), ("token_type_hint", "refresh_token"), ("client_id", "x")];
    assert_eq!(app.post("auth/introspect").bearer(&key).form(&hint).await.expect(200).json()["active"], true);
    app.post("auth/introspect")
        .bearer(&key)
        .body("text/plain", "token=x")
        .await
        .problem(415, "unsupported_media_type");
    app.post("auth/introspect").bearer(&key).form(&[("tokens", "x")]).await.problem(400, "malformed_request");
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
            app.post("auth/revoke").form(&[("token", &pick(&tokens))]).await.expect(200).consistency();
        }
        app.me(&tokens.access).await.problem(401, "unauthenticated");
        app.refresh(&tokens.refresh).await.problem(401, "session_revoked");
    }
    // RFC 7009 section 2.2: an invalid token is not an error.
    app.post("auth/revoke").form(&[("token", "nonsense")]).await.expect(200).consistency();
    app.post("auth/revoke").json(&json!({"token": "nonsense"})).await.expect(200);
}
