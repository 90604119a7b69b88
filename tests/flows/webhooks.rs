//! Webhooks as admins set them: what they may be, who may set them, and where they may lead.

use serde_json::{Value, json};
use tests::{App, Call, Server, email, of_type};

fn create(app: &App<'_>, key: &str, body: &Value) -> Call {
    app.post("admin/webhooks").bearer(key).json(body)
}

fn hook(url: &str) -> Value {
    json!({"url": url, "events": ["*"]})
}

#[tokio::test]
async fn are_created_with_a_secret_changed_listed_and_deleted() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    let body = json!({
        "url": "https://hooks.example/in",
        "events": ["user.*", "SessionStarted"],
        "description": "Welcome mails",
    });
    let call = create(&app, &key, &body).header("idempotency-key", "once");
    let created = call.again().await.expect(201).json();
    assert_eq!(call.await.expect(201).json(), created, "the same secret, and no second webhook");
    let secret = created["secret"].as_str().expect("text");
    assert!(secret.starts_with("whsec_") && secret.len() == "whsec_".len() + 44, "{secret}");
    assert_eq!(created["events"], json!(["SessionStarted", "user.*"]));
    assert_eq!((&created["enabled"], &created["include_personal"]), (&json!(true), &json!(false)));

    let path = format!("admin/webhooks/{}", created["id"].as_str().expect("an id"));
    let shown = app.get(&path).bearer(&key).await.expect(200);
    assert!(!shown.text.contains("whsec_") && !shown.text.contains("secret"), "{}", shown.text);
    let list = app.get("admin/webhooks").bearer(&key).await.expect(200).json();
    assert_eq!((&list["items"][0], &list["total"]), (&shown.json(), &json!(1)));

    let change = json!({"events": ["*"], "description": "", "enabled": false});
    let changed = app.patch(&path).bearer(&key).json(&change).await.expect(200).json();
    assert_eq!(changed["url"], "https://hooks.example/in");
    assert_eq!((&changed["events"], &changed["description"]), (&json!(["*"]), &Value::Null));
    assert_eq!(changed["enabled"], false);
    app.patch(&path).bearer(&key).json(&change).await.expect(200);

    app.delete(&path).bearer(&key).await.expect(204);
    app.get(&path).bearer(&key).await.problem(404, "not_found");
    app.patch(&path).bearer(&key).json(&change).await.problem(404, "not_found");
    app.delete(&path).bearer(&key).await.problem(404, "not_found");
    assert_eq!(app.get("admin/webhooks").bearer(&key).await.expect(200).json()["total"], 0);
    let events = server.events().await;
    for name in ["WebhookCreated", "WebhookChanged", "WebhookDeleted"] {
        assert_eq!(of_type(&events, name).len(), 1, "{name}");
    }
    assert!(
        server
            .stored_bytes()
            .iter()
            .all(|(_, bytes)| { !bytes.windows(secret.len()).any(|part| part == secret.as_bytes()) })
    );
    let doctor = server.command(&["doctor"]).output().expect("it runs");
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}

#[tokio::test]
async fn take_the_right_to_read_events_and_with_personal_data_a_full_admin() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let admin = app.register_admin(&email("admin")).await;
    let (_, writes) = app.api_key(&["settings:write"]).await;
    let (_, reads) = app.api_key(&["events:read"]).await;
    let (_, both) = app.api_key(&["settings:write", "events:read"]).await;
    let plain = hook("https://hooks.example/in");
    let mut personal = plain.clone();
    personal["include_personal"] = true.into();
    // What is sent could be read without `events:read` otherwise.
    create(&app, &writes, &plain).await.problem(403, "forbidden");
    create(&app, &reads, &plain).await.problem(403, "forbidden");
    let of_key = create(&app, &both, &plain).await.expect(201).json();
    create(&app, &both, &personal).await.problem(403, "forbidden");
    let of_admin = create(&app, &admin.access, &personal).await.expect(201).json();

    // A limited key neither widens its own webhook nor leads one with personal data elsewhere, switches it or ends it.
    let path = |hook: &Value| format!("admin/webhooks/{}", hook["id"].as_str().expect("an id"));
    let change = |hook: &Value, body: Value| app.patch(&path(hook)).bearer(&both).json(&body);
    change(&of_key, json!({"include_personal": true})).await.problem(403, "forbidden");
    for body in [
        json!({"url": "https://evil.example/in"}),
        json!({"events": ["user.*"]}),
        json!({"enabled": false}),
        json!({"include_personal": false}),
    ] {
        change(&of_admin, body).await.problem(403, "forbidden");
    }
    app.delete(&path(&of_admin)).bearer(&both).await.problem(403, "forbidden");
    change(&of_key, json!({"url": "https://other.example/in"})).await.expect(200);
    app.delete(&path(&of_key)).bearer(&both).await.expect(204);
    let other = server.create_app(json!({})).await;
    let (_, of_other) = other.api_key(&["settings:write", "events:read"]).await;
    app.get(&path(&of_admin)).bearer(&of_other).await.expect_refusal();
    other.get(&path(&of_admin)).bearer(&of_other).await.problem(404, "not_found");
    other.delete(&path(&of_admin)).bearer(&server.platform_key()).await.problem(404, "not_found");
    app.get(&path(&of_admin)).bearer(&admin.access).await.expect(200);
}

#[tokio::test]
async fn lead_only_where_the_operator_allows() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    for url in [
        "http://hooks.example/in",
        "http://127.0.0.1:8080/in",
        "https://127.0.0.1/in",
        "https://[::1]/in",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/in",
        "https://[::ffff:7f00:1]/in",
        "https://[::ffff:127.0.0.1]/in",
        "https://2130706433/in",
        "https://0x7f000001/in",
        "https://0177.0.0.1/in",
        "https://127.1/in",
        "https://0.0.0.0/in",
        "https://user:pass@hooks.example/in",
        "ftp://hooks.example/in",
        "hooks.example",
    ] {
        let refused = create(&app, &key, &hook(url)).await.problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/url", "{url}");
    }
    for (member, value) in [
        ("events", json!([])),
        ("events", json!(["user"])),
        ("events", json!(["users.*"])),
        ("events", json!(["*", "UserRegisterd"])),
        ("description", json!("\u{202e}x")),
        ("description", json!("x".repeat(201))),
    ] {
        let mut body = hook("https://hooks.example/in");
        body[member] = value;
        let refused = create(&app, &key, &body).await.problem(422, "validation_failed");
        let pointer = refused["errors"][0]["pointer"].as_str().expect("text");
        assert!(pointer.starts_with(&format!("/{member}")), "{refused}");
    }
    create(&app, &key, &json!({"url": 7, "events": "*", "x": 1})).await.problem(400, "malformed_request");

    let server =
        Server::start_with(&[("WATCHWORD_ALLOWED_WEBHOOK_NETWORKS", "127.0.0.0/8, 10.0.0.0/8")]).await;
    let (app, key) = (server.create_app(json!({})).await, server.platform_key());
    for url in ["http://127.0.0.1:8080/in", "http://10.2.3.4/in", "http://hooks.internal/in"] {
        create(&app, &key, &hook(url)).await.expect(201);
    }
    for url in ["http://192.168.0.1/in", "https://[::1]/in"] {
        create(&app, &key, &hook(url)).await.problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn of_an_app_are_limited_in_number() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    for number in 0..50 {
        app.webhook(&format!("https://hooks.example/{number}"), &["*"]).await;
    }
    let one_more = create(&app, &server.platform_key(), &hook("https://hooks.example/in"));
    one_more.again().await.problem(409, "too_many_webhooks");
    other.webhook("https://hooks.example/in", &["*"]).await;
    let first = app.get("admin/webhooks?limit=1").bearer(&server.platform_key()).await.expect(200).json();
    assert_eq!((&first["total"], &first["items"][0]["url"]), (&json!(50), &json!("https://hooks.example/0")));
    let path = format!("admin/webhooks/{}", first["items"][0]["id"].as_str().expect("an id"));
    app.delete(&path).bearer(&server.platform_key()).await.expect(204);
    one_more.await.expect(201);
}
