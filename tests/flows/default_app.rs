use serde_json::json;
use tests::{PASSWORD, Server, claims_of, email};

#[tokio::test]
async fn is_there_on_a_fresh_start_and_answers_without_its_id() {
    let server = Server::start().await;
    let address = email("ada");
    let body = json!({"email": address, "password": PASSWORD});
    let tokens = server.post("/auth/register").json(&body).await.expect(201).tokens();
    assert_eq!(tokens.user["app_id"], "default");
    assert_eq!(claims_of(&tokens.access)["iss"], server.url("/v1/apps/default"));
    server.get("/auth/me").bearer(&tokens.access).await.expect(200);
    server.default_app().me(&tokens.access).await.expect(200);
    server.post("/auth/login").json(&body).await.expect(200);
    server.default_app().login(&address, PASSWORD).await.expect(200);
    let tokens = server
        .post("/auth/refresh")
        .json(&json!({"refresh_token": tokens.refresh}))
        .await
        .expect(200)
        .tokens();
    server.get("/auth/sessions").bearer(&tokens.access).await.expect(200);
    server.post("/auth/logout").bearer(&tokens.access).await.expect(204);
    assert_eq!(
        server.get("/.well-known/jwks.json").await.expect(200).json(),
        server.default_app().get(".well-known/jwks.json").await.expect(200).json()
    );
}

#[tokio::test]
async fn every_route_of_an_apps_users_answers_without_its_id_too() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.expect(200).json();
    let paths = document["paths"].as_object().unwrap();
    let routes = |path: &str| -> Vec<String> {
        paths[path].as_object().unwrap().keys().filter(|it| *it != "parameters").cloned().collect()
    };
    let mut seen = 0;
    for (path, short) in paths.keys().filter_map(|path| Some((path, path.strip_prefix("/v1/apps/{app_id}")?)))
    {
        let is_short = short.starts_with("/auth/") || short == "/.well-known/jwks.json";
        assert!(!paths.contains_key(short), "{short} is documented once, in the description of the API");
        if !is_short {
            continue;
        }
        for method in routes(path) {
            let method: reqwest::Method = method.to_uppercase().parse().unwrap();
            let fill = |path: &str| {
                path.replace("{app_id}", "default")
                    .replace("{session_id}", "018f0000-0000-7000-8000-000000000000")
            };
            let long = server.call(method.clone(), fill(path)).await;
            let answer = server.call(method.clone(), fill(short)).await;
            assert!(!matches!(answer.status, 404 | 405), "{method} {short}: {}", answer.text);
            assert_eq!(answer.status, long.status, "{method} {short}: {}", answer.text);
            seen += 1;
        }
    }
    assert!(seen >= 12, "{seen}");
    let body = json!({"email": email("ada"), "password": PASSWORD});
    server.post("/auth/signup").json(&body).await.expect(201);
    server.default_app().post("auth/signup").json(&body).await.problem(409, "email_taken");
}

#[tokio::test]
async fn another_apps_tokens_do_not_open_it() {
    let server = Server::start().await;
    let other = server.create_app(json!({})).await;
    let tokens = other.register(&email("ada")).await;
    server.get("/auth/me").bearer(&tokens.access).await.problem(401, "unauthenticated");
}
