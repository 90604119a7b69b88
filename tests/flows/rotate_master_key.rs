//! The master key is replaced and everything else stays: tokens, keys and passwords still work.

use std::fs;
use std::process::Output;
use std::time::Duration;

use serde_json::json;
use tests::{PASSWORD, Server, Tokens, email};

const CONFIGURED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    server.command(arguments).output().expect("the binary runs")
}

fn succeeded(server: &Server, arguments: &[&str]) -> String {
    let output = run(server, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

fn master_key(server: &Server) -> String {
    fs::read_to_string(server.data().join("master.key")).expect("it is there")
}

/// What users and programs had before.
struct Before {
    address: String,
    tokens: Tokens,
    key: String,
}

impl Before {
    async fn of(server: &Server) -> Self {
        let app = server.default_app();
        let address = email("ada");
        let tokens = app.register(&address).await;
        app.patch("auth/me").bearer(&tokens.access).json(&json!({"name": "Ada"})).await.expect(200);
        let body = json!({"name": "reports", "permissions": ["users:read"]});
        let key =
            app.post("admin/api-keys").bearer(&server.platform_key()).json(&body).await.expect(201).json();
        Self { address, tokens, key: key["key"].as_str().expect("a key").to_owned() }
    }

    /// Checks that all of it works, which spends the refresh token.
    async fn holds(&mut self, server: &Server) {
        let app = server.default_app();
        let me = app.me(&self.tokens.access).await.expect(200).json();
        assert_eq!((&me["name"], &me["email"]), (&json!("Ada"), &json!(self.address)));
        let user = format!("admin/users/{}", self.tokens.user_id);
        for key in [&self.key, &server.platform_key()] {
            assert_eq!(app.get(&user).bearer(key).await.expect(200).json()["name"], "Ada");
        }
        self.tokens = app.refresh(&self.tokens.refresh).await.expect(200).tokens();
        app.login(&self.address, PASSWORD).await.expect(200);
        app.post("auth/register")
            .json(&json!({"email": self.address, "password": PASSWORD}))
            .await
            .problem(409, "email_taken");
        assert_eq!(run(server, &["doctor"]).status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_key_in_the_data_folder_is_replaced() {
    let mut server = Server::start().await;
    let mut before = Before::of(&server).await;
    let first = master_key(&server);
    let refused = run(&server, &["rotate-master-key"]);
    assert!(refused.status.code() == Some(1) && text(&refused).contains("in use"), "{}", text(&refused));
    assert_eq!(master_key(&server), first);
    server.terminate().await;

    let said = succeeded(&server, &["rotate-master-key"]);
    let second = master_key(&server);
    assert!(second != first && !said.contains(second.trim()) && !said.contains(first.trim()), "{said}");
    assert!(!server.data().join("master.key.new").exists());
    let old = server.command(&["serve"]).env("WATCHWORD_MASTER_KEY", first.trim()).output().expect("runs");
    assert!(old.status.code() == Some(1) && text(&old).contains("another master key"), "{}", text(&old));
    server.up().await;
    before.holds(&server).await;
    server.terminate().await;
    succeeded(&server, &["rotate-master-key", "--json"]);
    assert_ne!(master_key(&server), second);
    server.up().await;
    before.holds(&server).await;
}

/// The next start recognizes what each moment of a rotation leaves.
#[tokio::test]
async fn an_interrupted_rotation_leaves_a_key_that_opens() {
    let mut server = Server::start().await;
    let mut before = Before::of(&server).await;
    let (present, next) = (server.data().join("master.key"), server.data().join("master.key.new"));
    let write = |path: &std::path::Path, key: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(path, key).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
    };
    // The new key's file was begun or complete, but the key store does not know it.
    for left in ["", "AAEC", CONFIGURED] {
        server.terminate().await;
        write(&next, left);
        assert!(succeeded(&server, &["doctor"]).contains("opens with the master key"));
        server.up().await;
        before.holds(&server).await;
    }
    // The key store opens with the new key, but that is not yet in its place.
    server.terminate().await;
    let first = master_key(&server);
    succeeded(&server, &["rotate-master-key"]);
    let second = master_key(&server);
    write(&next, &second);
    write(&present, &first);
    assert!(succeeded(&server, &["doctor"]).contains("its rotation was interrupted"));
    server.up().await;
    before.holds(&server).await;
    assert!(master_key(&server) == second && !next.exists());
    // The same, but the command is run again instead.
    server.terminate().await;
    write(&next, &second);
    write(&present, &first);
    succeeded(&server, &["rotate-master-key"]);
    assert!(master_key(&server) == second && !next.exists());
    server.up().await;
    before.holds(&server).await;
}

#[tokio::test]
async fn a_rotation_is_killed_at_any_moment() {
    let mut server = Server::start().await;
    let mut before = Before::of(&server).await;
    server.terminate().await;
    let begun = std::time::Instant::now();
    succeeded(&server, &["rotate-master-key"]);
    let whole = begun.elapsed();
    for round in 0..12 {
        let mut child = server.command(&["rotate-master-key"]).spawn().expect("the binary runs");
        tokio::time::sleep(whole * round / 12).await;
        let _ = child.kill();
        child.wait().expect("it ends");
        // It opens the stores, and can open every event's sealed part.
        assert!(succeeded(&server, &["doctor"]).contains("opens with the master key"), "round {round}");
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    server.up().await;
    before.holds(&server).await;
}

#[tokio::test]
async fn a_configured_key_is_replaced_by_the_one_in_a_file() {
    let mut server = Server::start_with(&[("WATCHWORD_MASTER_KEY", CONFIGURED)]).await;
    let mut before = Before::of(&server).await;
    server.terminate().await;
    let file = server.data().with_file_name("next.key");
    let path = file.to_str().expect("UTF-8");
    let which = run(&server, &["rotate-master-key"]);
    assert!(text(&which).contains("--new-key-file"), "{}", text(&which));
    // It may be repeated: the first answer may have been lost.
    for _ in 0..2 {
        let said = succeeded(&server, &["rotate-master-key", "--new-key-file", path]);
        assert!(said.contains(path) && said.contains("WATCHWORD_MASTER_KEY"), "{said}");
    }
    let old = run(&server, &["serve"]);
    assert!(old.status.code() == Some(1) && text(&old).contains("another master key"), "{}", text(&old));
    let key = fs::read_to_string(&file).expect("it is there");
    server.set_environment("WATCHWORD_MASTER_KEY", key.trim());
    server.up().await;
    before.holds(&server).await;
    server.terminate().await;

    // A key file that others can read is refused, and so is the current key.
    let same = run(&server, &["rotate-master-key", "--new-key-file", path]);
    assert!(same.status.code() == Some(1) && text(&same).contains("current master key"), "{}", text(&same));
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(&file, CONFIGURED).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
    }
    let open = run(&server, &["rotate-master-key", "--new-key-file", path]);
    assert!(open.status.code() == Some(1) && text(&open).contains("chmod 600"), "{}", text(&open));
}
