//! Stores and bus that start later than the nodes: a node waits, answers and says what it waits for. Errors that
//! waiting cannot fix end it at once, with a plain sentence.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use test_services::{Nats, Postgres};
use tests::{PASSWORD, PATIENCE, Server, email, free_port};

use crate::MASTER_KEY;

fn environment<'e>(database: &'e str, more: &[(&'e str, &'e str)]) -> Vec<(&'e str, &'e str)> {
    let shared = [
        ("WATCHWORD_JOURNAL_URL", database),
        ("WATCHWORD_MASTER_KEY", MASTER_KEY),
        ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
    ];
    [&shared[..], more].concat()
}

/// Waits until a probe has this status.
async fn until(server: &Server, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = server.get("/readyz").await;
        if answer.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "{}\n{}", answer.text, server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_every_role_wait_for_a_database_and_a_bus_that_come_late() {
    let (mut postgres, mut nats) = (Postgres::start(), Nats::start());
    let (database, nats_url) = (postgres.database(), nats.url());
    postgres.stop();
    nats.stop();
    let internal = format!("127.0.0.1:{}", free_port());
    let with_bus = environment(&database, &[("WATCHWORD_NATS_URL", &nats_url)]);
    let with_probe = [&with_bus[..], &[("WATCHWORD_INTERNAL_LISTEN", internal.as_str())]].concat();
    let mut nodes = [
        Server::new_role("commands", &with_probe),
        Server::new_role("projections", &with_bus),
        Server::new(&environment(&database, &[])),
    ];
    for node in &mut nodes {
        node.up_alive().await;
        let answer = node.get("/readyz").await;
        let problem = answer.problem(503, "not_ready");
        let checks = problem["checks"].as_object().expect("an object");
        let (store, check) = checks.iter().next().expect("a store");
        assert!(["journal", "key_store", "read_models"].contains(&store.as_str()), "{problem}");
        assert_eq!((&check["ok"], &check["state"]), (&json!(false), &json!("waiting")), "{problem}");
        // The address of the database is not revealed.
        assert!(!answer.text.contains("127.0.0.1") && !answer.text.contains("postgres"), "{}", answer.text);
        assert!(answer.header("retry-after").is_some());
        let call = node
            .post("/v1/apps/default/auth/login")
            .json(&json!({"email": email("ada"), "password": PASSWORD}));
        let answer = call.header("x-request-id", "request-7").await;
        assert_eq!(answer.problem(503, "unavailable")["request_id"], "request-7");
        assert_eq!(
            (answer.header("x-request-id"), answer.header("retry-after")),
            (Some("request-7"), Some("1"))
        );
        node.get("/v1/apps").await.problem(503, "unavailable");
        node.get("/metrics").await.problem(503, "unavailable");
    }
    // Monitoring gets all details.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = reqwest::get(format!("http://{internal}/readyz")).await.expect("answers");
        assert_eq!(ready.status(), 503);
        let text = ready.text().await.expect("text");
        if text.contains(&format!("postgres://127.0.0.1:{}", postgres.port())) {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let metrics = reqwest::get(format!("http://{internal}/metrics")).await.expect("answers");
    assert!(metrics.status().is_success());

    tokio::time::sleep(Duration::from_secs(5)).await;
    for node in &nodes {
        let log = node.log();
        assert!(log.contains("waiting: ") && log.contains("cannot be reached"), "{log}");
        assert!(!log.contains("listens on") && !log.contains("only-on-loopback"), "{log}");
        // The same reason is logged once, not with every attempt.
        assert!(log.matches("waiting: ").count() <= 3, "{log}");
    }
    postgres.up();
    for node in &nodes {
        until(node, 200).await;
    }
    let [commands, projections, whole] = &nodes;
    commands.says("the stores are available").await;
    let tokens = commands.default_app().register(&email("ada")).await;
    whole.default_app().me(&tokens.access).await.expect(200);
    nats.up();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = commands.readiness().await.expect(200).json();
        if ready["checks"]["relay"]["ok"] == true && ready["checks"]["relay"]["lag"] == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{ready}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let key = whole.platform_key();
    projections.get("/v1/apps/default/admin/users").bearer(&key).await.expect(200);

    // The usual behaviour applies if it goes away later.
    postgres.stop();
    until(commands, 503).await;
    postgres.up();
    for node in &mut nodes {
        until(node, 200).await;
        assert!(node.terminate().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_node_stops_at_once_on_request() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("postgres://a:b@{}/x?sslmode=disable", silent.local_addr().expect("an address"));
    for database in ["postgres://a:b@127.0.0.1:9/x", "postgres://a:b@no-such-host.invalid/x", &silent] {
        for role in [None, Some("commands"), Some("projections")] {
            let all = environment(database, &[]);
            let mut node = role.map_or_else(|| Server::new(&all), |role| Server::new_role(role, &all));
            node.up_alive().await;
            let begun = Instant::now();
            assert!(node.terminate().await.success(), "{}", node.log());
            assert!(begun.elapsed() < Duration::from_secs(5));
            assert!(node.log().contains("stopping"), "{}", node.log());
        }
    }
}

/// Only the read models are on a server, and the journal is a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_also_waits_for_late_read_models() {
    let mut postgres = Postgres::start();
    let database = postgres.database();
    postgres.stop();
    let mut node = Server::new(&[("WATCHWORD_READ_MODELS_URL", &database)]);
    node.up_alive().await;
    let problem = node.get("/readyz").await.problem(503, "not_ready").clone();
    assert_eq!(problem["status"], 503);
    let deadline = Instant::now() + PATIENCE;
    while !node.log().contains("\"store\":\"read_models\"") {
        assert!(Instant::now() < deadline, "{}", node.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    postgres.up();
    until(&node, 200).await;
    node.default_app().register(&email("ada")).await;
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_waiting_cannot_fix_end_it_at_once_with_a_plain_sentence() {
    let postgres = Postgres::start();
    let database = postgres.database();
    let (before, rest) = database.split_once('@').expect("a user");
    let (base, _) = database.rsplit_once('/').expect("a name");
    let wrong_password = format!("{before}x@{rest}");
    let no_database = format!("{base}/no_such_database");
    let without_tls = format!("{database}?sslmode=require");
    let other_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let mut node = Server::new(&environment(&database, &[]));
    node.up().await;
    node.terminate().await;
    let newer = postgres.database();
    postgres.psql(
        &newer,
        "CREATE SCHEMA watchword; CREATE TABLE watchword.format AS SELECT 'Watchword journal' AS what, 99 AS version",
    );
    for role in [None, Some("commands"), Some("projections")] {
        for (url, key, said) in [
            (wrong_password.as_str(), MASTER_KEY, "password authentication failed"),
            (&no_database, MASTER_KEY, "does not exist"),
            (&without_tls, MASTER_KEY, "TLS"),
            (&database, other_key, "another master key"),
            (&newer, MASTER_KEY, "start a newer one"),
        ] {
            let environment =
                environment(url, &[("WATCHWORD_MASTER_KEY", key), ("WATCHWORD_LOG_FORMAT", "text")]);
            let node = Server::new(&environment);
            let arguments: Vec<&str> = ["serve"].into_iter().chain(role).collect();
            let begun = Instant::now();
            let mut child = node
                .command(&arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("starts");
            let status = loop {
                if let Some(status) = child.try_wait().expect("it can be waited for") {
                    break status;
                }
                assert!(begun.elapsed() < PATIENCE, "{url} with {key} is waited for");
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let output = child.wait_with_output().expect("it has ended");
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(status.code(), Some(1), "{text}");
            let last = text.lines().last().expect("it says something");
            assert!(last.starts_with("watchword: ") && last.contains(said), "{text}");
            assert!(!text.contains("only-on-loopback") && !text.contains("waiting"), "{text}");
        }
    }
}

/// The URL of a user who may work as the service, and make nothing.
fn as_a_node(postgres: &Postgres, database: &str) -> String {
    postgres.psql(
        database,
        "CREATE ROLE node LOGIN PASSWORD 'x'; CREATE ROLE watchword_service NOLOGIN; GRANT watchword_service TO node",
    );
    let (_, rest) = database.split_once('@').expect("a user");
    format!("postgres://node:x@{rest}")
}

/// A node may start before the migration has run.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_tables_that_the_owner_creates_late() {
    let postgres = Postgres::start();
    let database = postgres.database();
    let as_node = as_a_node(&postgres, &database);
    let mut node = Server::new(&environment(&as_node, &[]));
    node.up_alive().await;
    let deadline = Instant::now() + PATIENCE;
    while !node.log().contains("Run `watchword migrate` as the owner") {
        assert!(Instant::now() < deadline, "{}", node.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let owner = Server::new(&environment(&database, &[]));
    let migrated = owner.command(&["migrate"]).output().expect("runs");
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    until(&node, 200).await;
    assert!(node.terminate().await.success());
}

/// The migration makes one store after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_read_models_that_the_owner_creates_late() {
    let postgres = Postgres::start();
    let database = postgres.database();
    let as_node = as_a_node(&postgres, &database);
    let mut node = Server::new(&[("WATCHWORD_READ_MODELS_URL", &as_node)]);
    node.up_alive().await;
    node.says("holds no read models, and its user may not make them").await;
    node.get("/readyz").await.problem(503, "not_ready");
    let owner = Server::new(&[("WATCHWORD_READ_MODELS_URL", &database)]);
    let migrated = owner.command(&["migrate"]).output().expect("runs");
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    until(&node, 200).await;
    assert!(node.terminate().await.success());
}

/// On Kubernetes the data folder belongs to a pod, and disappears with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_an_empty_folder_has_its_platform_key_from_a_secret_or_makes_another() {
    const BROUGHT: &str = "an-operators-own-secret-of-44-characters-xyz=";
    let postgres = Postgres::start();
    let database = postgres.database();
    let secret = [("WATCHWORD_ADMIN_KEY", BROUGHT)];
    // The migration runs first, in its own pod, and says where the key is.
    let job = Server::new(&environment(&database, &secret));
    let migrated = job.command(&["migrate"]).output().expect("runs");
    let text =
        String::from_utf8_lossy(&migrated.stdout).into_owned() + &String::from_utf8_lossy(&migrated.stderr);
    assert!(
        migrated.status.success() && text.contains("platform key the one of the configuration"),
        "{text}"
    );
    let first = Server::start_role("commands", &environment(&database, &secret)).await;
    first.get("/v1/apps").bearer(BROUGHT).await.expect(200);
    drop(first);
    // Another pod, with another folder; and a projection pod, which cannot create keys.
    let second = Server::start_role("commands", &environment(&database, &secret)).await;
    let reader = Server::start_role("projections", &environment(&database, &secret)).await;
    assert!(!second.data().join("admin.key").exists());
    second.get("/v1/apps").bearer(BROUGHT).await.expect(200);
    reader.get("/v1/projections").bearer(BROUGHT).await.expect(200);
    let told = second.command(&["doctor"]).env("TMPDIR", "/nonexistent").output().expect("runs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("ready at") && told.contains("No faults"), "{told}");
    // A pod without the secret can create a new key while the nodes run.
    let pod = Server::new(&environment(&database, &[]));
    let made = pod.command(&["api-key", "create", "platform", "--name", "ops"]).output().expect("runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    second.get("/v1/apps").bearer(&key).await.expect(200);
    let listed = pod.command(&["api-key", "list", "platform", "--json"]).output().expect("runs");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["items"].as_array().expect("a list").len(), 2, "{listed}");
    // Nothing reveals the secret.
    assert!(!second.log().contains(BROUGHT) && !text.contains(BROUGHT));
    assert!(!postgres.psql(&database, "SELECT metadata || data FROM watchword.events").contains(BROUGHT));
    assert!(!postgres.log().contains(BROUGHT));
}
