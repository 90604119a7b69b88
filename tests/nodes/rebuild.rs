//! Read models are rebuilt while nodes serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use test_services::Postgres;
use tests::{PASSWORD, Server, email};
use tokio::task::spawn_blocking;

use super::node_with;

const CHEAP: [(&str, &str); 2] = [("WATCHWORD_ARGON2", "m=1024,t=1,p=1"), ("WATCHWORD_RATE_LIMITS", "off")];
/// How many write and read at the same time: together as much as these nodes bear.
const WORKERS: usize = 12;

fn run(server: &Server, arguments: &[&str]) -> tokio::task::JoinHandle<Value> {
    let mut command = server.command(&[&["rebuild", "--json", "--all"], arguments].concat());
    spawn_blocking(move || {
        let output = command.output().expect("runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told} {}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).expect("JSON")
    })
}

/// Registers people and reads each of them at once, until it is told to stop. Returns how many.
async fn write_and_read(writes: &Server, reads: &Server, stop: &AtomicBool) -> u64 {
    let (here, there) = (writes.default_app(), reads.default_app());
    let (key, mut people) = (writes.platform_key(), 0);
    while !stop.load(Ordering::Relaxed) {
        let made = here.post("auth/register").json(&json!({"email": email("ada"), "password": PASSWORD}));
        let made = made.await.expect(201);
        let id = made.json()["user"]["id"].as_str().expect("an id").to_owned();
        for path in ["admin/users?limit=1", "admin/stats", "audit/events?limit=1"] {
            let read = there.get(path).bearer(&key).header("consistency-token", made.consistency()).await;
            let read = read.expect(200).json();
            if path.starts_with("admin/users") {
                let newest = there.get(&format!("admin/users/{id}")).bearer(&key);
                newest.await.expect(200);
                assert!(read["total"].as_u64() > Some(people), "{read}");
            }
        }
        people += 1;
    }
    people
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_fails_or_is_stale_while_read_models_are_rebuilt_and_rebuilds_are_killed() {
    let database = Postgres::shared().database();
    let (one, two) = tokio::join!(node_with(&database, &CHEAP), node_with(&database, &CHEAP));
    let stop = Arc::new(AtomicBool::new(false));
    let rebuilds = async {
        for _ in 0..3 {
            run(&one, &[]).await.expect("ends");
        }
        for round in 0..10 {
            let mut child = one.command(&["rebuild", "--all"]).spawn().expect("starts");
            tokio::time::sleep(Duration::from_millis(40 * round)).await;
            let _ = child.kill();
            let _ = child.wait();
        }
        // The lease of the one that was killed has to end.
        tests::until("the last rebuild is done", async || {
            let again = one.command(&["rebuild", "--all"]).output().expect("runs");
            again.status.success()
        })
        .await;
        stop.store(true, Ordering::Relaxed);
    };
    let workers = join_all((0..WORKERS).map(|_| write_and_read(&one, &two, &stop)));
    let (people, ()) = tokio::join!(workers, rebuilds);
    assert!(people.iter().all(|people| *people > 10), "{people:?}");
    let compared = run(&one, &["--verify"]).await.expect("ends");
    assert_eq!(compared["ok"], true, "{compared}");
    assert_eq!(compared["compared"].as_array().map(Vec::len), Some(8), "{compared}");
}

async fn users(server: &Server) -> Value {
    let list = server.get("/v1/projections").bearer(&server.platform_key()).await.expect(200).json();
    let items = list["items"].as_array().expect("a list");
    items.iter().find(|it| it["name"] == "users").expect("it is listed").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_seen_on_every_node_and_goes_on_elsewhere() {
    let database = Postgres::shared().database();
    let (mut one, mut two) = tokio::join!(node_with(&database, &CHEAP), node_with(&database, &CHEAP));
    for _ in 0..20 {
        one.default_app().register(&email("ada")).await;
    }
    let key = one.platform_key();
    let ask =
        |server: &Server, body: Value| server.post("/v1/projections/users/rebuild").bearer(&key).json(&body);
    let slow = json!({ "throttle": 1 });
    ask(&one, slow.clone()).await.expect(202);
    tests::until("the other node sees it get on", async || {
        let rebuild = &users(&two).await["rebuild"];
        rebuild["state"] == "rebuilding" && rebuild["position"].as_u64() >= Some(2)
    })
    .await;
    assert_eq!(ask(&two, json!({})).await.expect(409).json()["code"], "rebuild_running");
    let made =
        two.default_app().post("auth/register").json(&json!({"email": email("ada"), "password": PASSWORD}));
    let made = made.await.expect(201);
    let read = two.default_app().get("admin/users?limit=1").bearer(&key);
    read.header("consistency-token", made.consistency()).await.expect(200);
    // Its lease has to end.
    one.kill();
    tests::until("the other node sees that it was interrupted", async || {
        users(&two).await["rebuild"]["state"] == "interrupted"
    })
    .await;
    let done = users(&two).await["rebuild"]["position"].as_u64().expect("a position");
    ask(&two, slow).await.expect(202);
    tests::until("it goes on", async || users(&two).await["rebuild"]["position"].as_u64() > Some(done)).await;
    // A node that is told to end releases it.
    assert!(two.terminate().await.success());
    two.up().await;
    let left = users(&two).await;
    assert!(
        left["rebuild"]["state"] == "interrupted" && left["rebuild"]["position"].as_u64() > Some(done),
        "{left}"
    );
    ask(&two, Value::Null).await.expect(202);
    tests::until("it is done", async || users(&two).await.get("rebuild").is_none()).await;
    let compared = run(&two, &["--verify"]).await.expect("ends");
    assert_eq!(compared["ok"], true, "{compared}");
}
