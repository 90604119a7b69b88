use serde_json::json;
use tests::{Server, email, until};

#[tokio::test]
async fn health_metrics_docs_and_problem_pages_exist() {
    let server = Server::start().await;
    server.get("/healthz").await.expect(200);
    server.get("/readyz").await.expect(200);
    let app = server.create_app(json!({})).await;
    app.register(&email("ada")).await;
    app.get("auth/me").await.problem(401, "unauthenticated");
    let metrics = server.metrics().await;
    assert!(metrics.contains("# TYPE"), "{metrics}");
    let docs = server.get("/docs/").await.expect(200);
    assert!(docs.text.contains("swagger") && docs.text.contains("<title>Watchword</title>"));
    for file in [
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "swagger-ui-standalone-preset.js",
        "swagger-initializer.js",
    ] {
        assert!(docs.text.contains(file), "{file}");
        server.get(format!("/docs/{file}")).await.expect(200);
    }
    let settings = server.get("/docs/swagger-initializer.js").await.text;
    assert!(
        settings.contains(r#""docExpansion": "none""#) && settings.contains("../openapi.json"),
        "{settings}"
    );
    server.get("/docs/absent.js").await.problem(404, "not_found");
    assert_eq!(server.get("/openapi.json").await.expect(200).json()["info"]["title"], "Watchword");
    for code in ["unauthenticated", "email_taken", "rate_limited", "not_found", "malformed_request"] {
        server.get(format!("/problems/{code}")).await.expect(200);
    }
    server.get("/problems/no-such-problem").await.problem(404, "not_found");
}

#[tokio::test]
async fn request_ids_are_made_or_echoed_but_never_injected() {
    let server = Server::start().await;
    assert!(server.get("/healthz").await.header("x-request-id").is_some_and(|it| !it.is_empty()));
    let long = "x".repeat(5_000);
    for odd in ["a b\tc", "<script>", &long] {
        let echoed = server.get("/healthz").header("x-request-id", odd).await;
        assert_ne!(echoed.header("x-request-id"), Some(odd));
    }
}

#[tokio::test]
async fn projections_report_their_positions() {
    let server = Server::start().await;
    let tokens = server.create_app(json!({})).await.register(&email("ada")).await;
    assert!(!tokens.access.is_empty());
    let head = server.events().await.len() as u64;
    let key = server.platform_key();
    let models = server.names_of_read_models(&key).await;
    assert!(models.len() >= 5, "{models:?}");
    until("the read models catch up", async || {
        let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.iter().map(|it| it["name"].as_str().unwrap()).collect::<Vec<_>>(), models);
        items.iter().all(|it| it["position"] == head && it["lag"] == 0 && it["state"] == "running")
    })
    .await;
}
