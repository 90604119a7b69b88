//! n: no raw secret and no unsealed personal data in any stored byte.

use std::fs;

use serde_json::json;
use tests::{Server, jwt_header_of};

#[tokio::test]
async fn inv_n_no_secret_and_no_personal_data_in_any_stored_byte() {
    let mut server = Server::start().await;
    let address = "xenia.quixote@privacy-example.org";
    let (password, wrong) = ("Zanzibar-ferry-4711", "Zanzibar-guess-0815");
    let agent = "Quixotic-Browser/77.3";
    let (name, phone, avatar) =
        ("Xenia Quixote", "+49 555 123 4567", "https://privacy-example.org/xenia.png");
    let mut secrets: Vec<String> =
        [address, "privacy-example.org", "quixote", password, wrong, agent, name, phone, avatar]
            .map(str::to_owned)
            .to_vec();
    {
        let app = server.create_app(json!({})).await;
        let body = json!({"email": address, "password": password, "name": name, "phone": phone, "avatar_url": avatar});
        let tokens =
            app.post("auth/register").header("user-agent", agent).json(&body).await.expect(201).tokens();
        app.login(address, wrong).await.problem(401, "invalid_credentials");
        app.login("quixote.unknown@privacy-example.org", wrong).await.problem(401, "invalid_credentials");
        let login = app.login(address, password).header("user-agent", agent).await.expect(200).tokens();
        let refreshed = app.refresh(&tokens.refresh).await.expect(200).tokens();
        let (_, key) = app.api_key(&["users:read"]).await;
        let last = app
            .patch("auth/me")
            .bearer(&login.access)
            .json(&json!({"name": "Xenia Quixote II"}))
            .await
            .expect(200);
        app.get("admin/users?query=quixote")
            .bearer(&key)
            .header("consistency-token", last.consistency())
            .await
            .expect(200);
        app.get("audit/events").bearer(&server.platform_key()).await.expect(200);
        app.post("auth/register")
            .body("application/json", format!("{{\"email\": \"{address}\""))
            .await
            .problem(400, "malformed_request");
        app.post("auth/introspect").bearer(&key).form(&[("token", &refreshed.access)]).await.expect_refusal();
        app.post("auth/revoke").form(&[("token", &refreshed.refresh)]).await.expect(200);
        let kid = jwt_header_of(&login.access)["kid"].as_str().unwrap().to_owned();
        assert!(!kid.is_empty());
        for tokens in [&tokens, &login, &refreshed] {
            secrets.push(tokens.refresh.clone());
            secrets.push(tokens.access.clone());
            secrets.push(tokens.access.rsplit('.').next().unwrap().to_owned());
        }
        secrets.push(key);
        secrets.push("$argon2id$".to_owned());
        secrets.push("-----BEGIN".to_owned());
        for event in server.events().await {
            for secret in &secrets {
                assert!(
                    !event.to_string().to_lowercase().contains(&secret.to_lowercase()),
                    "{secret} in {event}"
                );
            }
        }
    }
    let platform_key = server.platform_key();
    // While it runs, the write-ahead logs hold what the databases do not yet.
    let running = server.stored_bytes();
    server.terminate().await;
    for (path, bytes) in running.into_iter().chain(server.stored_bytes()) {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        for secret in &secrets {
            assert!(!text.contains(&secret.to_lowercase()), "{secret} in {}", path.display());
        }
        if path.file_name().is_some_and(|it| it != "admin.key") {
            assert!(!text.contains(&platform_key.to_lowercase()), "the platform key in {}", path.display());
        }
    }
    for name in ["admin.key", "master.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(server.data().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
