//! Two nodes on one PostgreSQL journal: what one has acknowledged, the other knows.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use test_services::Postgres;
use tests::{PASSWORD, Server, assert_gapless, email, of_type};

mod doctor;
mod erase;
mod histories;
mod import_history;
mod late;
mod mailed_tokens;
mod rebuild;
mod roles;
mod signing_keys;
mod unavailable;
mod witnesses;

const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

async fn node(database: &str) -> Server {
    node_with(database, &[]).await
}

async fn node_with(database: &str, settings: &[(&str, &str)]) -> Server {
    let shared = [
        ("WATCHWORD_JOURNAL_URL", database),
        ("WATCHWORD_MASTER_KEY", MASTER_KEY),
        // All nodes are behind one address, the issuer of their tokens.
        ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
    ];
    Server::start_with(&[&shared[..], settings].concat()).await
}

/// Two nodes that start at the same moment on an empty database.
async fn nodes() -> (Server, Server) {
    let database = Postgres::shared().database();
    tokio::join!(node(&database), node(&database))
}

#[tokio::test]
async fn inv_d_what_one_node_acknowledged_the_other_knows() {
    let (one, two) = nodes().await;
    assert_eq!(one.platform_key(), two.platform_key(), "they made one first key");
    let (here, there) = (one.default_app(), two.default_app());
    let address = email("ada");
    let tokens = here.register(&address).await;
    there.me(&tokens.access).await.expect(200);
    let admin = |action: &str| format!("admin/users/{}/{action}", tokens.user_id);

    here.ban(&tokens.user_id).await.expect_success();
    there.me(&tokens.access).await.problem(401, "unauthenticated");
    assert!(matches!(there.refresh(&tokens.refresh).await.status, 401 | 403));
    there.login(&address, PASSWORD).await.problem(403, "user_banned");
    there.post(&admin("unban")).bearer(&two.platform_key()).await.expect_success();
    let again = here.login(&address, PASSWORD).await.expect(200).tokens();
    there.me(&again.access).await.expect(200);

    // Back and forth: each node has an outdated state cached.
    let mut refresh = again.refresh;
    for round in 0..6 {
        let app = if round % 2 == 0 { &there } else { &here };
        let next = app.refresh(&refresh).await.expect(200).tokens();
        assert_ne!(next.refresh, refresh);
        refresh = next.refresh;
    }
    here.post("auth/logout").bearer(&again.access).await.expect_success();
    there.me(&again.access).await.problem(401, "unauthenticated");
    there.refresh(&refresh).await.problem(401, "session_revoked");
    assert_gapless(&two.events().await);
    for server in [&one, &two] {
        assert!(!server.log().contains("only-on-loopback"), "the database's password is in the log");
    }
}

#[tokio::test]
async fn inv_f_h_nodes_that_race_make_one_account_and_one_chain() {
    let (one, two) = nodes().await;
    let (here, there) = (one.default_app(), two.default_app());
    let addresses: Vec<String> = (0..10).map(|number| email(&format!("racer{number}"))).collect();
    let register = async |address: &String| {
        let body = json!({"email": address, "password": PASSWORD});
        let racing = [&here, &there, &here, &there].map(|app| {
            let call = app.post("auth/register").json(&body);
            async move { call.await }
        });
        let answers = join_all(racing).await;
        let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
        assert_eq!(made.len(), 1, "{address}");
        for refused in answers.iter().filter(|answer| answer.status != 201) {
            refused.problem(409, "email_taken");
        }
        made[0].tokens()
    };
    let registered = join_all(addresses.iter().map(register)).await;
    for tokens in &registered {
        let racing = [&here, &there, &here, &there].map(|app| app.refresh(&tokens.refresh));
        let answers = join_all(racing.map(|call| async move { call.await })).await;
        let successors: Vec<String> =
            answers.into_iter().map(|answer| answer.expect(200).tokens().refresh).collect();
        assert!(successors.iter().all(|next| *next == successors[0]), "one live leaf");
    }
    let events = one.events().await;
    assert_gapless(&events);
    assert_eq!(of_type(&events, "UserRegistered").len(), 10);
    assert_eq!(of_type(&events, "SessionRefreshed").len(), 10);
}

/// A killed node loses nothing, and the other one keeps working.
#[tokio::test]
async fn a_node_is_killed_and_restarted() {
    let (mut one, two) = nodes().await;
    let address = email("ada");
    let tokens = one.default_app().register(&address).await;
    one.kill();
    let there = two.default_app();
    there.me(&tokens.access).await.expect(200);
    there.patch("auth/me").bearer(&tokens.access).json(&json!({"name": "Ada"})).await.expect(200);
    one.up().await;
    let me = one.default_app().me(&tokens.access).await.expect(200).json();
    assert_eq!(me["name"], "Ada");
}

#[tokio::test]
async fn the_database_restarts_under_a_node() {
    let mut database = Postgres::start();
    let server = node(&database.database()).await;
    let app = server.default_app();
    let tokens = app.register(&email("ada")).await;
    database.crash();
    let asked = tokio::spawn({
        let call = app.me(&tokens.access);
        async move { call.await.status }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    database.up();
    // A late answer or a 503, but never a wrong answer.
    assert!(matches!(asked.await.expect("no panic"), 200 | 503));
    app.me(&tokens.access).await.expect(200);
    app.refresh(&tokens.refresh).await.expect(200);
}

/// A new master key while both nodes run: each uses it from its next start, without disruption.
#[tokio::test]
async fn the_master_key_is_replaced_under_running_nodes() {
    let (mut one, two) = nodes().await;
    let address = email("ada");
    let tokens = one.default_app().register(&address).await;
    let file = one.data().with_file_name("next.key");
    let path = file.to_str().expect("UTF-8").to_owned();
    let rotated = one.command(&["rotate-master-key", "--new-key-file", &path]).output().expect("runs");
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));

    // Keys are still created and unwrapped.
    two.default_app().register(&email("grace")).await;
    let tokens = two.default_app().refresh(&tokens.refresh).await.expect(200).tokens();
    two.get("/readyz").await.expect(200);
    one.terminate().await;
    let refused = one.command(&["serve"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another master key"));
    let key = std::fs::read_to_string(&file).expect("it is there");
    one.set_environment("WATCHWORD_MASTER_KEY", key.trim());
    one.up().await;

    // One node has the new key and the other the old one, and they understand each other.
    let tokens = one.default_app().refresh(&tokens.refresh).await.expect(200).tokens();
    two.default_app().me(&tokens.access).await.expect(200);
    one.default_app().login(&address, PASSWORD).await.expect(200);
    two.default_app().login(&address, PASSWORD).await.expect(200);
    let page = one.get("/v1/apps/default/admin/users?query=grace").bearer(&two.platform_key()).await;
    assert_eq!(page.expect(200).json()["total"], 1, "look-ups are keyed as before");
}

#[tokio::test]
async fn commands_say_what_they_did_in_the_database() {
    let database = Postgres::shared().database();
    let mut server = node(&database).await;
    server.default_app().register(&email("ada")).await;
    let run = |server: &Server, arguments: &[&str]| {
        let output = server.command(arguments).output().expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
    };
    let (done, text) = run(&server, &["doctor"]);
    assert!(done && text.contains("ready at"), "{text}");
    assert!(text.contains("opens with the master key") && !text.contains("only-on-loopback"), "{text}");
    let (done, text) = run(&server, &["migrate"]);
    assert!(done && text.contains("journal      up to date in format 6: postgres://127.0.0.1:"), "{text}");

    // Another master key is refused before anything changes.
    let wrong =
        server.command(&["migrate"]).env("WATCHWORD_MASTER_KEY", MASTER_KEY.replace("AAEC", "BAEC")).output();
    let wrong = wrong.expect("runs");
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("another master key"));

    // The keys are lost but the events are not: no new keys are created for them.
    Postgres::shared().psql(&database, "DROP SCHEMA watchword_keys CASCADE");
    server.terminate().await;
    let (done, text) = run(&server, &["migrate"]);
    assert!(!done && text.contains("no key store"), "{text}");
    assert_eq!(Postgres::shared().psql(&database, "SELECT to_regnamespace('watchword_keys') IS NULL"), "t\n");

    let empty = Postgres::shared().database();
    server.set_environment("WATCHWORD_JOURNAL_URL", &empty);
    let output = server.command(&["migrate"]).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("journal      created in format 6"), "{text}");
    assert!(text.contains("key store    created in format 4"), "{text}");
}
