//! Read models are rebuilt while nodes serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use test_services::Postgres;
use tests::{PASSWORD, Server, email};
use tokio::task::spawn_blocking;

use super::node_with;

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
    let cheap = [("WATCHWORD_ARGON2", "m=1024,t=1,p=1"), ("WATCHWORD_RATE_LIMITS", "off")];
    let (one, two) = tokio::join!(node_with(&database, &cheap), node_with(&database, &cheap));
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
    let (people, ()) = tokio::join!(write_and_read(&one, &two, &stop), rebuilds);
    assert!(people > 10, "{people}");
    let compared = run(&one, &["--verify"]).await.expect("ends");
    assert_eq!(compared["ok"], true, "{compared}");
    assert_eq!(compared["compared"].as_array().map(Vec::len), Some(6), "{compared}");
}
