//! Signed checkpoints: another implementation verifies them, and computes their roots from the events.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::log::{Tree, keys_of, signed_text, verified};
use tests::{Server, email, of_type, until};

async fn keys(server: &Server) -> String {
    server.get("/v1/audit/key").bearer(&server.platform_key()).await.expect(200).text
}

async fn signed(server: &Server) -> String {
    server.post("/v1/audit/checkpoint").bearer(&server.platform_key()).await.expect(200).text
}

#[tokio::test]
async fn a_checkpoint_is_of_all_events_and_begins_with_the_one_before() {
    let server = Server::start().await;
    let app = server.default_app();
    let (keys, key) = (keys(&server).await, server.platform_key());
    let first = server.events().await;
    let added = of_type(&first, "CheckpointKeyAdded");
    assert_eq!((added.len(), &added[0]["position"]), (1, &json!(2)), "right behind the beginning");
    assert_eq!(keys_of(&keys), [added[0]["data"]["key"].as_str().expect("a key")]);
    assert!(added[0]["data"].get("endorsement").is_none(), "there is no key before it");

    let mut sizes = BTreeSet::new();
    for _ in 0..3 {
        app.register(&email("ada")).await;
        let note = server.post("/v1/audit/checkpoint").bearer(&key).await.expect(200);
        assert!(note.header("content-type").is_some_and(|it| it.starts_with("text/plain")));
        let checkpoint = verified(&note.text, &keys_of(&keys)).expect("it is signed");
        let events = server.events().await;
        assert_eq!(checkpoint.size, events.len() as u64, "all that was acknowledged");
        let base = server.base();
        assert_eq!(checkpoint.origin, base.split_once("://").expect("a URL").1);
        assert_eq!(Tree::of(&events).root(checkpoint.size), checkpoint.root);
        sizes.insert(checkpoint.size);
        assert_eq!(signed(&server).await, note.text, "there is nothing new to sign");
        let newest = server.get("/v1/audit/checkpoint").bearer(&key).await.expect(200);
        assert_eq!(newest.text, note.text);
        let changed = note.text.replacen(&format!("\n{}\n", checkpoint.size), "\n1\n", 1);
        assert!(verified(&changed, &keys_of(&keys)).is_none());
    }
    assert_eq!(sizes.len(), 3);
    server.post("/v1/audit/checkpoint").bearer(&key).body("application/json", "[").await.expect(400);
}

#[tokio::test]
async fn it_is_signed_without_being_asked_for() {
    let server = Server::start_with(&[("WATCHWORD_CHECKPOINT_INTERVAL", "1")]).await;
    let (keys, key) = (keys(&server).await, server.platform_key());
    for _ in 0..2 {
        server.default_app().register(&email("ada")).await;
        let events = server.events().await;
        until("it covers all events", async || {
            let newest = server.get("/v1/audit/checkpoint").bearer(&key).await;
            newest.status == 200
                && verified(&newest.text, &keys_of(&keys)).expect("signed").size >= events.len() as u64
        })
        .await;
    }
    let metrics = server.metrics().await;
    let size = server.events().await.len();
    assert!(metrics.contains(&format!("watchword_checkpoint_size {size}\n")), "{metrics}");
    assert!(
        metrics.contains("watchword_checkpoint_refused 0\n")
            && metrics.contains("watchword_checkpoint_age_seconds ")
    );
    let ready = server.readiness().await.expect(200).json();
    assert_eq!(
        (&ready["checks"]["checkpoint"]["ok"], &ready["checks"]["checkpoint"]["size"]),
        (&json!(true), &json!(size))
    );
}

#[tokio::test]
async fn a_new_key_is_endorsed_and_signs_beside_the_one_before() {
    let server = Server::start().await;
    let key = server.platform_key();
    let first = keys(&server).await;
    let rotate = |number: &str| {
        let idempotency = format!("rotation-{number}");
        server.post("/v1/audit/key/rotate").bearer(&key).header("idempotency-key", &idempotency)
    };
    let both = rotate("1").await.expect(200).text;
    assert_eq!(rotate("1").await.expect(200).text, both, "a repetition is no rotation");
    assert_eq!(both, keys(&server).await);
    let [newer, older] = keys_of(&both)[..] else { panic!("two keys sign: {both}") };
    assert_eq!(format!("{older}\n"), first, "the newest is first");

    let note = signed(&server).await;
    assert_eq!(verified(&note, &[newer, older]).expect("signed").signatures, 2);
    for known in [newer, older] {
        assert!(verified(&note, &[known]).is_some(), "whoever knows only {known} can verify it");
    }
    let events = server.events().await;
    let added = of_type(&events, "CheckpointKeyAdded");
    let endorsement = added[1]["data"]["endorsement"].as_str().expect("there is one");
    let text = format!("watchword checkpoint key\n{newer}\n");
    assert_eq!(signed_text(endorsement, older), Some(text));
    assert_eq!(signed_text(endorsement, newer), None, "it does not vouch for itself");
    assert_eq!(added[1]["actorkind"], "api_key");

    let third = rotate("2").await.expect(200).text;
    assert_eq!(keys_of(&third)[1..], [newer], "the oldest has retired");
    let retired = server.events().await;
    let retired: Vec<&Value> = of_type(&retired, "CheckpointKeyRetired");
    assert_eq!((retired.len(), &retired[0]["data"]["key"]), (1, &json!(older)));
    let note = signed(&server).await;
    assert!(verified(&note, &[older]).is_none() && verified(&note, &[newer]).is_some());
}

#[tokio::test]
async fn it_is_rotated_by_command_beside_the_server_and_without_it() {
    let mut server = Server::start().await;
    let first = keys(&server).await;
    let rotate = |server: &Server, more: &[&str]| {
        let output = server.command(&[&["keys", "rotate-checkpoint"], more].concat()).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let both = rotate(&server, &["--url", &server.base()]);
    assert_eq!(both, keys(&server).await);
    assert!(both.ends_with(&first) && both.lines().count() == 2, "{both}");
    server.terminate().await;
    let third: Value = serde_json::from_str(&rotate(&server, &["--json"])).expect("JSON");
    server.up().await;
    let now = keys(&server).await;
    assert_eq!(third, json!({ "keys": now.lines().collect::<Vec<_>>() }));
    assert_eq!(now.lines().nth(1), both.lines().next());
    assert!(verified(&signed(&server).await, &keys_of(&both)).is_some(), "the one before signs too");
}

#[tokio::test]
async fn the_older_key_retires_by_itself() {
    let server = Server::start_with(&[("WATCHWORD_CHECKPOINT_KEY_OVERLAP", "1")]).await;
    let first = keys(&server).await;
    server.post("/v1/audit/key/rotate").bearer(&server.platform_key()).await.expect(200);
    signed(&server).await;
    until("the older key has retired", async || keys(&server).await.lines().count() == 1).await;
    assert_ne!(keys(&server).await, first);
    let note = signed(&server).await;
    assert!(verified(&note, &keys_of(&first)).is_none());
}

#[tokio::test]
async fn a_key_for_auditors_reads_checkpoints_and_nothing_else() {
    let server = Server::start().await;
    let app = server.default_app();
    let platform = server.platform_key();
    let issue = async |permissions: Value| {
        let body = json!({"name": "auditor", "permissions": permissions});
        server.post("/v1/apps/platform/admin/api-keys").bearer(&platform).json(&body).await
    };
    let auditor =
        issue(json!(["audit:read"])).await.expect(201).json()["key"].as_str().expect("a key").to_owned();
    issue(json!(["audit:read", "metrics:read"])).await.expect(201);
    issue(json!(["audit:read", "platform"])).await.problem(422, "validation_failed");
    issue(json!(["audit:read", "users:read"])).await.problem(422, "validation_failed");
    let (_, of_app) = app.api_key(&["audit:read"]).await;
    server.get("/v1/audit/key").bearer(&auditor).await.expect(200);
    let note = server.post("/v1/audit/checkpoint").bearer(&auditor).await.expect(200).text;
    assert_eq!(server.get("/v1/audit/checkpoint").bearer(&auditor).await.expect(200).text, note);
    server.post("/v1/audit/key/rotate").bearer(&auditor).await.problem(403, "forbidden");
    for path in ["/v1/events", "/v1/apps", "/v1/projections", "/metrics"] {
        server.get(path).bearer(&auditor).await.problem(403, "forbidden");
    }
    app.get("audit/events").bearer(&auditor).await.problem(404, "not_found");
    app.get("admin/users").bearer(&auditor).await.problem(404, "not_found");
    server.get("/v1/apps/platform/admin/api-keys").bearer(&auditor).await.problem(404, "not_found");
    for (method, path) in [
        ("GET", "/v1/audit/key"),
        ("GET", "/v1/audit/checkpoint"),
        ("POST", "/v1/audit/checkpoint"),
        ("POST", "/v1/audit/key/rotate"),
    ] {
        let method = method.parse().expect("a method");
        server.call(method, path).bearer(&of_app).await.problem(403, "forbidden");
    }
    let made = server.command(&[
        "api-key",
        "create",
        "platform",
        "--name",
        "auditor",
        "--permission",
        "audit:read",
        "--url",
        &server.base(),
    ]);
    let mut made = made;
    let made = made.env("WATCHWORD_ADMIN_KEY", &platform).output().expect("it runs");
    let made = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    server.get("/v1/audit/key").bearer(&made).await.expect(200);
}
