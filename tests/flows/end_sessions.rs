//! After a backup is restored, what has been revoked since stays revoked: the operator ends all sessions.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tests::{PASSWORD, Server, assert_gapless, email, of_type};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the folder can be listed") {
        let entry = entry.expect("the folder can be listed");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}

#[tokio::test]
async fn restoring_a_backup_and_ending_all_sessions_revives_nothing() {
    let mut server = Server::start().await;
    let (ada, eve) = (email("ada"), email("eve"));
    let (first, other) = {
        let app = server.default_app();
        let first = app.register(&ada).await;
        (first, app.register(&eve).await)
    };
    server.terminate().await;
    let backup = server.data().with_file_name("backup");
    copy(&server.data(), &backup);

    // What the backup lacks: a spent token, a new session, both revoked.
    server.up().await;
    let (second, later) = {
        let app = server.default_app();
        let second = app.refresh(&first.refresh).await.expect(200).tokens();
        let later = app.login(&ada, PASSWORD).await.expect(200).tokens();
        app.post("auth/sessions/revoke-all").bearer(&later.access).json(&json!({})).await.expect(200);
        app.refresh(&second.refresh).await.problem(401, "session_revoked");
        (second, later)
    };
    server.terminate().await;
    fs::remove_dir_all(server.data()).expect("the folder can be removed");
    copy(&backup, &server.data());

    let without = server.command(&["end-sessions"]).output().expect("the binary runs");
    assert_eq!(without.status.code(), Some(2), "--all must be given explicitly");
    let output = server.command(&["end-sessions", "--all", "--json"]).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report, json!({ "users": 2, "sessions": 2 }));

    server.up().await;
    let app = server.default_app();
    // The first would be its session's newest token if the session had not been ended.
    for token in [&first.refresh, &second.refresh, &later.refresh, &other.refresh] {
        app.refresh(token).await.expect(401);
    }
    for token in [&first.access, &second.access, &later.access, &other.access] {
        app.me(token).await.expect(401);
    }
    app.login(&ada, PASSWORD).await.expect(200);
    let events = server.events().await;
    assert_gapless(&events);
    assert_eq!(of_type(&events, "SessionRevoked").len(), 2, "and the log says so");
}
