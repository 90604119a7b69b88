//! `rebuild`: read models are filled anew, and compared with the events.

use std::fs;

use serde_json::{Value, json};
use tests::{Server, email};

async fn server() -> Server {
    let server = Server::start_with(&[("WATCHWORD_ARGON2", "m=1024,t=1,p=1")]).await;
    let app = server.create_app(json!({})).await;
    for _ in 0..5 {
        app.register(&email("ada")).await;
    }
    server
}

fn run(server: &Server, arguments: &[&str]) -> (bool, Value) {
    let arguments = [&["rebuild", "--json"], arguments].concat();
    let output = server.command(&arguments).output().expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), serde_json::from_str(&text).unwrap_or(Value::String(told)))
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_are_rebuilt_and_compared_with_the_events() {
    let mut server = server().await;
    let (done, told) = run(&server, &["--all"]);
    assert!(!done && told.as_str().is_some_and(|told| told.contains("stop the server first")), "{told}");
    server.terminate().await;
    let (done, rebuilt) = run(&server, &["--all", "--throttle", "1000"]);
    assert!(done, "{rebuilt}");
    let rebuilt = rebuilt["rebuilt"].as_array().expect("a list").clone();
    let head = rebuilt[0]["position"].as_u64().expect("a position");
    assert!(rebuilt.len() == 6 && rebuilt.iter().all(|it| it["position"] == head), "{rebuilt:?}");
    let (done, again) = run(&server, &["users"]);
    assert!(done && again == json!({ "rebuilt": [{ "name": "users", "position": head }] }), "{again}");
    let (done, compared) = run(&server, &["--all", "--verify"]);
    assert!(done && compared["ok"] == true, "{compared}");
    let files: Vec<String> = fs::read_dir(server.data())
        .expect("a folder")
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("read-models.users."))
        .collect();
    assert_eq!(files, ["read-models.users.2.db"], "the former one is gone");
    // Somebody else writes to it.
    let path = server.data().join("read-models.users.2.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.expect("opens");
    sqlx::query("UPDATE users_v1 SET banned = 1").execute(&mut connection).await.expect("writes");
    sqlx::Connection::close(connection).await.expect("closes");
    let (fine, compared) = run(&server, &["--verify", "users"]);
    assert!(!fine && compared["ok"] == false, "{compared}");
    let first = compared["compared"][0]["differences"][0].as_str().expect("a difference").to_owned();
    assert!(first.contains("banned is 1, but the events up to"), "{first}");
    let (fine, compared) = run(&server, &["--verify", "sessions"]);
    assert!(fine, "{compared}");
    // A rebuild puts it right, and the server goes on with it.
    assert!(run(&server, &["users"]).0);
    assert!(run(&server, &["--verify", "users"]).0);
    server.up().await;
    let key = server.platform_key();
    let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
    assert!(list["items"].as_array().expect("a list").iter().all(|it| it["position"].as_u64() >= Some(head)));
    let (done, told) = run(&server, &["nothing"]);
    assert!(!done && told.as_str().is_some_and(|told| told.contains("possible values")), "{told}");
}
