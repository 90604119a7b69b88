//! An app's metadata: true, and served only where its issuer says that they are (`OpenID` Connect Discovery 1.0 section 4.3,
//! RFC 8414 section 3).

use serde_json::{Value, json};
use tests::Server;

const OAUTH: &str = "/.well-known/oauth-authorization-server";

#[tokio::test]
async fn discovery_names_existing_routes() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let document = app.get(".well-known/openid-configuration").await.expect(200).json();
    assert_eq!(document["issuer"], server.url(&format!("/v1/apps/{}", app.id)));
    assert_eq!(document["jwks_uri"], server.url(&app.path(".well-known/jwks.json")));
    let names: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
    for absent in ["token_endpoint", "userinfo_endpoint", "grant_types_supported", "response_types_supported"]
    {
        assert!(!names.contains(&absent), "{absent} does not exist yet");
    }
    let is_empty = |value: &Value| value.is_null() || value == &json!([]) || value == "";
    assert!(!document.as_object().unwrap().values().any(is_empty), "{document}");
    for (name, value) in document.as_object().unwrap() {
        if let Some(path) = value.as_str().and_then(|it| it.strip_prefix(&server.base())) {
            if name == "issuer" {
                continue;
            }
            let (get, post) = (server.get(path).await, server.post(path).await);
            assert!(get.status != 404 || post.status != 404, "{name}: {path} does not exist");
        }
    }
}

#[tokio::test]
async fn a_document_is_only_where_its_issuer_says() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for id in [app.id.as_str(), "default"] {
        let issuer = server.url(&format!("/v1/apps/{id}"));
        let below = server.get(format!("/v1/apps/{id}/.well-known/openid-configuration")).await.expect(200);
        let inserted = server.get(format!("{OAUTH}/v1/apps/{id}")).await.expect(200);
        assert_eq!(below.json()["issuer"], issuer);
        assert_eq!(inserted.json(), below.json());
        assert_eq!(inserted.header("cache-control"), Some("public, max-age=300"));
    }
    for elsewhere in [
        "/.well-known/openid-configuration",
        "/auth/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/auth/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/auth",
        "/.well-known/oauth-authorization-server/v1",
        "/.well-known/oauth-authorization-server/v1/apps",
        "/.well-known/oauth-authorization-server/v1/apps/nobody",
        "/.well-known/oauth-authorization-server/v1/apps/platform",
        "/.well-known/oauth-authorization-server/v1/apps/default/",
        "/.well-known/openid-configuration/v1/apps/default",
        "/v1/apps/default/.well-known/oauth-authorization-server",
        "/v1/apps/nobody/.well-known/openid-configuration",
    ] {
        server.get(elsewhere).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn browsers_of_an_app_may_read_its_metadata() {
    let server = Server::start().await;
    let app = server.create_app(json!({"origins": ["https://client.example"]})).await;
    let paths = [app.path(".well-known/openid-configuration"), format!("{OAUTH}/v1/apps/{}", app.id)];
    for path in paths {
        let allowed = async |origin: &str| {
            let answer = server.get(&path).header("origin", origin).await.expect(200);
            answer.header("access-control-allow-origin").map(str::to_owned)
        };
        assert_eq!(allowed("https://client.example").await.as_deref(), Some("https://client.example"));
        assert_eq!(allowed("https://evil.example").await, None, "{path}");
    }
}

/// Below a path the well-known path still begins at the root of the host.
#[tokio::test]
async fn the_path_of_a_mounted_issuer_is_inserted() {
    let mut server = Server::new(&[]);
    server.set_environment("WATCHWORD_PUBLIC_URL", &format!("{}/id/v2", server.base()));
    server.up().await;
    let document = server.get(format!("{OAUTH}/id/v2/v1/apps/default")).await.expect(200).json();
    assert_eq!(document["issuer"], server.url("/id/v2/v1/apps/default"));
    for member in ["introspection_endpoint", "revocation_endpoint", "jwks_uri"] {
        assert!(document[member].as_str().unwrap().starts_with(&server.url("/id/v2/v1/apps/default/")));
    }
    for elsewhere in ["/v1/apps/default", "/id/v1/apps/default", "/id/v2", "/id/v2x/v1/apps/default"] {
        server.get(format!("{OAUTH}{elsewhere}")).await.problem(404, "not_found");
    }
}
