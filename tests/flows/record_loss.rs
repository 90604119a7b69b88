//! `record-loss`: an older journal was restored, and only the signed checkpoint tells of what it lacks.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::log::{keys_of, verified};
use tests::{Server, email, of_type, until};

fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = server.command(&[arguments, &["--json"]].concat()).output().expect("the binary runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::String(told)))
}

async fn signed(server: &Server) -> String {
    server.post("/v1/audit/checkpoint").bearer(&server.platform_key()).await.expect(200).text
}

/// The files of the journal and of the read models.
fn stored(server: &Server) -> Vec<PathBuf> {
    let files = fs::read_dir(server.data()).expect("a folder").map(|entry| entry.expect("a file").path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        name.starts_with("journal.db") || name.starts_with("read-models")
    };
    files.filter(is_one).collect()
}

fn restore_journal(server: &Server, backup: &Path) {
    for path in stored(server) {
        fs::remove_file(path).expect("removed");
    }
    fs::copy(backup, server.data().join("journal.db")).expect("copied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_only_the_signed_checkpoint_tells_of_is_put_on_record() {
    let mut server = Server::start().await;
    let key = server.platform_key();
    server.default_app().register(&email("ada")).await;
    assert!(server.terminate().await.success());
    let (code, told) = run(&server, &["record-loss"]);
    assert_eq!((code, told), (Some(0), json!({ "lost": null, "recorded": false })));
    let backup = server.data().with_file_name("backup.db");
    fs::copy(server.data().join("journal.db"), &backup).expect("copied");
    server.up().await;
    server.default_app().register(&email("eve")).await;
    let note = signed(&server).await;
    let events = server.events().await;
    let newest = events.last().expect("an event").clone();
    let refused = run(&server, &["record-loss", "--yes"]);
    assert_eq!(refused.0, Some(1), "the server has the files: {}", refused.1);
    assert!(server.terminate().await.success());

    restore_journal(&server, &backup);
    server.up().await;
    let refused = server.post("/v1/audit/checkpoint").bearer(&key).await.problem(503, "checkpoint_refused");
    assert!(refused["detail"].as_str().is_some_and(|it| it.contains("watchword record-loss")), "{refused}");
    let head = server.events().await.len();
    assert!(server.terminate().await.success());
    let (code, told) = run(&server, &["verify"]);
    assert!(code == Some(1) && told["faults"].to_string().contains("watchword record-loss"), "{told}");

    // It changes nothing unless it is confirmed.
    let lost = json!({ "position": newest["position"], "event": newest["id"], "head": head });
    for _ in 0..2 {
        let (code, told) = run(&server, &["record-loss"]);
        assert_eq!((code, told), (Some(1), json!({ "lost": lost, "recorded": false })));
    }
    let (code, told) = run(&server, &["record-loss", "--yes"]);
    assert_eq!((code, told), (Some(0), json!({ "lost": lost, "recorded": true })));
    // Before the next checkpoint is signed, the one before is no fault.
    let (code, told) = run(&server, &["verify"]);
    assert!(code == Some(0) && told["checked"].to_string().contains("on record in its event"), "{told}");
    let (code, again) = run(&server, &["record-loss", "--yes"]);
    assert!(code == Some(0) && again["recorded"] == true, "{again}");

    server.up().await;
    let events = server.events().await;
    let records = of_type(&events, "JournalWentBack");
    assert_eq!((records.len(), &records[0]["data"]["lost_event"]), (1, &newest["id"]));
    until("it is signed", async || server.post("/v1/audit/checkpoint").bearer(&key).await.status == 200)
        .await;
    let keys = server.get("/v1/audit/key").bearer(&key).await.expect(200).text;
    let next = signed(&server).await;
    let size = |note: &str| verified(note, &keys_of(&keys)).expect("it is signed").size;
    assert!(next != note && size(&next) > head as u64);
    assert!(server.terminate().await.success());
    let (code, told) = run(&server, &["verify"]);
    assert!(code == Some(0) && told["checked"].to_string().contains("it is signed by"), "{told}");
    assert_eq!(run(&server, &["record-loss"]), (Some(0), json!({ "lost": null, "recorded": false })));
}
