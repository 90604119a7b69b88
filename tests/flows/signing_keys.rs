//! Keys are published before they sign: rotations, changes of algorithm, and what tells of them.

use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, claims_of, email, jwt_header_of, of_type};

use crate::python;

fn kid_of(token: &str) -> Value {
    jwt_header_of(token)["kid"].clone()
}

/// The published keys with this status.
async fn keys(app: &App<'_>, platform: &str, status: &str) -> Vec<Value> {
    let list = app.get("admin/keys").bearer(platform).await.expect(200).json();
    list["items"].as_array().unwrap().iter().filter(|key| key["status"] == status).cloned().collect()
}

#[tokio::test]
async fn rotations_keep_every_token_valid() {
    let server = Server::start().await;
    let app = server.create_app(json!({"key_propagation": 0})).await;
    let address = email("ada");
    let key = server.platform_key();
    let mut tokens = vec![app.register(&address).await.access];
    for _ in 0..4 {
        let next = keys(&app, &key, "next").await.remove(0);
        app.post("admin/keys/rotate").bearer(&key).await.expect_success();
        tokens.push(app.login(&address, PASSWORD).await.tokens().access);
        assert_eq!(kid_of(tokens.last().unwrap()), next["kid"]);
        for token in &tokens {
            app.me(token).await.expect(200);
        }
    }
    assert_eq!(keys(&app, &key, "previous").await.len(), 4, "as long as their tokens");
    app.post("admin/keys/rotate").bearer(&key).json(&json!({"emergency": true})).await.expect(200);
    for token in &tokens {
        app.me(token).await.problem(401, "unauthenticated");
    }
    let after = app.login(&address, PASSWORD).await.tokens();
    app.me(&after.access).await.expect(200);
    assert_eq!(keys(&app, &key, "previous").await, Vec::<Value>::new());
    let events = server.events().await;
    assert!(
        of_type(&events, "SigningKeyActivated").iter().all(|event| event["data"]["signs_from"].is_string())
    );
    assert!(!events.iter().any(|event| event.to_string().contains("\"d\":")), "no private key in an event");
}

/// Over restarts, without read models, and with an hour in between, which the server's clock skips.
#[tokio::test]
async fn a_new_algorithm_signs_once_verifiers_know_its_key() {
    let mut server = Server::start().await;
    let settings = json!({"key_propagation": 3600, "access_token_ttl": 86400});
    let id = server.create_app(settings).await.id.clone();
    let (key, address) = (server.platform_key(), email("ada"));
    let patch = json!({"settings": {"token_algorithm": "EdDSA"}});
    let old = server.app(&id).register(&address).await.access;
    server.patch(format!("/v1/apps/{id}")).bearer(&key).json(&patch).await.expect(200);
    let known = server.app(&id).get(".well-known/jwks.json").await.expect(200).text;
    let scheduled = {
        let app = server.app(&id);
        let current = keys(&app, &key, "current").await.remove(0);
        assert_eq!((&current["alg"], &current["kid"]), (&json!("ES256"), &kid_of(&old)));
        let next = keys(&app, &key, "next").await;
        assert_eq!((next.len(), &next[1]["signs_from"]), (2, &Value::Null));
        assert_eq!(current["signs_until"], next[0]["signs_from"]);
        next[0].clone()
    };
    assert_eq!(scheduled["alg"], "EdDSA");

    // Whoever looks after the deployment can see it.
    let told = format!(
        "{} (EdDSA) signs from {}",
        scheduled["kid"].as_str().unwrap(),
        scheduled["signs_from"].as_str().unwrap()
    );
    let ready = server.get("/readyz").bearer(&key).await.expect(200).json();
    assert_eq!(
        ready["checks"]["signing_keys"]["scheduled"][0]["signs_from"], scheduled["signs_from"],
        "{ready}"
    );
    let public = server.get("/readyz").await.expect(200);
    assert!(!public.text.contains("signing_keys"), "{}", public.text);
    let says = |server: &Server, arguments: &[&str]| {
        let output = server.command(arguments).output().expect("runs");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert!(says(&server, &["doctor"]).contains(&told), "{}", says(&server, &["doctor"]));
    let base = server.base();
    let list = says(&server, &["keys", "list", &id, "--url", &base]);
    assert!(list.contains(scheduled["signs_from"].as_str().unwrap()), "{list}");
    let rotated = says(&server, &["keys", "rotate", &id, "--url", &base]);
    assert!(rotated.contains(&told), "{rotated}");

    let mut newest = String::new();
    for (clock, algorithm) in [("0s", "ES256"), ("1800s", "ES256"), ("3601s", "EdDSA"), ("3601s", "EdDSA")] {
        server.terminate().await;
        if clock == "0s" {
            assert!(says(&server, &["doctor"]).contains(&told), "{}", says(&server, &["doctor"]));
        }
        for file in ["read-models.db", "read-models.db-wal", "read-models.db-shm"] {
            let _ = std::fs::remove_file(server.data().join(file));
        }
        server.set_environment("FAILPOINTS", &format!("clock=return({clock})"));
        server.up().await;
        let app = server.app(&id);
        newest = app.login(&address, PASSWORD).await.expect(200).tokens().access;
        assert_eq!(jwt_header_of(&newest)["alg"], algorithm, "at {clock}");
        for token in [&old, &newest] {
            app.me(token).await.expect(200);
        }
    }
    assert_eq!(kid_of(&newest), scheduled["kid"]);
    assert!(claims_of(&newest)["iat"].as_i64() > claims_of(&old)["iat"].as_i64().map(|iat| iat + 3600));
    let app = server.app(&id);
    let previous = keys(&app, &key, "previous").await;
    assert_eq!(previous[0]["kid"], kid_of(&old), "its tokens are valid");

    // A library with the keys of before the switch verifies both.
    for token in [&old, &newest] {
        let issuer = server.url(&format!("/v1/apps/{id}"));
        let Some(result) = python::run("verify_with.py", &[&known, token, &issuer, &id]) else { return };
        assert_eq!(result["sub"], claims_of(&old)["sub"]);
    }
}

#[tokio::test]
async fn an_emergency_by_command_waits_for_nothing() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let before = app.register(&email("ada")).await;
    let next = keys(&app, &server.platform_key(), "next").await.remove(0);
    let arguments = ["keys", "rotate", &app.id, "--emergency", "--url", &server.base()];
    let output = server.command(&arguments).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success()
            && text.contains(&format!("{} (ES256) signs\n", next["kid"].as_str().unwrap())),
        "{output:?}"
    );
    app.me(&before.access).await.problem(401, "unauthenticated");
    let after = app.refresh(&before.refresh).await.expect(200).tokens();
    assert_eq!(kid_of(&after.access), next["kid"]);
    app.me(&after.access).await.expect(200);
}
