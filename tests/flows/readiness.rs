use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tests::{PATIENCE, Server, email, free_port};

/// Changes a store of a running server, as only a fault would.
async fn damage(server: &Server, store: &str, statement: &str) {
    let path = server.data().join(store);
    let mut connection =
        sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.expect("it can be opened");
    sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await
        .expect("it can be changed");
    connection.close().await.expect("it can be closed");
}

#[tokio::test]
async fn every_store_is_really_read() {
    let server = Server::start().await;
    let ready = server.readiness().await.expect(200).json();
    assert_eq!(ready["status"], "ready");
    let checks = &ready["checks"];
    for store in ["journal", "key_store", "read_models"] {
        assert_eq!(checks[store]["ok"], true, "{ready}");
    }
    for projector in checks["projectors"].as_array().unwrap() {
        assert_eq!((&projector["ok"], &projector["state"]), (&true.into(), &"running".into()), "{ready}");
        assert!(projector["lag"].is_u64() && projector["position"].is_u64(), "{ready}");
    }
    for (store, file, broken, healed) in [
        (
            "journal",
            "journal.db",
            "ALTER TABLE events RENAME TO hidden",
            "ALTER TABLE hidden RENAME TO events",
        ),
        (
            "key_store",
            "keys.db",
            "UPDATE meta SET key = 'hidden' WHERE key = 'check'",
            "UPDATE meta SET key = 'check' WHERE key = 'hidden'",
        ),
        (
            "read_models",
            "read-models.db",
            "ALTER TABLE checkpoints RENAME TO hidden",
            "ALTER TABLE hidden RENAME TO checkpoints",
        ),
    ] {
        damage(&server, file, broken).await;
        let answer = server.get("/readyz").await;
        let problem = answer.problem(503, "not_ready");
        assert_eq!(problem["checks"][store]["ok"], false, "{problem}");
        for inside in ["hidden", "SQL", "no such", ".db", "key store:"] {
            assert!(!answer.text.contains(inside), "{inside} in {}", answer.text);
        }
        server.get("/healthz").await.expect(200);
        damage(&server, file, healed).await;
        // A projector that met the fault retries within a second or two.
        let ready = async {
            while server.get("/readyz").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("it recovers without help");
    }
    server.get("/problems/not_ready").await.expect(200);
}

/// A caller who sees the journal or a counter grow learns which requests had an effect, for example whether an address
/// is known.
#[tokio::test]
async fn positions_and_counters_are_only_for_the_platform() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let ada = app.register(&email("ada")).await;
    let platform = server.platform_key();
    let all =
        ["users:read", "users:write", "orgs:*", "audit:read", "events:read", "settings:write", "keys:write"];
    let (_, key) = app.api_key(&all).await;
    for credential in [None, Some("nonsense"), Some(ada.access.as_str()), Some(key.as_str())] {
        let call = server.get("/readyz");
        let answer = match credential {
            Some(credential) => call.bearer(credential),
            None => call,
        };
        let told = answer.await.expect(200).json();
        let checks = told["checks"].as_object().expect("an object");
        let lists = checks.values().filter_map(|check| check.as_array()).flatten();
        for check in checks.values().filter(|check| check.is_object()).chain(lists) {
            for member in check.as_object().expect("an object").keys() {
                assert!(["ok", "name", "state", "detail"].contains(&member.as_str()), "{member} in {told}");
            }
            assert!(check["ok"].is_boolean(), "{told}");
        }
    }
    let told = server.get("/readyz").bearer(&platform).await.expect(200).json();
    assert!(told["checks"]["journal"]["head"].is_u64(), "{told}");

    server.get("/metrics").await.problem(401, "unauthenticated");
    server.get("/metrics").bearer("nonsense").await.problem(401, "unauthenticated");
    server.get("/metrics").bearer(&ada.access).await.problem(401, "unauthenticated");
    server.get("/metrics").bearer(&key).await.problem(403, "forbidden");
    assert!(server.get("/metrics").bearer(&platform).await.expect(200).text.contains("journal_head"));

    // Metrics are about all apps: an app's own admins and keys cannot grant the right to read them.
    let wanted = json!({"name": "prometheus", "permissions": ["metrics:read"]});
    let admin = app.register_admin(&email("admin")).await;
    for maker in [&admin.access, &key] {
        app.post("admin/api-keys").bearer(maker).json(&wanted).await.problem(403, "forbidden");
    }
    for path in [app.path("admin/api-keys"), "/v1/apps/platform/admin/api-keys".to_owned()] {
        let made = server.post(&path).bearer(&platform).json(&wanted).await.expect(201).json();
        let reader = made["key"].as_str().expect("a key").to_owned();
        assert!(server.get("/metrics").bearer(&reader).await.expect(200).text.contains("journal_head"));
        // And nothing else.
        let told = server.get("/readyz").bearer(&reader).await.expect(200).json();
        assert!(told["checks"]["journal"]["head"].is_null(), "{told}");
        server.get("/v1/apps").bearer(&reader).await.problem(403, "forbidden");
        server.get("/v1/projections").bearer(&reader).await.problem(403, "forbidden");
        server.get("/v1/events").bearer(&reader).await.problem(403, "forbidden");
        let answer = app.get("admin/users").bearer(&reader).await.status;
        assert!([403, 404].contains(&answer), "{answer}");
        let answer = other.get("admin/users").bearer(&reader).await.status;
        assert_eq!(answer, 404);
        let both = json!({"name": "more", "permissions": ["metrics:read", "platform"]});
        server.post(&path).bearer(&platform).json(&both).await.problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn the_internal_address_needs_no_key_and_has_nothing_else() {
    let port = free_port();
    let internal = format!("127.0.0.1:{port}");
    let server = Server::start_with(&[("WATCHWORD_INTERNAL_LISTEN", &internal)]).await;
    server.default_app().register(&email("ada")).await;
    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{internal}{path}")).await.expect("answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    assert_eq!(get("/healthz").await.0, 200);
    let (status, ready) = get("/readyz").await;
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
    assert!(status == 200 && ready["checks"]["journal"]["head"].as_u64() > Some(0), "{ready}");
    let (status, metrics) = get("/metrics").await;
    assert!(status == 200 && metrics.contains("journal_head"), "{metrics}");
    for path in ["/v1/apps", "/auth/me", "/docs/", "/openapi.json", "/"] {
        assert_eq!(get(path).await.0, 404, "{path}");
    }
    // The public address is unchanged.
    server.get("/metrics").await.problem(401, "unauthenticated");
    server.get("/readyz").await.expect(200);
}

/// One address for both would be an address without keys.
#[tokio::test]
async fn the_internal_address_cannot_be_the_public_one() {
    let mut server = Server::start().await;
    server.terminate().await;
    let public = server.base().replace("http://", "");
    server.set_environment("WATCHWORD_INTERNAL_LISTEN", &public);
    let output = server.command(&["serve"]).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("internal_listen"), "{said}");
}
