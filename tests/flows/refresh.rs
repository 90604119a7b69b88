use std::time::Duration;

use serde_json::json;
use tests::{Server, claims_of, email, of_type};

#[tokio::test]
async fn a_refresh_rotates_the_token() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let first = app.register(&email("ada")).await;
    let second = app.refresh(&first.refresh).await.expect(200).tokens();
    assert_ne!(second.refresh, first.refresh);
    assert_eq!((&second.session, &second.user_id), (&first.session, &first.user_id));
    assert_eq!(claims_of(&second.access)["sid"], *first.session);
    app.me(&second.access).await.expect(200);
    app.refresh(&second.refresh).await.expect(200);
    assert_eq!(of_type(&server.events().await, "SessionRefreshed").len(), 2);
}

#[tokio::test]
async fn within_the_grace_period_a_lost_reply_is_repeated() {
    let server = Server::start().await;
    let app = server.create_app(json!({"refresh_grace": 10})).await;
    let first = app.register(&email("ada")).await;
    let second = app.refresh(&first.refresh).await.expect(200).tokens();
    let again = app.refresh(&first.refresh).await.expect(200).tokens();
    assert_eq!(again.refresh, second.refresh, "never two live leaves");
    app.refresh(&second.refresh).await.expect(200);
}

#[tokio::test]
async fn reuse_revokes_the_family() {
    let server = Server::start().await;
    let app = server.create_app(json!({"refresh_grace": 0})).await;
    let address = email("ada");
    let first = app.register(&address).await;
    let untouched = app.login(&address, tests::PASSWORD).await.tokens();
    let second = app.refresh(&first.refresh).await.expect(200).tokens();
    tokio::time::sleep(Duration::from_millis(10)).await;
    app.refresh(&first.refresh).await.problem(401, "invalid_refresh_token");
    for token in [&first.refresh, &second.refresh] {
        assert_eq!(app.refresh(token).await.status, 401);
    }
    app.me(&second.access).await.problem(401, "unauthenticated");
    app.me(&untouched.access).await.expect(200);
    let events = server.events().await;
    assert_eq!(of_type(&events, "RefreshTokenReused").len(), 1);
    assert_eq!(of_type(&events, "SessionRevoked")[0]["data"]["reason"], "refresh_token_reused");
}

#[tokio::test]
async fn parallel_uses_have_one_successor() {
    let server = Server::start().await;
    let app = server.create_app(json!({"refresh_grace": 10})).await;
    let first = app.register(&email("ada")).await;
    let answers =
        futures::future::join_all((0..16).map(|_| async { app.refresh(&first.refresh).await })).await;
    let successors: Vec<String> = answers.into_iter().map(|it| it.expect(200).tokens().refresh).collect();
    assert!(successors.iter().all(|it| *it == successors[0]));
    assert_eq!(of_type(&server.events().await, "SessionRefreshed").len(), 1);
}

#[tokio::test]
async fn what_is_not_a_refresh_token_is_refused() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let tokens = app.register(&email("ada")).await;
    let (_, key) = app.api_key(&["users:read"]).await;
    let as_refresh = key.replacen("wwk_", "wwr_", 1);
    for wrong in ["", "wwr_", "x", &tokens.access, &key, &as_refresh, &tokens.refresh.to_uppercase()] {
        app.refresh(wrong).await.problem(401, "invalid_refresh_token");
    }
    other.refresh(&tokens.refresh).await.problem(401, "invalid_refresh_token");
    for end in 0..tokens.refresh.len() {
        app.refresh(&tokens.refresh[..end]).await.problem(401, "invalid_refresh_token");
    }
    for index in 0..tokens.refresh.len() {
        let mut bytes = tokens.refresh.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        app.refresh(&changed).await.problem(401, "invalid_refresh_token");
    }
    app.refresh(&tokens.refresh).await.expect(200);
}

#[tokio::test]
async fn sessions_expire() {
    let server = Server::start().await;
    let idle = server.create_app(json!({"refresh_idle_ttl": 5, "refresh_grace": 0})).await;
    let absolute = server.create_app(json!({"refresh_token_ttl": 5, "refresh_grace": 0})).await;
    let sleeper = idle.register(&email("idle")).await;
    let runner = absolute.register(&email("absolute")).await;
    let runner = absolute.refresh(&runner.refresh).await.expect(200).tokens();
    tokio::time::sleep(Duration::from_millis(5500)).await;
    idle.refresh(&sleeper.refresh).await.problem(401, "session_expired");
    absolute.refresh(&runner.refresh).await.problem(401, "session_expired");
    idle.me(&sleeper.access).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_revoked_session_says_so() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let tokens = app.register(&email("ada")).await;
    app.post("auth/logout").json(&json!({"refresh_token": tokens.refresh})).await.expect(204);
    app.refresh(&tokens.refresh).await.problem(401, "session_revoked");
}
