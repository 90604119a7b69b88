//! Introspection and revocation for OAuth libraries: an app's id and an API key as client id and secret (RFC 6749 section
//! 2.3.1), by HTTP Basic or in the form body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::{Answer, App, Call, Server, email};

use crate::python;

const INTROSPECT: [&str; 2] = ["auth/introspect", "oauth2/introspect"];
const REVOKE: [&str; 2] = ["auth/revoke", "oauth2/revoke"];

fn basic(call: Call, id: &str, secret: &str) -> Call {
    call.header("authorization", &format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))
}

/// Each way to send a client id and secret with a token.
fn ways(app: &App, route: &str, id: &str, secret: &str, token: &str) -> [Call; 3] {
    let encoded: Vec<_> = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    [
        basic(app.post(route).form(&[("token", token)]), id, secret),
        basic(app.post(route).form(&[("token", token), ("client_id", id)]), id, &encoded.concat()),
        app.post(route).form(&[("token", token), ("client_id", id), ("client_secret", secret)]),
    ]
}

#[track_caller]
fn is_invalid_client(answer: &Answer) {
    let problem = answer.problem(401, "unauthenticated");
    assert_eq!(problem["error"], "invalid_client");
    assert_eq!(problem["error_description"], problem["detail"]);
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Basic realm="), "{challenge}");
}

#[track_caller]
fn is_invalid_request(answer: &Answer) {
    assert_eq!(answer.problem(400, "malformed_request")["error"], "invalid_request");
}

#[tokio::test]
async fn an_api_key_is_a_client_secret() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (_, key) = app.api_key(&["orgs:*"]).await;
    for key in [key, server.platform_key()] {
        let tokens = app.register(&email("ada")).await;
        for (route, token) in INTROSPECT.iter().flat_map(|it| [(it, &tokens.access), (it, &tokens.refresh)]) {
            for call in ways(&app, route, &app.id, &key, token) {
                let told = call.await.expect(200).json();
                assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!(tokens.user_id)));
            }
            for call in ways(&app, route, &app.id, &key, "nonsense") {
                assert_eq!(call.await.expect(200).json(), json!({"active": false}));
            }
        }
        for route in REVOKE {
            for way in 0..3 {
                let tokens = app.register(&email("ada")).await;
                for _ in 0..2 {
                    let call =
                        ways(&app, route, &app.id, &key, &tokens.refresh).into_iter().nth(way).unwrap();
                    let answer = call.await.expect(200);
                    assert_eq!(answer.text, "");
                    answer.consistency();
                }
                app.me(&tokens.access).await.problem(401, "unauthenticated");
            }
            for call in ways(&app, route, &app.id, &key, "nonsense") {
                call.await.expect(200);
            }
        }
    }
}

#[tokio::test]
async fn wrong_clients_are_refused_and_change_nothing() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let tokens = app.register(&email("ada")).await;
    let (key_id, ended) = app.api_key(&["users:read"]).await;
    let (_, key) = app.api_key(&["users:read"]).await;
    let (_, foreign) = other.api_key(&["users:read"]).await;
    app.delete(&format!("admin/api-keys/{key_id}")).bearer(&server.platform_key()).await.expect(204);
    let platform = server.platform_key();
    let wrong = [
        (app.id.as_str(), ended.as_str()),
        (&app.id, &foreign),
        (&app.id, &key[..key.len() - 1]),
        (&app.id, "x"),
        (&app.id, &tokens.access),
        (&other.id, &key),
        (&other.id, &platform),
        ("platform", &platform),
        ("", &key),
    ];
    for route in INTROSPECT.iter().chain(&REVOKE) {
        for (id, secret) in wrong {
            for call in ways(&app, route, id, secret, &tokens.access) {
                is_invalid_client(&call.await);
            }
        }
        is_invalid_client(&basic(app.post(route).form(&[("token", "x")]), &app.id, "").await);
        for nonsense in ["Basic", "Basic ", "Basic ?", "basic YWNtZQ==", "Basic /////w=="] {
            is_invalid_client(
                &app.post(route).header("authorization", nonsense).form(&[("token", "x")]).await,
            );
        }
        let form = [("token", tokens.access.as_str()), ("client_secret", &key)];
        is_invalid_request(&app.post(route).form(&form).await);
        is_invalid_request(&basic(app.post(route).form(&form), &app.id, &key).await);
        is_invalid_request(&app.post(route).bearer(&key).form(&form).await);
        let form = [("token", tokens.access.as_str()), ("client_id", &other.id)];
        is_invalid_request(&basic(app.post(route).form(&form), &app.id, &key).await);
        is_invalid_request(&basic(app.post(route).form(&[("tokens", "x")]), &app.id, &key).await);
        let twice = basic(app.post(route).form(&[("token", "x")]), &app.id, &key);
        is_invalid_request(&twice.header("authorization", &format!("Bearer {key}")).await);
    }
    app.me(&tokens.access).await.expect(200);

    // Without any credentials it is as before.
    for route in INTROSPECT {
        let answer = app.post(route).form(&[("token", &tokens.access), ("client_id", &app.id)]).await;
        answer.problem(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    app.post("auth/revoke").form(&[("token", "x"), ("client_id", &app.id)]).await.expect(200);
    app.post("auth/revoke").bearer(&tokens.access).form(&[("token", "x")]).await.expect(200);

    server.post(format!("/v1/apps/{}/disable", app.id)).bearer(&platform).await.expect_success();
    for call in ways(&app, "oauth2/introspect", &app.id, &key, &tokens.access) {
        call.await.problem(403, "app_disabled");
    }
}

#[tokio::test]
async fn a_client_secret_opens_nothing_else() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    for path in ["admin/users", "admin/keys", "audit/events", "auth/me"] {
        basic(app.get(path), &app.id, &key).await.problem(401, "unauthenticated");
    }
    let form = [("client_id", app.id.as_str()), ("client_secret", &key)];
    app.post("admin/keys/rotate").form(&form).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn requests_of_a_client_are_counted_by_its_key() {
    let server = Server::start_with(&[("WATCHWORD_RATE_LIMITS", "on")]).await;
    let app = server.default_app();
    let (_, key) = app.api_key(&["users:read"]).await;
    for route in INTROSPECT.iter().chain(&REVOKE) {
        for call in ways(&app, route, &app.id, &key, "x") {
            let answer = call.await.expect(200);
            assert_eq!(answer.header("ratelimit-policy"), Some("\"server\";q=6000;w=60"), "{route}");
        }
        for call in ways(&app, route, &app.id, "x", "x") {
            let answer = call.await.expect(401);
            assert_eq!(answer.header("ratelimit-policy"), Some("\"general\";q=1200;w=60"), "{route}");
        }
    }
}

#[tokio::test]
async fn a_library_finds_the_endpoints_and_uses_them() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (_, key) = app.api_key(&["users:read"]).await;
    let issuer = server.url(&format!("/v1/apps/{}", app.id));
    let Some(result) = python::run("oauth_client.py", &[&issuer, &key, &key.replace("wwk_", "wwk_x")]) else {
        return;
    };
    assert_eq!(result["failed"], json!([]));
    assert!(result["checked"].as_u64().unwrap() > 15, "{result}");
    let well_known = server.url(&format!("/.well-known/oauth-authorization-server/v1/apps/{}", app.id));
    assert_eq!(result["well_known"], Value::from(well_known));
}
