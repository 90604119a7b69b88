//! `import-history`: an exported history becomes the journal again.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, Tokens, email};

const CALLBACK: &str = "https://client.example/callback";

/// A signed checkpoint of now, in a file.
async fn checkpoint(server: &Server, name: &str) -> PathBuf {
    let note = server.post("/v1/audit/checkpoint").bearer(&server.platform_key()).await.expect(200).text;
    let path = server.data().with_file_name(name);
    fs::write(&path, note).expect("written");
    path
}

/// The key of checkpoints.
async fn key(server: &Server) -> String {
    let keys = server.get("/v1/audit/key").bearer(&server.platform_key()).await.expect(200).text;
    keys.lines().next().expect("a key").to_owned()
}

/// The whole history, in a file.
fn export(server: &Server) -> PathBuf {
    let output = server.command(&["export"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = server.data().with_file_name("history.ndjson");
    fs::write(&path, output.stdout).expect("written");
    path
}

fn import(server: &Server, file: &Path, checkpoint: &Path, key: &str) -> Result<Value, String> {
    import_with(server, file, checkpoint, &["--key", key])
}

fn import_with(server: &Server, file: &Path, checkpoint: &Path, more: &[&str]) -> Result<Value, String> {
    let (file, checkpoint) = (file.to_str().expect("UTF-8"), checkpoint.to_str().expect("UTF-8"));
    let arguments = ["import-history", "--json", "--file", file, "--checkpoint", checkpoint];
    let output = server.command(&[&arguments, more].concat()).output().expect("runs");
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).expect("JSON"));
    }
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Loses everything but the keys.
fn lose_all_but_the_keys(server: &Server) {
    for entry in fs::read_dir(server.data()).expect("a folder") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("journal") || name.starts_with("read-models") {
            fs::remove_file(path).expect("removed");
        }
    }
}

/// Somebody of each kind whose events take and release claims: Ada, who is well, and others.
async fn people(app: &App<'_>) -> (String, Tokens) {
    let address = email("ada");
    let ada = app.register(&address).await;
    app.login(&address, "a wrong password").await.expect_refusal();
    let other = app.login(&address, PASSWORD).await.tokens();
    app.post("auth/logout").bearer(&other.access).await.expect(204);
    for _ in 0..2 {
        let link = json!({ "email": address, "redirect_uri": CALLBACK });
        app.post("auth/magic-link").json(&link).await.expect(202);
    }
    let eve = app.register(&email("eve")).await;
    app.ban(&eve.user_id).await;
    let bob = app.register(&email("bob")).await;
    app.delete(&format!("admin/users/{}", bob.user_id)).bearer(&app.server.platform_key()).await.expect(200);
    (address, ada)
}

fn sees_no_fault(server: &Server) {
    let output = server.command(&["doctor", "--json"]).output().expect("runs");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let faults: Vec<_> =
        found["checks"].as_array().expect("checks").iter().filter(|it| it["verdict"] == "fault").collect();
    assert!(faults.is_empty(), "{faults:?}");
}

#[tokio::test]
async fn an_exported_history_becomes_the_journal_again() {
    let mut server = Server::start().await;
    let id = server.create_app(json!({ "redirect_uris": [CALLBACK] })).await.id.clone();
    let (address, ada) = people(&server.app(&id)).await;
    let early = checkpoint(&server, "early").await;
    let eve = server.app(&id).register(&email("late")).await;
    let late = checkpoint(&server, "late").await;
    let (key, events) = (key(&server).await, server.events().await);
    server.terminate().await;
    let history = export(&server);
    lose_all_but_the_keys(&server);

    // First what the early checkpoint covers, then the rest: as if the first import had been interrupted.
    let first = import(&server, &history, &early, &key).expect("imported");
    let second = import(&server, &history, &late, &key).expect("imported");
    let size = |imported: &Value| imported["head"].as_u64().expect("a number");
    let root = fs::read_to_string(&late).expect("a file").lines().nth(2).map(str::to_owned);
    assert_eq!(first["imported"], first["head"]);
    assert_eq!((&first["lost"], &second["lost"]), (&json!(size(&second) - size(&first)), &json!(0)));
    assert_eq!(second["imported"], size(&second) - size(&first));
    assert_eq!(second["root"].as_str(), root.as_deref());
    // The export's own event.
    assert_eq!(second["left_out"], 1);
    let again = import(&server, &history, &late, &key).expect("nothing is left to do");
    assert_eq!(again["imported"], 0);
    sees_no_fault(&server);

    server.up().await;
    sees_no_fault(&server);
    let app = server.app(&id);
    app.me(&ada.access).await.expect(200);
    app.refresh(&ada.refresh).await.expect(200);
    app.refresh(&eve.refresh).await.expect(200);
    app.login(&address, PASSWORD).await.expect(200);
    app.post("auth/register")
        .json(&json!({ "email": address, "password": PASSWORD }))
        .await
        .problem(409, "email_taken");
    let later = server.events().await;
    let count = usize::try_from(size(&second)).expect("small");
    assert_eq!(later[..count], events[..count]);
    // The log goes on from there: what is signed next continues what was signed before.
    checkpoint(&server, "later").await;
    server.terminate().await;
    let output = server.command(&["rebuild", "--all", "--verify"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// An older export, and nothing later: checkpoints are signed again once the loss is on record.
#[tokio::test]
async fn what_an_older_history_lacks_is_recorded() {
    let mut server = Server::start().await;
    let address = email("ada");
    server.default_app().register(&address).await;
    let (early, key) = (checkpoint(&server, "early").await, key(&server).await);
    server.default_app().register(&email("eve")).await;
    checkpoint(&server, "late").await;
    let events = server.events().await;
    server.terminate().await;
    let history = export(&server);
    lose_all_but_the_keys(&server);
    let imported = import(&server, &history, &early, &key).expect("imported");
    let (count, lost) = (imported["head"].as_u64().expect("a number"), imported["lost"].as_u64());
    assert_eq!(lost, Some(events.len() as u64 - count));
    server.up().await;
    let refused = server.post("/v1/audit/checkpoint").bearer(&server.platform_key()).await;
    refused.problem(503, "checkpoint_refused");
    server.terminate().await;
    lose_all_but_the_keys(&server);

    import_with(&server, &history, &early, &["--key", &key, "--record-loss"]).expect("imported");
    server.up().await;
    let later = server.events().await;
    let recorded = tests::of_type(&later, "JournalWentBack");
    let newest = events.last().expect("an event");
    assert_eq!(
        (recorded.len(), &recorded[0]["data"]["lost"], &recorded[0]["data"]["lost_event"]),
        (1, &newest["position"], &newest["id"])
    );
    checkpoint(&server, "again").await;
    server.default_app().login(&address, PASSWORD).await.expect(200);
    sees_no_fault(&server);
}

#[tokio::test]
async fn what_is_not_that_history_changes_nothing() {
    let mut server = Server::start().await;
    server.default_app().register(&email("ada")).await;
    let (note, own) = (checkpoint(&server, "checkpoint").await, key(&server).await);
    let mut other = Server::start().await;
    let others = key(&other).await;
    server.terminate().await;
    other.terminate().await;
    let history = export(&server);
    let text = fs::read_to_string(&history).expect("a file");
    lose_all_but_the_keys(&server);
    let before = server.stored_bytes();

    let forged = |name: &str, lines: Vec<String>| {
        let path = history.with_file_name(name);
        fs::write(&path, lines.join("\n") + "\n").expect("written");
        let refused = import(&server, &path, &note, &own).expect_err(name);
        fs::remove_file(path).expect("removed");
        refused
    };
    let lines = || text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut changed = lines();
    changed[3] = changed[3].replacen("\"type\":\"", "\"type\":\"Not", 1);
    let mut swapped = lines();
    swapped.swap(2, 3);
    let mut removed = lines();
    removed.remove(2);
    for (name, lines) in [("changed", changed), ("swapped", swapped), ("removed", removed)] {
        let refused = forged(name, lines);
        assert!(refused.contains("is not the history of the checkpoint"), "{name}: {refused}");
    }
    let short = forged("short", lines()[..3].to_vec());
    assert!(short.contains("has 3 events and the checkpoint covers"), "{short}");
    let refused = import(&server, &history, &note, &others).expect_err("another instance's key");
    assert!(refused.contains("is not signed with the key"), "{refused}");
    assert!(server.stored_bytes() == before, "nothing changed");

    let refused = import(&other, &history, &note, &own).expect_err("another journal");
    assert!(refused.contains("only an empty journal can be filled"), "{refused}");
    fs::remove_file(server.data().join("keys.db")).expect("removed");
    let refused = import(&server, &history, &note, &own).expect_err("no keys");
    assert!(refused.contains("put the instance's key store and master key in place first"), "{refused}");
}
