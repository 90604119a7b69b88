use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::{PASSWORD, Server, email, jwt_header_of, workspace};

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
    // It exists only below the issuer that it names.
    for elsewhere in ["/.well-known/openid-configuration", "/auth/.well-known/openid-configuration"] {
        server.get(elsewhere).await.problem(404, "not_found");
    }
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
async fn an_independent_client_verifies_our_tokens() {
    let Some(python) = python_with_pyjwt() else { return };
    let server = Server::start().await;
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        let settings = json!({"token_algorithm": algorithm});
        let (app, other) = (server.create_app(settings.clone()).await, server.create_app(settings).await);
        let output = Command::new(&python)
            .arg(workspace().join("tests/clients/verify_jwt.py"))
            .args([server.base(), app.id.clone(), other.id.clone()])
            .output()
            .expect("Python runs");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{algorithm}: {text}");
        let result: Value = serde_json::from_slice(&output.stdout).expect("the script prints JSON");
        assert_eq!((&result["alg"], &result["accepted"]), (&json!(algorithm), &json!(true)));
        assert_eq!(result["verified"], json!(["iss", "aud", "sub", "sid", "exp", "typ", "kid"]));
        assert_eq!(result["refused_by_another_apps_keys"], true);
    }
}

#[tokio::test]
async fn a_new_algorithm_signs_from_then_on_and_older_tokens_stay_valid() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let mut tokens = vec![app.register(&address).await];
    let key = server.platform_key();
    for algorithm in ["RS256", "EdDSA"] {
        let patch = json!({"settings": {"token_algorithm": algorithm}});
        server.patch(format!("/v1/apps/{}", app.id)).bearer(&key).json(&patch).await.expect(200);
        tokens.push(app.login(&address, PASSWORD).await.expect(200).tokens());
        assert_eq!(jwt_header_of(&tokens.last().unwrap().access)["alg"], algorithm);
        for earlier in &tokens[tokens.len() - 2..] {
            app.me(&earlier.access).await.expect(200);
        }
    }
}

/// A virtual environment with `PyJWT`, its wheels pinned by hash. Without Python there is none, and the one test that
/// needs it prints that it was skipped; `TEST_REQUIRE_PYTHON=1`, which `.ci/run` sets, makes that a failure.
fn python_with_pyjwt() -> Option<std::path::PathBuf> {
    let environment = workspace().join("target/clients-venv");
    let python = environment.join("bin/python");
    let requirements = workspace().join("tests/clients/requirements.txt");
    let stamp = environment.join("installed");
    let wanted = std::fs::read(&requirements).expect("the requirements are in the repository");
    if std::fs::read(&stamp).is_ok_and(|it| it == wanted) {
        return Some(python);
    }
    let run = |program: &Path, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|it| it.status.success())
    };
    let directory = environment.to_str().expect("the path is UTF-8");
    let list = requirements.to_str().expect("the path is UTF-8");
    let installed = run(Path::new("python3"), &["-m", "venv", "--clear", directory])
        && run(
            &python,
            &["-m", "pip", "install", "-q", "--require-hashes", "--only-binary", ":all:", "-r", list],
        );
    if installed {
        std::fs::write(stamp, wanted).expect("target/ can be written");
        return Some(python);
    }
    assert!(std::env::var_os("TEST_REQUIRE_PYTHON").is_none(), "PyJWT could not be installed");
    eprintln!("skipped: no Python with venv and pip");
    None
}
