//! The data directory of an older version, as its process left it when it was killed, with what there was to be seen:
//! this version opens it, and everything is still there.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tests::workload::History;
use tests::{Bus, PASSWORD, Server, checker, workspace};

use crate::SETTINGS;

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_of_november_2026() {
    let bus = Bus::start();
    let url = bus.url();
    let mut server = Server::new(&[&SETTINGS[..], &[("WATCHWORD_NATS_URL", url.as_str())]].concat());
    let folder = server.data().parent().expect("it is in a folder").to_owned();
    let archive = workspace().join("tests/faults/old_data/2026-11.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&folder).status();
    assert!(unpacked.expect("tar runs").success());
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("it is in the archive");
    let then: Vec<Value> = serde_json::from_str(&read("events.json")).expect("it is a list");

    server.up().await;
    assert_eq!(server.events().await[..then.len()], then, "the log as it was");
    let app = server.default_app();
    let ada = app.login("ada@example.org", PASSWORD).await.expect(200).tokens();
    let me = app.me(&ada.access).await.expect(200).json();
    assert_eq!((&me["name"], &me["roles"][0]), (&"Ada Lovelace".into(), &"admin".into()));
    app.login("eve@example.org", PASSWORD).await.problem(403, "user_banned");
    app.refresh(&read("ended")).await.expect_refusal();
    let body = serde_json::json!({"email": "grace@example.org", "password": PASSWORD});
    app.post("auth/register").json(&body).await.problem(409, "email_taken");

    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(60).await).await;
    assert!(history.all_were_answered());
    checker::check(&mut server, Some(&bus), &history).await;
}
