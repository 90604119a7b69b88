use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::{Server, email, until};

/// Waits until every read model has every event.
async fn caught_up(server: &Server) {
    let key = server.platform_key();
    until("the read models catch up", async || {
        let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
        list["items"].as_array().unwrap().iter().all(|it| it["lag"] == 0)
    })
    .await;
}

fn doctor(mut command: Command) -> (Option<i32>, Vec<String>) {
    let output = command.output().unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let faults = findings["checks"].as_array().unwrap().iter().filter(|it| it["verdict"] == "fault");
    (output.status.code(), faults.map(|it| it["detail"].as_str().unwrap().to_owned()).collect())
}

#[tokio::test]
async fn finds_nothing_wrong_with_people_sessions_and_bans() {
    let mut server = Server::start().await;
    {
        let app = server.create_app(json!({})).await;
        let address = email("ada");
        let ada = app.register(&address).await;
        app.refresh(&ada.refresh).await.expect(200);
        app.login(&address, "a wrong password").await.expect_refusal();
        let again = app.login(&address, tests::PASSWORD).await.tokens();
        app.post("auth/logout").bearer(&again.access).await.expect(204);
        let eve = app.register(&email("eve")).await;
        app.ban(&eve.user_id).await;
    }
    let (code, faults) = doctor(server.command(&["doctor", "--json"]));
    assert_eq!((code, faults), (Some(0), vec![]), "of a running server");
    server.kill();
    let before = server.stored_bytes();
    let (code, faults) = doctor(server.command(&["doctor", "--json"]));
    assert_eq!((code, faults), (Some(0), vec![]), "after a kill");
    assert!(server.stored_bytes() == before, "it changes nothing");
}

#[tokio::test]
async fn a_replaced_journal_stops_the_read_models_and_is_reported() {
    let mut server = Server::start().await;
    server.terminate().await;
    let journal = server.data().join("journal.db");
    let older = fs::read(&journal).unwrap();
    server.up().await;
    server.default_app().register(&email("ada")).await;
    caught_up(&server).await;
    server.terminate().await;

    // An older copy, which then continues differently.
    fs::write(&journal, &older).unwrap();
    let output = server.command(&["app", "create", "other"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for _ in 0..2 {
        let (code, faults) = doctor(server.command(&["doctor", "--json"]));
        assert_eq!((code, faults.len()), (Some(1), 5), "one for each read model: {faults:?}");
        for fault in &faults {
            assert!(fault.contains("another journal") && fault.contains("read-models.db-wal"), "{fault}");
        }
        // Once the new journal is longer than the old one, positions alone would not show it.
        for app in ["b", "c", "d"] {
            server.command(&["app", "create", app]).output().unwrap();
        }
    }

    let mut running = server.command(&["serve"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut answer = None;
    // Each of them notices it at its own time.
    let all_failed = |it: &Value| {
        it["checks"]["projectors"].as_array().is_some_and(|all| all.iter().all(|it| it["state"] == "failed"))
    };
    until("it is not ready", async || {
        answer = server.get("/readyz").attempt().await.ok();
        answer = answer.take().filter(|it| it.status == 503 && all_failed(&it.json()));
        answer.is_some()
    })
    .await;
    let problem = answer.expect("it is not ready").problem(503, "not_ready");
    let projectors = problem["checks"]["projectors"].as_array().unwrap();
    assert!(projectors.iter().any(|it| it["state"] == "failed" && it["detail"].is_string()), "{problem}");
    server.get("/healthz").await.expect(200);
    let list = server.get("/v1/projections").bearer(&server.platform_key()).await.expect(200).json();
    for projector in list["items"].as_array().unwrap() {
        let error = projector["error"].as_str().unwrap_or_default();
        assert!(error.contains("another journal") && error.contains("delete"), "{projector}");
    }
    // Decisions use the log, so they still work.
    server.default_app().register(&email("grace")).await;
    running.kill().unwrap();
    running.wait().unwrap();

    // Doctor's advice helps.
    for name in ["read-models.db", "read-models.db-wal", "read-models.db-shm"] {
        let _ = fs::remove_file(server.data().join(name));
    }
    server.up().await;
    caught_up(&server).await;
    server.terminate().await;
    assert_eq!(doctor(server.command(&["doctor", "--json"])), (Some(0), vec![]));
}
