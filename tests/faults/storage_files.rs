//! Files that somebody deletes or replaces while the service has them open, and stores of different backups.

use std::fs;
use std::path::{Path, PathBuf};

use tests::workload::History;
use tests::{PASSWORD, Server, checker, email, free_port};

use crate::storage::{doctor, is_ready, is_refused, readiness, register};
use crate::{SETTINGS, until};

/// Refused until the file is back, and told why.
async fn is_refused_and_told(server: &Server, store: &str) {
    until("registrations are refused", async || is_refused(&register(server).await, "storage_missing")).await;
    until("/readyz says so", async || {
        let (ready, told) = readiness(server).await;
        !ready && told["checks"][store]["state"] == "missing"
    })
    .await;
    let (fine, said) = doctor(server);
    assert!(!fine && said.contains("deleted or replaced"), "{said}");
    server.says("deleted or replaced").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_a_nothing_is_acknowledged_that_goes_to_a_file_without_a_name() {
    for (file, store) in [("journal.db", "journal"), ("keys.db", "key_store")] {
        let mut server = Server::start_with(&SETTINGS).await;
        let mut history = History::new(&server).await;
        let (path, aside) = (server.data().join(file), server.data().join(format!("{file}.aside")));
        history
            .during(&[&server], async |load| {
                load.done(30).await;
                fs::rename(&path, &aside).expect("moved away");
                load.failed(20).await;
                is_refused_and_told(&server, store).await;
                // A file of the same name is not the same file.
                fs::copy(&aside, &path).expect("copied");
                assert!(!is_ready(&server).await);
                fs::rename(&aside, &path).expect("moved back");
                until("it is ready again", async || is_ready(&server).await).await;
                load.done(30).await;
            })
            .await;
        checker::check(&mut server, None, &history).await;
    }
}

/// The files that a process has open, by their names.
fn open_files(pid: u32) -> Vec<(PathBuf, PathBuf)> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let target = |path: PathBuf| Some((fs::read_link(&path).ok()?, path));
    descriptors.flatten().filter_map(|entry| target(entry.path())).collect()
}

/// As deploy/README.md says: while the process runs, its deleted files can still be copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_journal_is_saved_from_the_process_that_has_it_open() {
    let mut server = Server::start_with(&SETTINGS).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(40).await).await;
    let saved = tempfile::tempdir().expect("a folder");
    for file in ["journal.db", "journal.db-wal"] {
        fs::remove_file(server.data().join(file)).expect("deleted");
    }
    is_refused_and_told(&server, "journal").await;
    let open = open_files(server.pid());
    for file in ["journal.db", "journal.db-wal"] {
        let deleted = format!("{} (deleted)", server.data().join(file).display());
        let (_, handle) = open.iter().find(|(target, _)| target == Path::new(&deleted)).expect("it is open");
        fs::copy(handle, saved.path().join(file)).expect("copied");
    }
    server.kill();
    for file in ["journal.db", "journal.db-wal"] {
        fs::copy(saved.path().join(file), server.data().join(file)).expect("copied");
    }
    server.up().await;
    checker::check(&mut server, None, &history).await;
}

/// The newest commits are in the log: they are moved into the journal.
#[tokio::test(flavor = "multi_thread")]
async fn inv_a_a_deleted_log_costs_nothing_that_was_acknowledged() {
    let mut server = Server::start_with(&SETTINGS).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(40).await;
            fs::remove_file(server.data().join("journal.db-wal")).expect("deleted");
            load.failed(20).await;
            is_refused_and_told(&server, "journal").await;
        })
        .await;
    server.kill();
    let _ = fs::remove_file(server.data().join("journal.db-shm"));
    server.up().await;
    history.during(&[&server], async |load| load.done(20).await).await;
    checker::check(&mut server, None, &history).await;
}

/// They hold nothing of their own: logins go on, and the next start builds them again.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_read_models_are_said_and_built_again() {
    let mut server = Server::start_with(&SETTINGS).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(30).await;
            fs::remove_file(server.data().join("read-models.db")).expect("deleted");
            until("/readyz says so", async || {
                let (ready, told) = readiness(&server).await;
                !ready && told["checks"]["read_models"]["ok"] == false
            })
            .await;
            load.done(30).await;
        })
        .await;
    assert!(history.all_were_answered(), "logins do not depend on the read models");
    server.kill();
    for file in ["read-models.db-wal", "read-models.db-shm"] {
        let _ = fs::remove_file(server.data().join(file));
    }
    server.up().await;
    checker::check(&mut server, None, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_lock_lets_no_second_server_in() {
    let server = Server::start_with(&SETTINGS).await;
    fs::remove_file(server.data().join("journal.db.lock")).expect("deleted");
    for command in [vec!["serve"], vec!["rotate-master-key"]] {
        let mut second = server.command(&command);
        second.env("WATCHWORD_LISTEN", format!("127.0.0.1:{}", free_port()));
        let refused = second.output().expect("runs");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("in use by another process"),
            "{command:?}: {said}"
        );
        // The file that the second one may have made does not help a third one.
    }
    register(&server).await.expect(201);
    assert!(is_ready(&server).await);
}

/// People who came after the backup of the key store have no keys. They are not taken for erased.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_store_older_than_the_journal_is_named() {
    let mut server = Server::start_with(&SETTINGS).await;
    let (ada, bob) = (email("ada"), email("bob"));
    server.default_app().register(&ada).await;
    assert!(server.terminate().await.success());
    let keys = server.data().join("keys.db");
    let (older, newer) = (server.data().join("keys.db.older"), server.data().join("keys.db.newer"));
    fs::copy(&keys, &older).expect("a backup");
    server.up().await;
    let tokens = server.default_app().register(&bob).await;
    assert!(server.terminate().await.success());
    fs::rename(&keys, &newer).expect("moved");
    fs::copy(&older, &keys).expect("restored");

    server.up().await;
    server.says("1 of the newest people in the journal have no key").await;
    let app = server.default_app();
    for _ in 0..2 {
        app.login(&bob, PASSWORD).await.problem(503, "journal_damaged");
        app.login(&bob, "a wrong password").await.problem(503, "journal_damaged");
        app.refresh(&tokens.refresh).await.problem(503, "journal_damaged");
    }
    // Lists and the audit log do not show him as erased, and looking makes no key in place of his.
    let key = server.platform_key();
    for _ in 0..2 {
        let list = app.get("admin/users").bearer(&key).await.expect(200).json();
        let shown = |id: &str| {
            list["items"].as_array().expect("a list").iter().find(|user| user["id"] == id).cloned()
        };
        let damaged = shown(&tokens.user_id).expect("he is in the list");
        assert!(damaged["damaged"] == true && damaged["email"].is_null(), "{damaged}");
        assert_eq!(
            list["items"].as_array().expect("a list").iter().filter(|user| user["damaged"] == true).count(),
            1
        );
        let path = format!("audit/events?user_id={}", tokens.user_id);
        let events = app.get(&path).bearer(&key).await.expect(200).json();
        let about = events["items"].as_array().expect("a list");
        let registered = about.iter().find(|event| event["type"] == "UserRegistered").expect("it is there");
        assert!(registered["damaged"] == true && registered["personal"].is_null(), "{registered}");
        let csv = app.get(&path).bearer(&key).header("accept", "text/csv").await.expect(200).text;
        assert!(csv.contains("(damaged)"), "{csv}");
        app.get(&format!("admin/users/{}", tokens.user_id))
            .bearer(&key)
            .await
            .problem(503, "journal_damaged");
    }
    app.login(&ada, PASSWORD).await.expect(200);
    app.login(&email("nobody"), PASSWORD).await.problem(401, "invalid_credentials");
    app.register(&email("cyd")).await;
    let (ready, told) = readiness(&server).await;
    let check = &told["checks"]["key_store"];
    assert!(ready && check["ok"] == false && check["state"] == "older" && check["missing"] == 1, "{told}");
    let (fine, said) = doctor(&server);
    assert!(!fine && said.contains("older backup"), "{said}");
    assert!(server.terminate().await.success());
    let (fine, said) = doctor(&server);
    assert!(!fine && said.contains("missing from the key store"), "{said}");

    // Cyd's key is in the older one alone: an operator who restores the newer one in time loses nobody.
    fs::rename(&newer, &keys).expect("restored");
    server.up().await;
    server.default_app().login(&bob, PASSWORD).await.expect(200);
}
