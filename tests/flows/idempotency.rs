use serde_json::json;
use tests::{PASSWORD, Server, email};

#[tokio::test]
async fn the_same_key_and_body_give_the_same_result_and_no_new_events() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let body = json!({"email": email("ada"), "password": PASSWORD});
    let register = || app.post("auth/register").header("idempotency-key", "register-1").json(&body);
    let first = register().await.expect(201).tokens();
    let head = server.events().await.len();
    for _ in 0..3 {
        assert_eq!(register().await.expect(201).tokens().refresh, first.refresh);
    }
    let login = || app.post("auth/login").header("idempotency-key", "login-1").json(&body);
    let one = login().await.expect(200).tokens();
    let two = login().await.expect(200).tokens();
    assert_eq!((&one.session, &one.refresh), (&two.session, &two.refresh));
    let refresh = || {
        app.post("auth/refresh")
            .header("idempotency-key", "refresh-1")
            .json(&json!({"refresh_token": one.refresh}))
    };
    assert_eq!(refresh().await.expect(200).tokens().refresh, refresh().await.expect(200).tokens().refresh);
    assert_eq!(server.events().await.len(), head + 2, "one login, one refresh");
}

#[tokio::test]
async fn another_body_is_refused() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let register = |address: String| {
        app.post("auth/register")
            .header("idempotency-key", "the-key")
            .json(&json!({"email": address, "password": PASSWORD}))
    };
    register(email("ada")).await.expect(201);
    let head = server.events().await.len();
    register(email("eve")).await.problem(422, "idempotency_key_reused");
    assert_eq!(server.events().await.len(), head);
}

#[tokio::test]
async fn a_key_does_not_reveal_the_result_of_others() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let login = |password: &str| {
        app.post("auth/login")
            .header("idempotency-key", "guessable")
            .json(&json!({"email": address, "password": password}))
    };
    let tokens = app.register(&address).await;
    login(PASSWORD).await.expect(200);
    // Without the password the stored result is not returned.
    let guess = login("wrong-Kettle-93").await;
    assert!(matches!(guess.status, 401 | 422), "{}", guess.text);
    assert!(!guess.text.contains(&tokens.user_id));

    let (ada, eve) = (app.register(&email("ada")).await, app.register(&email("eve")).await);
    let revoke = |access: &str| {
        app.post("auth/sessions/revoke-all")
            .bearer(access)
            .header("idempotency-key", "same")
            .json(&json!({"exclude_current": false}))
    };
    revoke(&ada.access).await.expect(200);
    assert_eq!(revoke(&eve.access).await.expect(200).json()["revoked"], 1, "each caller has separate keys");
}

#[tokio::test]
async fn parallel_retries_converge() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let body = json!({"email": email("ada"), "password": PASSWORD});
    let tries =
        (0..8).map(|_| async { app.post("auth/register").header("idempotency-key", "k").json(&body).await });
    let answers = futures::future::join_all(tries).await;
    let tokens: Vec<_> = answers.into_iter().map(|it| it.expect(201).tokens().refresh).collect();
    assert!(tokens.iter().all(|it| *it == tokens[0]));
}

#[tokio::test]
async fn a_retry_after_a_restart_converges() {
    let mut server = Server::start().await;
    let id = server.create_app(json!({})).await.id;
    let body = json!({"email": email("ada"), "password": PASSWORD});
    let path = format!("/v1/apps/{id}/auth/register");
    let first = server.post(&path).header("idempotency-key", "k").json(&body).await.expect(201).tokens();
    server.kill();
    server.up().await;
    let again = server.post(&path).header("idempotency-key", "k").json(&body).await.expect(201).tokens();
    assert_eq!((first.refresh, first.session), (again.refresh, again.session));
}
