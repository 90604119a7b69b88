//! The upgrade that gives the events of before their MACs is killed, at each of its steps and at random moments: it goes on
//! where it was, and ends as if nothing had happened.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::Value;
use test_services::Postgres;
use tests::Server;

use crate::old_data::{expected, restore, unpack};
use crate::steps::ABORTED;
use crate::{Random, SETTINGS};

const STEPS: [&str; 2] = ["before-upgrade-commit", "before-mark"];

#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_of_a_folder_is_killed() {
    let server = Server::new(&SETTINGS);
    let folder = server.data().parent().expect("it is in a folder").to_owned();
    unpack("2026-11-28.sqlite.tar.gz", &folder);
    let old = fs::read(server.data().join("journal.db")).expect("it is there");
    dies(&server, &expected(&folder)).await;

    // Nothing brings back a time without MACs: not even the journal of then, beside the key store of now.
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(server.data().join(format!("journal.db{suffix}")));
    }
    fs::write(server.data().join("journal.db"), old).expect("it can be written");
    let refused = server.command(&["migrate"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("carry no MAC"), "{text}");
    let doctor = server.command(&["doctor"]).output().expect("it runs");
    assert!(!doctor.status.success() && String::from_utf8_lossy(&doctor.stdout).contains("carry no MAC"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_of_a_database_is_killed() {
    let database = Postgres::shared().database();
    let mut server = Server::new(&[&SETTINGS[..], &[("WATCHWORD_JOURNAL_URL", database.as_str())]].concat());
    let folder = server.data().parent().expect("it is in a folder").to_owned();
    let expected = restore(&mut server, &database, &folder);
    dies(&server, &expected).await;
    Postgres::shared().psql(&database, "UPDATE watchword.format SET version = 4");
    let refused = server.command(&["migrate"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("carry no MAC"), "{text}");
}

async fn dies(server: &Server, expected: &Value) {
    for step in STEPS {
        let died = server
            .command(&["migrate"])
            .env("FAILPOINTS", format!("{step}=return"))
            .output()
            .expect("it runs");
        assert_eq!(died.status.signal(), Some(ABORTED), "{step}: {}", String::from_utf8_lossy(&died.stderr));
    }
    let mut random = Random::new();
    for _ in 0..20 {
        let mut child = server.command(&["migrate"]).spawn().expect("it runs");
        random.moment(Duration::from_millis(250)).await;
        let _ = child.kill();
        child.wait().expect("it ends");
    }
    let migrated = server.command(&["migrate"]).output().expect("it runs");
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let doctor = server.command(&["doctor"]).output().expect("it runs");
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
    let exported = server.command(&["export"]).output().expect("it runs");
    let lines = String::from_utf8(exported.stdout).expect("it is text");
    let ids: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("it is JSON")["id"].clone())
        .collect();
    let then = expected["events"].as_array().expect("a list");
    for (id, event) in ids.iter().zip(then) {
        assert_eq!(*id, event["id"]);
    }
    assert!(ids.len() >= then.len());
}
