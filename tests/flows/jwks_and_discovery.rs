use serde_json::json;
use tests::{Server, email, jwt_header_of};

use crate::python;

#[tokio::test]
async fn keys_are_public_only_and_name_the_one_that_signs() {
    let server = Server::start().await;
    for (algorithm, kind) in [("ES256", "EC"), ("EdDSA", "OKP"), ("RS256", "RSA")] {
        let app = server.create_app(json!({"token_algorithm": algorithm})).await;
        let tokens = app.register(&email("ada")).await;
        let header = jwt_header_of(&tokens.access);
        assert_eq!(header["alg"], algorithm);
        let jwks = app.get(".well-known/jwks.json").await.expect(200).json();
        let keys = jwks["keys"].as_array().unwrap();
        assert!(keys.len() >= 2, "the next key is published before it signs");
        assert!(keys.iter().any(|key| key["kid"] == header["kid"]));
        for key in keys {
            assert_eq!(
                (&key["kty"], &key["use"], &key["alg"]),
                (&json!(kind), &json!("sig"), &json!(algorithm))
            );
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(key.get(private).is_none(), "{key}");
            }
        }
        app.me(&tokens.access).await.expect(200);
    }
}

#[tokio::test]
async fn an_independent_client_verifies_our_tokens() {
    let server = Server::start().await;
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        let settings = json!({"token_algorithm": algorithm});
        let (app, other) = (server.create_app(settings.clone()).await, server.create_app(settings).await);
        let result = python::run("verify_jwt.py", &[&server.base(), &app.id, &other.id]);
        let Some(result) = result else { return };
        assert_eq!((&result["alg"], &result["accepted"]), (&json!(algorithm), &json!(true)));
        assert_eq!(result["verified"], json!(["iss", "aud", "sub", "sid", "exp", "typ", "kid"]));
        assert_eq!(result["refused_by_another_apps_keys"], true);
    }
}
