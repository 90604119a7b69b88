use serde_json::json;
use tests::{PASSWORD, Server, email, of_type};

#[tokio::test]
async fn what_is_not_the_json_asked_for_is_malformed() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let deep = "[".repeat(20_000);
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"7".to_vec(),
        b"\"text\"".to_vec(),
        b"{}".to_vec(),
        br#"{"email": "ada@example.org"}"#.to_vec(),
        br#"{"email": 7, "password": "violet-Kettle-93"}"#.to_vec(),
        br#"{"email": null, "password": "violet-Kettle-93"}"#.to_vec(),
        br#"{"email": ["ada@example.org"], "password": "violet-Kettle-93"}"#.to_vec(),
        br#"{"email": "ada@example.org", "password": "violet-Kettle-93"} x"#.to_vec(),
        br#"{"email": "ada@example.org", "email": "eve@example.org", "password": "violet-Kettle-93"}"#
            .to_vec(),
        br#"{"email": "ada@example.org", "password": "\ud800"}"#.to_vec(),
        b"{\"email\": \"ada\xff@example.org\", \"password\": \"violet-Kettle-93\"}".to_vec(),
        b"\xef\xbb\xbf{\"email\": \"ada@example.org\", \"password\": \"violet-Kettle-93\"}".to_vec(),
        deep.into_bytes(),
        br#"{"email": "ada@example.org", "password": "violet-Kettle-93", "extra": 1}"#.to_vec(),
    ];
    for route in ["auth/register", "auth/login"] {
        for body in &bodies {
            app.post(route).body("application/json", body.clone()).await.problem(400, "malformed_request");
        }
    }
    assert_eq!(of_type(&server.events().await, "UserRegistered").len(), 0);
}

#[tokio::test]
async fn the_content_type_and_the_size_are_checked() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let body = json!({"email": email("ada"), "password": PASSWORD}).to_string();
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"]
    {
        assert_eq!(app.post("auth/login").body(kind, body.clone()).await.status, 415, "{kind}");
    }
    assert_eq!(app.post("auth/login").body("application/json", vec![b' '; 70_000]).await.status, 413);
    let filled = json!({"email": email("ada"), "password": "x".repeat(1_000_000)});
    // The server reads on for a while, so that a client that is still writing hears the answer.
    assert_eq!(app.post("auth/register").json(&filled).await.status, 413);
    app.post("auth/register").body("application/json; charset=utf-8", body).await.expect(201);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for path in [
        "/",
        "/v1",
        "/v2/apps",
        "/v1/apps/x/y/z",
        "/.git/config",
        "/v1/apps/..%2f..%2fetc/auth/me",
        "/%00",
        "/%ff",
    ] {
        server.get(path).await.problem(404, "not_found");
    }
    for (method, path) in [("GET", "auth/login"), ("PUT", "auth/register"), ("DELETE", "admin/stats")] {
        let answer = server.call(method.parse().unwrap(), app.path(path)).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.header("allow").is_some());
    }
}

#[tokio::test]
async fn characters_of_other_languages_stay_data() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let tokens = app.register(&email("ada")).await;
    for name in
        ["Robert'); DROP TABLE users;--", "<script>alert(1)</script>", "%s%n", "a\nlevel=error", "Ünïcødé ✓"]
    {
        let answer = app.patch("auth/me").bearer(&tokens.access).json(&json!({"name": name})).await;
        if answer.status == 200 {
            assert_eq!(answer.json()["name"], name);
        } else {
            answer.problem(422, "validation_failed");
        }
    }
    app.me(&tokens.access).await.expect(200);
    for query in ["'", "%25", "a'--", "\"", "*", "%F0%9F%98%80", "x'%20OR%201=1--", "abc%25"] {
        // Too short to search for, or found nowhere.
        let answer = app.get(&format!("admin/users?query={query}")).bearer(&server.platform_key()).await;
        assert!(matches!(answer.status, 200 | 422), "{query}: {}", answer.text);
    }
    assert!(!server.log().lines().any(|line| line.starts_with("level=error")));
}

#[tokio::test]
async fn odd_credentials_are_no_credentials() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let long = format!("Bearer {}", "a".repeat(6_000));
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "bearer x",
        "Bearer a b",
        "Bearer wwk_",
        "Bearer wwk_AAAA",
        "Basic eDp5",
        "Bearer ..",
        &long,
    ] {
        app.get("auth/me").header("authorization", value).await.problem(401, "unauthenticated");
        app.get("admin/users").header("authorization", value).await.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_bad_consistency_token_is_refused() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for wrong in ["x", "-1", "99999999999999999999999999"] {
        let answer =
            app.get("admin/users").bearer(&server.platform_key()).header("consistency-token", wrong).await;
        assert!(matches!(answer.status, 400 | 422), "{wrong}: {} {}", answer.status, answer.text);
    }
}
