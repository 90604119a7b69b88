use std::io::{Read as _, Write as _};
use std::net::TcpStream;

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
    // The server keeps reading for a while, so that a client that is still writing gets the answer.
    assert_eq!(app.post("auth/register").json(&filled).await.status, 413);
    app.post("auth/register").body("application/json; charset=utf-8", body).await.expect(201);
}

#[tokio::test]
async fn nothing_at_all_is_malformed_and_no_content_type_is_not_supported() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for route in ["register", "signup", "login", "refresh", "revoke"] {
        let path = format!("auth/{route}");
        app.post(&path).await.problem(400, "malformed_request");
        app.post(&path).body("application/json", "").await.problem(400, "malformed_request");
        app.post(&path).body("text/plain", "{}").await.problem(415, "unsupported_media_type");
        let bare = server.client().post(server.url(&app.path(&path))).body("{}").send().await;
        assert_eq!(bare.expect("an answer").status(), 415, "{route} without a content type");
    }
    app.post("auth/refresh").json(&json!({})).await.problem(400, "malformed_request");
    app.post("auth/refresh").json(&json!({"refresh_token": 7})).await.problem(400, "malformed_request");
    app.post("auth/refresh").json(&json!({"refresh_token": "x"})).await.problem(401, "invalid_refresh_token");
}

#[tokio::test]
async fn a_misspelt_filter_is_refused_and_a_page_has_its_bounds() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let tokens = app.register(&email("ada")).await;
    let key = server.platform_key();
    let user = format!("admin/users/{}", tokens.user_id);
    let mut lists: Vec<String> = ["admin/users", "admin/api-keys", "admin/keys", "audit/events", "events"]
        .map(|it| app.path(it))
        .into();
    lists.extend([app.path(&format!("{user}/sessions")), "/v1/apps".into(), "/v1/events".into()]);
    lists.push("/v1/projections".into());
    for path in &lists {
        let ask = |query: &str| server.get(format!("{path}?{query}")).bearer(&key);
        for query in ["limt=1", "limit=x", "limit=1&limit=2", "limit=1&colour=red"] {
            ask(query).await.problem(400, "malformed_request");
        }
        for query in ["limit=0", "limit=-1", "limit=201", "offset=-1", "offset=10001", "offset=0&cursor=1"] {
            ask(query).await.problem(422, "validation_failed");
        }
        for query in ["limit=1", "limit=200", "offset=0", "limit=1&offset=10000"] {
            let page = ask(query).await.expect(200).json();
            assert!(page["items"].is_array() && page["total"].is_u64(), "{path}: {page}");
            assert!(page.as_object().unwrap().contains_key("next_cursor"), "{path}: {page}");
        }
        let whole = ask("limit=200").await.expect(200).json();
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        for _ in 0..whole["total"].as_u64().unwrap() {
            let page = ask(&format!("limit=1{cursor}")).await.expect(200).json();
            seen.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let ids = |items: &[serde_json::Value]| -> Vec<String> {
            let id = |item: &serde_json::Value| {
                ["id", "app_id", "kid", "name"].iter().find_map(|it| item[it].as_str().map(str::to_owned))
            };
            items.iter().filter_map(id).collect()
        };
        assert_eq!(ids(&seen), ids(whole["items"].as_array().unwrap()), "{path}: cursors lead through it");
    }
    app.get("admin/stats?form=2026-01-01T00:00:00Z").bearer(&key).await.problem(400, "malformed_request");
    app.get(&format!("{user}?colour=red")).bearer(&key).await.problem(400, "malformed_request");
    let cursor =
        app.get("audit/events?after=9223372036854775807&offset=9").bearer(&key).await.expect(200).json();
    assert_eq!(cursor["items"], json!([]));
    for (after, status) in [("-1", 422), ("9223372036854775808", 400), ("x", 400)] {
        server.get(format!("/v1/events?after={after}")).bearer(&key).await.expect(status);
        app.get(&format!("audit/events?after={after}")).bearer(&key).await.expect(status);
    }
    server.get("/v1/events?after=9223372036854775807&offset=9").bearer(&key).await.expect(200);
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
    let options = server.call(reqwest::Method::OPTIONS, app.path("auth/me")).await;
    options.problem(405, "method_not_allowed");
    let allowed = options.header("allow").expect("Allow").to_owned();
    assert!(["GET", "HEAD", "PATCH"].iter().all(|it| allowed.contains(it)), "{allowed}");
    let tokens = app.register(&email("ada")).await;
    let head =
        server.call(reqwest::Method::HEAD, app.path("auth/me")).bearer(&tokens.access).await.expect(200);
    assert!(head.text.is_empty() && head.header("content-type") == Some("application/json"));
    let nobody = server.client().head(server.url(&app.path("auth/me"))).send().await.expect("an answer");
    assert_eq!(nobody.status(), 401);
    assert_eq!(nobody.headers()["www-authenticate"], "Bearer");
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
async fn odd_credentials_are_not_accepted() {
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

/// The answer to a request as it is.
fn raw(server: &Server, request: &str) -> String {
    let address = server.base();
    let mut stream =
        TcpStream::connect(address.strip_prefix("http://").expect("an address")).expect("connects");
    stream.set_read_timeout(Some(tests::PATIENCE)).expect("an option");
    stream.write_all(request.as_bytes()).expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and the end");
    answer
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = Server::start().await;
    for (version, hosts, status) in [
        ("1.1", &["login.example.com"][..], 404),
        ("1.1", &[""], 404),
        ("1.1", &[], 400),
        ("1.1", &["a", "b"], 400),
        ("1.1", &["a", "a"], 400),
        ("1.1", &["a b"], 400),
        ("1.1", &["ada@example.com"], 400),
        ("1.0", &[], 404),
        ("1.0", &["a", "b"], 400),
    ] {
        let hosts = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect::<Vec<_>>().concat();
        let answer =
            raw(&server, &format!("GET /auth/absent HTTP/{version}\r\nConnection: close\r\n{hosts}\r\n"));
        assert!(answer.starts_with(&format!("HTTP/{version} {status}")), "{version} {hosts:?}: {answer}");
        let is_told = answer.contains("\"code\":\"malformed_request\"") && answer.contains("x-request-id");
        assert_eq!(is_told, status == 400, "{answer}");
    }
}
