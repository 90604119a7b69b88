use std::fs;
use std::process::Output;

use serde_json::json;
use tests::{Server, email};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn sigterm_drains_and_the_data_is_there_again() {
    let mut server = Server::start().await;
    let address = email("ada");
    let tokens = server.default_app().register(&address).await;
    assert!(server.terminate().await.success());
    server.up().await;
    let app = server.default_app();
    app.me(&tokens.access).await.expect(200);
    app.refresh(&tokens.refresh).await.expect(200);
    app.login(&address, tests::PASSWORD).await.expect(200);
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused() {
    let server = Server::start().await;
    let output = server.command(&["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let message = text(&output);
    assert!(
        message.contains("another") || message.contains("in use") || message.contains("running"),
        "{message}"
    );
    server.default_app().register(&email("ada")).await;
}

#[tokio::test]
async fn unreadable_configuration_is_named_and_touches_nothing() {
    let mut server = Server::start().await;
    server.terminate().await;
    let before = server.stored_bytes().len();
    for (name, value) in [
        ("WATCHWORD_LISTEN", "nonsense"),
        ("WATCHWORD_ARGON2", "m=1"),
        ("WATCHWORD_MASTER_KEY", "short"),
        ("WATCHWORD_RATE_LIMITS", "perhaps"),
    ] {
        let output = server.command(&["serve"]).env(name, value).output().unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{name}: {}", text(&output));
        assert!(
            text(&output).contains(name) || text(&output).contains(&name[10..].to_lowercase()),
            "{}",
            text(&output)
        );
    }
    assert_eq!(server.stored_bytes().len(), before);
}

#[tokio::test]
async fn foreign_or_damaged_data_is_refused_and_left_alone() {
    let mut server = Server::start().await;
    server.default_app().register(&email("ada")).await;
    server.terminate().await;
    let journal = fs::read_dir(server.data())
        .unwrap()
        .map(|it| it.unwrap().path())
        .find(|it| {
            it.file_name().unwrap().to_string_lossy().starts_with("journal")
                && it.extension().is_some_and(|it| it != "lock")
        })
        .expect("the journal is a file of the data directory");
    let good = fs::read(&journal).unwrap();
    for damaged in [b"this is no database, but somebody's notes".to_vec(), good[..good.len() / 2].to_vec()] {
        fs::write(&journal, &damaged).unwrap();
        let output = server.command(&["serve"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(journal.file_name().unwrap().to_str().unwrap()), "{}", text(&output));
        assert_eq!(fs::read(&journal).unwrap(), damaged, "it is left as it was");
    }
    fs::write(&journal, &good).unwrap();
    server.up().await;
    server.default_app().register(&email("grace")).await;
}

#[tokio::test]
async fn a_wrong_master_key_is_refused() {
    let mut server = Server::start().await;
    server.default_app().register(&email("ada")).await;
    server.terminate().await;
    let output = server
        .command(&["serve"])
        .env("WATCHWORD_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).to_lowercase().contains("master key"), "{}", text(&output));
    server.up().await;
}

#[tokio::test]
async fn the_history_is_exported() {
    let mut server = Server::start().await;
    server.create_app(json!({})).await.register(&email("ada")).await;
    let events = server.events().await;
    server.terminate().await;
    let output = server.command(&["export"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let exported: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(exported[..events.len()], events);
    let types: Vec<_> = exported[events.len()..].iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["HistoryExported"], "the export itself is recorded");
}
