//! Read models are rebuilt while the log grows.

use std::time::Duration;

use serde_json::{Value, json};
use tests::workload::History;
use tests::{Bus, Server, checker, email};

use crate::{Random, server_with};

#[tokio::test(flavor = "multi_thread")]
async fn read_models_are_built_anew_under_load() {
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(600).await).await;
    checker::forget_read_models(&mut server).await;
    server.up().await;
    history.during(&[&server], async |load| load.done(60).await).await;
    assert!(history.all_were_answered(), "logins do not depend on the read models");
    checker::check(&mut server, Some(&bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_killed_changes_nothing_and_goes_on() {
    let mut server = Server::start_with(&[("WATCHWORD_ARGON2", "m=1024,t=1,p=1")]).await;
    {
        let app = server.create_app(json!({})).await;
        for _ in 0..20 {
            app.register(&email("ada")).await;
        }
    }
    server.terminate().await;
    let run = |arguments: &[&str]| {
        let output = server.command(&[&["rebuild", "--json", "--all"], arguments].concat()).output();
        let output = output.expect("runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::String(told));
        (output.status.success(), answer)
    };
    let mut random = Random::new();
    for _ in 0..10 {
        let mut child = server.command(&["rebuild", "--all"]).spawn().expect("starts");
        random.moment(Duration::from_millis(400)).await;
        let _ = child.kill();
        child.wait().expect("ends");
        let (fine, compared) = run(&["--verify"]);
        assert!(fine, "{compared}");
    }
    assert!(run(&[]).0);
    let (fine, compared) = run(&["--verify"]);
    assert!(fine && compared["compared"].as_array().map(Vec::len) == Some(6), "{compared}");
}
