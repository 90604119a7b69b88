use std::fs;
use std::process::Command;

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
async fn a_replaced_journal_is_reported_and_the_read_models_are_filled_anew() {
    let mut server = Server::start().await;
    server.terminate().await;
    let journal = server.data().join("journal.db");
    let older = fs::read(&journal).unwrap();
    server.up().await;
    server.default_app().register(&email("ada")).await;
    caught_up(&server).await;
    server.terminate().await;

    let read_models = server.data().join("read-models.db");
    let newer = fs::read(&read_models).unwrap();
    let is_reported = |server: &Server| {
        let (code, faults) = doctor(server.command(&["doctor", "--json"]));
        assert_eq!((code, faults.len()), (Some(1), 8), "one for each read model: {faults:?}");
        for fault in &faults {
            assert!(fault.contains("another journal") && fault.contains("Restoring"), "{fault}");
        }
    };

    // An older copy, which then continues differently.
    fs::write(&journal, &older).unwrap();
    is_reported(&server);
    for app in ["a", "b", "c", "d"] {
        let output = server.command(&["app", "create", app]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    // Now that the new journal is longer than the old one, positions alone do not show it.
    fs::write(&read_models, &newer).unwrap();
    is_reported(&server);

    // Nobody has to delete anything.
    server.up().await;
    assert!(server.log().contains("the read model is filled anew"), "{}", server.log());
    server.default_app().register(&email("grace")).await;
    caught_up(&server).await;
    let app = server.default_app();
    let users = app.get("admin/users").bearer(&server.platform_key()).await.expect(200).json();
    assert_eq!(users["total"], 1, "whoever is not in the log is not in the list: {users}");
    // Consumers of the events learn it from the log.
    let events = server.events().await;
    let losses = tests::of_type(&events, "JournalWentBack");
    let newest = losses.last().expect("it is recorded");
    let (audit, key) = (app.path("audit/events"), server.platform_key());
    for (path, form) in [
        ("/v1/events", "application/json"),
        (&app.path("events"), "application/json"),
        (&audit, "application/json"),
        (&audit, "application/x-ndjson"),
        (&audit, "text/csv"),
    ] {
        let answer = server.get(path).bearer(&key).header("accept", form).await.expect(200);
        assert_eq!(answer.header("journal-epoch"), newest["id"].as_str(), "{path} as {form}");
    }
    server.terminate().await;
    assert_eq!(doctor(server.command(&["doctor", "--json"])), (Some(0), vec![]));
}
