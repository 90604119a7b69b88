use serde_json::{Value, json};
use tests::{Answer, App, PASSWORD, Server, email, of_type};

async fn list(app: &App<'_>, access: &str, after: &Answer) -> Vec<Value> {
    let answer = app
        .get("auth/sessions")
        .bearer(access)
        .header("consistency-token", after.consistency())
        .await
        .expect(200)
        .json();
    assert_eq!(answer["total"], answer["items"].as_array().unwrap().len());
    answer["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn users_list_and_end_their_own_sessions() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let one = app.register(&address).await;
    let answer = app.login(&address, PASSWORD).header("user-agent", "Analytical Engine/1").await;
    let two = answer.tokens();
    app.register(&email("somebody")).await;

    let sessions = list(&app, &two.access, &answer).await;
    assert_eq!(sessions.len(), 2);
    for session in &sessions {
        assert_eq!(session["current"], session["id"] == *two.session);
    }
    assert!(sessions.iter().any(|it| it["user_agent"] == "Analytical Engine/1"), "{sessions:?}");

    let revoked = app.delete(&format!("auth/sessions/{}", one.session)).bearer(&two.access).await.expect(204);
    app.me(&one.access).await.problem(401, "unauthenticated");
    app.refresh(&one.refresh).await.problem(401, "session_revoked");
    assert_eq!(list(&app, &two.access, &revoked).await.len(), 1);
}

#[tokio::test]
async fn all_sessions_end_at_once_with_or_without_the_current_one() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let first = app.register(&address).await;
    let mut others = vec![];
    for _ in 0..4 {
        others.push(app.login(&address, PASSWORD).await.tokens());
    }
    let bystander = app.register(&email("bystander")).await;
    let revoke = |exclude| {
        app.post("auth/sessions/revoke-all").bearer(&first.access).json(&json!({"exclude_current": exclude}))
    };
    assert_eq!(revoke(true).await.expect(200).json(), json!({"revoked": 4}));
    for other in &others {
        app.me(&other.access).await.problem(401, "unauthenticated");
    }
    app.me(&first.access).await.expect(200);
    assert_eq!(revoke(false).await.expect(200).json(), json!({"revoked": 1}));
    app.me(&first.access).await.problem(401, "unauthenticated");
    app.me(&bystander.access).await.expect(200);
}

#[tokio::test]
async fn another_users_session_and_an_absent_one_are_indistinguishable() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (ada, eve) = (app.register(&email("ada")).await, app.register(&email("eve")).await);
    let delete = |id: &str| app.delete(&format!("auth/sessions/{id}")).bearer(&eve.access);
    let theirs = delete(&ada.session).await;
    theirs.problem(404, "not_found");
    for absent in ["018f0000-0000-7000-8000-000000000000", "nonsense", &ada.user_id] {
        let answer = delete(absent).await;
        answer.problem(404, "not_found");
        assert_eq!(answer.anonymous_problem(), theirs.anonymous_problem());
    }
    app.me(&ada.access).await.expect(200);
}

#[tokio::test]
async fn the_whole_list_is_as_documented() {
    let server = Server::start().await;
    let app = server.default_app();
    let address = email("ada");
    let register = app.post("auth/register").header("user-agent", "Difference Engine/2");
    register.json(&json!({"email": address, "password": PASSWORD})).await.expect(201);
    let login = app.login(&address, PASSWORD).header("user-agent", "Analytical Engine/1").await.expect(200);
    let (access, token) = (login.tokens().access, login.consistency());
    let ask = |path: &str| server.get(path).bearer(&access).header("consistency-token", token);
    let answer = ask("/v1/apps/default/auth/sessions").await.expect(200).json();
    let current = answer["items"].as_array().unwrap().iter().filter(|it| it["current"] == true);
    assert_eq!(current.map(|it| &it["id"]).collect::<Vec<_>>(), [&login.tokens().session]);
    insta::assert_json_snapshot!(answer, {
        ".items[].id" => "[uuid]",
        ".items[].user_id" => "[uuid]",
        ".items[].created_at" => "[time]",
        ".items[].last_used_at" => "[time]",
        ".items[].expires_at" => "[time]",
    }, @r#"
    {
      "items": [
        {
          "created_at": "[time]",
          "current": true,
          "expires_at": "[time]",
          "id": "[uuid]",
          "ip": "127.0.0.1",
          "last_used_at": "[time]",
          "method": "password",
          "user_agent": "Analytical Engine/1",
          "user_id": "[uuid]"
        },
        {
          "created_at": "[time]",
          "current": false,
          "expires_at": "[time]",
          "id": "[uuid]",
          "ip": "127.0.0.1",
          "last_used_at": "[time]",
          "method": "registration",
          "user_agent": "Difference Engine/2",
          "user_id": "[uuid]"
        }
      ],
      "next_cursor": null,
      "total": 2
    }
    "#);
    assert_eq!(ask("/auth/sessions").await.expect(200).json(), answer, "the alias is the same");
}

#[tokio::test]
async fn a_users_sessions_are_limited_and_the_oldest_ends() {
    let server = Server::start_with(&[("WATCHWORD_LIMITS_SESSIONS", "3")]).await;
    let app = server.default_app();
    let address = email("ada");
    let mut sessions = vec![app.register(&address).await];
    for _ in 0..4 {
        sessions.push(app.login(&address, PASSWORD).await.expect(200).tokens());
    }
    // Another user is not limited by it.
    let other = app.register(&email("eve")).await;
    for gone in &sessions[..2] {
        app.refresh(&gone.refresh).await.problem(401, "session_revoked");
        app.me(&gone.access).await.problem(401, "unauthenticated");
    }
    for live in sessions[2..].iter().chain([&other]) {
        app.me(&live.access).await.expect(200);
        app.refresh(&live.refresh).await.expect(200);
    }
    let events = server.events().await;
    let ended = of_type(&events, "SessionRevoked");
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|event| event["data"]["reason"] == "limit"));
}
