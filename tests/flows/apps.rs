use serde_json::json;
use tests::{Server, email};

#[tokio::test]
async fn are_made_read_changed_and_listed_with_the_platform_key() {
    let server = Server::start().await;
    let key = server.platform_key();
    let body = json!({"app_id": "acme", "name": "Acme", "settings": {"access_token_ttl": 900}});
    let made = server.post("/v1/apps").bearer(&key).json(&body).await.expect(201).json();
    assert_eq!((&made["app_id"], &made["name"]), (&json!("acme"), &json!("Acme")));
    assert_eq!(made["settings"]["access_token_ttl"], 900);
    assert_eq!(made["settings"]["refresh_token_ttl"], 2_592_000);
    assert_eq!(made["settings"]["registration"], "open");
    server.post("/v1/apps").bearer(&key).json(&body).await.problem(409, "app_exists");

    assert_eq!(server.get("/v1/apps/acme").bearer(&key).await.expect(200).json(), made);
    let list = server.get("/v1/apps").bearer(&key).await.expect(200).json();
    let ids: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|it| it["app_id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"acme") && ids.contains(&"default") && !ids.contains(&"platform"), "{ids:?}");

    let patch = json!({"name": "Acme Ltd", "settings": {"refresh_grace": 5}});
    let patched = server.patch("/v1/apps/acme").bearer(&key).json(&patch).await.expect(200).json();
    assert_eq!(patched["name"], "Acme Ltd");
    assert_eq!(patched["settings"]["refresh_grace"], 5);
    assert_eq!(patched["settings"]["access_token_ttl"], 900, "other settings are unchanged");
}

#[tokio::test]
async fn ids_are_plain() {
    let server = Server::start().await;
    let key = server.platform_key();
    for id in ["", "A", "a_b", "-a", "a-", "a--b", "a.b", "a b", "a/b", "ä", "*", ">", &"a".repeat(41)] {
        server
            .post("/v1/apps")
            .bearer(&key)
            .json(&json!({"app_id": id, "name": "x"}))
            .await
            .problem(422, "validation_failed");
    }
    server
        .post("/v1/apps")
        .bearer(&key)
        .json(&json!({"app_id": "platform", "name": "x"}))
        .await
        .problem(409, "app_exists");
    for absent in ["platform", "absent", "A", "a%2Fb", "%00", "..%2F.."] {
        server.get(format!("/v1/apps/{absent}")).bearer(&key).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn settings_are_checked() {
    let server = Server::start().await;
    let key = server.platform_key();
    for (setting, pointer) in [
        (json!({"access_token_ttl": 0}), "/settings/access_token_ttl"),
        (json!({"refresh_token_ttl": 4_000_000_000_u32}), "/settings/refresh_token_ttl"),
        (json!({"password_min_length": 4}), "/settings/password_min_length"),
        (json!({"refresh_grace": 3600}), "/settings/refresh_grace"),
    ] {
        let body = json!({"app_id": "acme", "name": "Acme", "settings": setting});
        let problem =
            server.post("/v1/apps").bearer(&key).json(&body).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    for uri in [
        "http://example.org/",
        "https://a@example.org/",
        "javascript:alert(1)",
        "https://example.org/#x",
        "/x",
    ] {
        let body = json!({"app_id": "acme", "name": "Acme", "settings": {"redirect_uris": [uri]}});
        let answer = server.post("/v1/apps").bearer(&key).json(&body).await;
        assert!(answer.status == 422 || answer.status == 400, "{uri}: {}", answer.text);
    }
    let unknown = json!({"app_id": "acme", "name": "Acme", "settings": {"admin": true}});
    server.post("/v1/apps").bearer(&key).json(&unknown).await.problem(400, "malformed_request");
    for shape in [
        json!({"admin": null}),
        json!({"access_token_ttl": "60"}),
        json!({"cookies": "yes"}),
        json!({"origins": "https://acme.example"}),
        json!({"redirect_uris": [1]}),
    ] {
        let body = json!({"app_id": "acme", "name": "Acme", "settings": shape});
        server.post("/v1/apps").bearer(&key).json(&body).await.problem(400, "malformed_request");
    }
    for value in [json!({"token_algorithm": "HS256"}), json!({"registration": "maybe"})] {
        let body = json!({"app_id": "acme", "name": "Acme", "settings": value});
        server.post("/v1/apps").bearer(&key).json(&body).await.problem(422, "validation_failed");
    }
    server.get("/v1/apps/acme").bearer(&key).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_platform_makes_lists_and_stops_them_and_settings_write_changes_ones_own() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let admin = app.register_admin(&email("admin")).await;
    let user = app.register(&email("user")).await;
    let (_, reader) = app.api_key(&["users:read"]).await;
    let (_, writer) = app.api_key(&["settings:write"]).await;
    let own = format!("/v1/apps/{}", app.id);
    for (credential, status) in [(&reader, 403), (&writer, 403), (&admin.access, 401), (&user.access, 401)] {
        server.get("/v1/apps").bearer(credential).await.expect(status);
        let body = json!({"app_id": "mine", "name": "Mine"});
        server.post("/v1/apps").bearer(credential).json(&body).await.expect(status);
        for switch in ["disable", "enable"] {
            server.post(format!("{own}/{switch}")).bearer(credential).await.expect(status);
        }
    }
    let patch = json!({"settings": {"refresh_grace": 3}});
    for (credential, read, write) in
        [(&reader, 200, 403), (&writer, 200, 200), (&admin.access, 200, 200), (&user.access, 403, 403)]
    {
        server.get(&own).bearer(credential).await.expect(read);
        server.patch(&own).bearer(credential).json(&patch).await.expect(write);
    }
    for (credential, status) in [(&writer, 404), (&admin.access, 401)] {
        let foreign = format!("/v1/apps/{}", other.id);
        server.get(&foreign).bearer(credential).await.expect(status);
        server.patch(&foreign).bearer(credential).json(&patch).await.expect(status);
    }
}

#[tokio::test]
async fn one_apps_traffic_is_none_of_anothers() {
    let server = Server::start().await;
    let (one, two) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let address = email("both");
    let (here, there) = (one.register(&address).await, two.register(&address).await);
    assert_ne!(here.user_id, there.user_id);
    one.ban(&here.user_id).await;
    two.me(&there.access).await.expect(200);
    two.refresh(&there.refresh).await.expect(200);
}

#[tokio::test]
async fn cors_is_for_the_apps_origins_only() {
    let server = Server::start().await;
    let app = server.create_app(json!({"origins": ["https://acme.example"]})).await;
    let preflight = |origin: &str| {
        server
            .call(reqwest::Method::OPTIONS, app.path("auth/login"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type")
    };
    let allowed = preflight("https://acme.example").await.expect_success();
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://acme.example"));
    for origin in ["https://evil.example", "https://acme.example.evil.example", "http://acme.example", "null"]
    {
        let answer = preflight(origin).await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
    }
    // A page can read refusals too, including those of the outermost layer.
    let ask = |origin: &str| app.post("auth/login").header("origin", origin).json(&json!({"email": 7}));
    for answer in
        [ask("https://acme.example").await, ask("https://acme.example").header("idempotency-key", " ").await]
    {
        answer.problem(400, "malformed_request");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://acme.example"));
        assert!(answer.header("vary").is_some_and(|it| it.to_ascii_lowercase().contains("origin")));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    assert_eq!(ask("https://evil.example").await.header("access-control-allow-origin"), None);
    let elsewhere = server.create_app(json!({})).await;
    let answer = elsewhere.get("auth/me").header("origin", "https://acme.example").await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        None,
        "none by default, and one app's are its own"
    );
}
