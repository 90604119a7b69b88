//! `rebuild`: read models are filled anew, and compared with the events.

use std::fs;

use serde_json::{Value, json};
use tests::{PASSWORD, Server, email, until};

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
    let (done, told) = run(&server, &["--all", "--verify"]);
    assert!(!done && told.as_str().is_some_and(|told| told.contains("stop the server first")), "{told}");
    server.terminate().await;
    let (done, rebuilt) = run(&server, &["--all", "--throttle", "1000"]);
    assert!(done, "{rebuilt}");
    let rebuilt = rebuilt["rebuilt"].as_array().expect("a list").clone();
    let head = rebuilt[0]["position"].as_u64().expect("a position");
    assert!(rebuilt.len() == 8 && rebuilt.iter().all(|it| it["position"] == head), "{rebuilt:?}");
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
    sqlx::query("UPDATE users_v2 SET banned = 1").execute(&mut connection).await.expect("writes");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_rebuilds_on_request_and_goes_on_after_its_end() {
    let mut server = server().await;
    for _ in 0..20 {
        server.default_app().register(&email("grace")).await;
    }
    let key = server.platform_key();
    let ask = |server: &Server, name: &str, body: Value| {
        server.post(format!("/v1/projections/{name}/rebuild")).bearer(&key).json(&body)
    };
    let standing = async |server: &Server, name: &str| -> Value {
        let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
        let items = list["items"].as_array().expect("a list").clone();
        items.into_iter().find(|it| it["name"] == name).expect("it is listed")
    };
    let nothing = ask(&server, "nothing", json!({})).await.expect(404).json();
    assert_eq!(nothing["code"], "not_found");
    let fast = ask(&server, "users", json!({ "throttle": 0 })).await.expect(422).json();
    assert_eq!(fast["errors"][0]["pointer"], "/throttle", "{fast}");
    // One that takes as long as this test, and one beside it.
    let begun = ask(&server, "users", json!({ "throttle": 1 })).await.expect(202);
    assert_eq!(begun.header("location"), Some("/v1/projections"));
    let begun = begun.json();
    assert_eq!(
        (&begun["state"], &begun["rebuild"]["state"]),
        (&json!("rebuilding"), &json!("rebuilding")),
        "{begun}"
    );
    let again = ask(&server, "users", json!({})).await.expect(409).json();
    assert_eq!(again["code"], "rebuild_running");
    server.post("/v1/projections/stats/rebuild").bearer(&key).await.expect(202);
    until("the other is done", async || standing(&server, "stats").await.get("rebuild").is_none()).await;
    until("it gets on", async || {
        let it = standing(&server, "users").await;
        it["rebuild"]["position"].as_u64() >= Some(2) && it["rebuild"]["seconds_left"].as_u64() >= Some(1)
    })
    .await;
    let metrics = server.metrics().await;
    for line in
        [r#"watchword_rebuild_running{model="users"} 1"#, r#"watchword_rebuild_running{model="stats"} 0"#]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(metrics.contains(r#"watchword_rebuild_position{model="users"}"#), "{metrics}");
    // Whether it is told to end or killed, what was done is kept.
    for round in 0..2 {
        if round == 0 {
            assert!(server.terminate().await.success());
        } else {
            server.kill();
        }
        server.up().await;
        let it = standing(&server, "users").await;
        assert_eq!(
            (&it["state"], &it["rebuild"]["state"]),
            (&json!("running"), &json!("interrupted")),
            "{it}"
        );
        let done = it["rebuild"]["position"].as_u64().expect("a position");
        assert!(done >= 2, "{it}");
        ask(&server, "users", json!({ "throttle": 1 })).await.expect(202);
        until("it goes on", async || {
            standing(&server, "users").await["rebuild"]["position"].as_u64() > Some(done)
        })
        .await;
    }
    server.terminate().await;
    server.up().await;
    ask(&server, "users", Value::Null).await.expect(202);
    until("it is done", async || standing(&server, "users").await.get("rebuild").is_none()).await;
    assert!(server.data().join("read-models.users.1.db").exists());
    // What is written afterwards is there, too.
    let late = json!({ "email": email("late"), "password": PASSWORD });
    let late = server.default_app().post("auth/register").json(&late).await.expect(201);
    let list = server.default_app().get("admin/users?limit=1").bearer(&key);
    let list = list.header("consistency-token", late.consistency()).await.expect(200).json();
    assert_eq!(list["items"][0]["id"], late.json()["user"]["id"], "{list}");
    server.terminate().await;
    let (fine, compared) = run(&server, &["--all", "--verify"]);
    assert!(fine, "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_asks_the_server_that_has_the_files() {
    let mut server = server().await;
    let (done, rebuilt) = run(&server, &["--all"]);
    assert!(done, "{rebuilt}");
    let names: Vec<_> =
        rebuilt["rebuilt"].as_array().expect("a list").iter().map(|it| it["name"].clone()).collect();
    let all = [
        "login_checks",
        "users",
        "sessions",
        "organizations",
        "members",
        "stats",
        "audit_log",
        "merkle_tree",
    ];
    assert_eq!(names, all);
    assert!(server.data().join("read-models.users.1.db").exists());
    // Another server at its address gets no key.
    let record = server.data().join("serving.json");
    let other = fs::read_to_string(&record).expect("is there").replace("\"instance\":\"", "\"instance\":\"x");
    fs::write(&record, other).expect("writes");
    let (done, told) = run(&server, &["users"]);
    let told = told.as_str().unwrap_or_default().to_owned();
    assert!(
        !done
            && told.contains("is not the server of this data folder")
            && told.contains("POST /v1/projections"),
        "{told}"
    );
    server.terminate().await;
    let (fine, compared) = run(&server, &["--all", "--verify"]);
    assert!(fine, "{compared}");
}
