use serde_json::{Value, json};
use tests::{PASSWORD, Server, claims_of, email, jwt_header_of, of_type};

#[tokio::test]
async fn registering_logs_in() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let answer = app
        .post("auth/register")
        .json(&json!({"email": address, "password": PASSWORD, "name": "Ada", "phone": "+44 20 7946 0000",
            "avatar_url": "https://example.org/ada.png"}))
        .await
        .expect(201);
    assert_eq!(answer.json()["expires_in"], 1800);
    assert_eq!(answer.json()["status"], "registered");
    let tokens = answer.tokens();
    let user = &tokens.user;
    assert_eq!(user["email"], *address);
    assert_eq!(user["app_id"], *app.id);
    assert_eq!(user["name"], "Ada");
    assert_eq!(user["email_verified"], false);
    assert_eq!(user["banned"], false);
    assert_eq!(user["roles"], json!([]));
    let members: Vec<&str> = user.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "id",
        "app_id",
        "email",
        "email_verified",
        "name",
        "avatar_url",
        "phone",
        "banned",
        "roles",
        "created_at",
        "updated_at",
    ];
    expected.sort_unstable();
    assert_eq!(members, expected);

    let claims = claims_of(&tokens.access);
    assert_eq!(claims["sub"], *tokens.user_id);
    assert_eq!(claims["sid"], *tokens.session);
    assert_eq!(claims["aud"], *app.id);
    assert_eq!(claims["iss"], server.url(&format!("/v1/apps/{}", app.id)));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 1800);
    let header = jwt_header_of(&tokens.access);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("ES256")));

    app.me(&tokens.access).await.expect(200);

    let events = server.events().await;
    assert_eq!(of_type(&events, "UserRegistered").len(), 1);
    assert_eq!(of_type(&events, "SessionStarted")[0]["data"]["method"], "registration");
}

#[tokio::test]
async fn signup_is_an_alias() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let body = json!({"email": email("alias"), "password": PASSWORD});
    app.post("auth/signup").json(&body).await.expect(201).tokens();
    app.post("auth/register").json(&body).await.problem(409, "email_taken");
}

#[tokio::test]
async fn an_address_is_taken_once_per_app_whatever_its_case() {
    let server = Server::start().await;
    let (one, two) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    one.register("Grace@Example.org").await;
    for same in ["grace@example.org", "GRACE@EXAMPLE.ORG", "Grace@Example.org"] {
        one.post("auth/register")
            .json(&json!({"email": same, "password": PASSWORD}))
            .await
            .problem(409, "email_taken");
    }
    two.register("grace@example.org").await;
    for other in ["grace+1@example.org", "gr.ace@example.org"] {
        one.register(other).await;
    }
}

#[tokio::test]
async fn of_two_at_once_one_gets_the_address() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let body = json!({"email": email("race"), "password": PASSWORD});
    let tries = (0..8).map(|_| async { app.post("auth/register").json(&body).await });
    let mut statuses: Vec<u16> = futures::future::join_all(tries).await.iter().map(|it| it.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn weak_passwords_are_refused() {
    let server = Server::start().await;
    let app = server.create_app(json!({"password_min_length": 12})).await;
    let long = "é".repeat(513);
    for weak in ["", "short-93-ke", "password1234", long.as_str()] {
        let problem = app
            .post("auth/register")
            .json(&json!({"email": email("weak"), "password": weak}))
            .await
            .problem(422, "weak_password");
        assert!(!weak.is_empty() || problem["detail"].is_string());
        assert!(weak.is_empty() || !problem.to_string().contains(weak), "the password is not repeated");
    }
    let fits = "é".repeat(512);
    app.post("auth/register").json(&json!({"email": email("long"), "password": fits})).await.expect(201);
}

#[tokio::test]
async fn what_is_not_an_address_is_refused() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for wrong in [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@@example.org",
        "a b@example.org",
        "ada@example.org\r\nBcc: eve@example.org",
        "ada@example.org,eve@example.org",
        "ada@exa mple.org",
        "ada\0@example.org",
        "<ada@example.org>",
        "ada@-example.org",
        "-f@example.org",
    ] {
        app.post("auth/register")
            .json(&json!({"email": wrong, "password": PASSWORD}))
            .await
            .problem(422, "invalid_email");
    }
    assert_eq!(of_type(&server.events().await, "UserRegistered").len(), 0);
}

#[tokio::test]
async fn nobody_makes_themselves_admin() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for (member, value) in [
        ("roles", json!(["admin"])),
        ("email_verified", json!(true)),
        ("id", json!("018f0000-0000-7000-8000-000000000000")),
        ("banned", json!(false)),
        ("app_id", json!("default")),
        ("created_at", json!("2020-01-01T00:00:00Z")),
    ] {
        let mut body = json!({"email": email("mass"), "password": PASSWORD});
        body[member] = value;
        app.post("auth/register").json(&body).await.problem(400, "malformed_request");
    }
}

#[tokio::test]
async fn closed_apps_accept_only_invited_users() {
    let server = Server::start().await;
    for how in ["closed", "invite_only"] {
        let app = server.create_app(json!({"registration": how})).await;
        app.post("auth/register")
            .json(&json!({"email": email("late"), "password": PASSWORD}))
            .await
            .problem(403, "registration_closed");
    }
}

#[tokio::test]
async fn the_same_letters_typed_on_two_keyboards_are_one_password() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("norm");
    let (composed, decomposed) = ("\u{e9}l\u{e8}ve-violet-93", "e\u{301}le\u{300}ve-violet-93");
    app.post("auth/register").json(&json!({"email": address, "password": composed})).await.expect(201);
    app.login(&address, decomposed).await.expect(200);
    app.login(&address, "eleve-violet-93").await.problem(401, "invalid_credentials");
    let _: Value = app.login(&address.to_uppercase(), composed).await.expect(200).json();
}
