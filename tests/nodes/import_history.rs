//! An exported history becomes the journal in a database again, with the keys that are still there.

use std::fs;

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use test_services::Postgres;
use tests::{PASSWORD, Server, email};

use super::node;

fn run(server: &Server, arguments: &[&str]) -> Vec<u8> {
    let output = server.command(arguments).output().expect("runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn an_exported_history_becomes_the_journal_of_two_nodes_again() {
    let database = Postgres::shared().database();
    let (mut one, mut two) = tokio::join!(node(&database), node(&database));
    let address = email("ada");
    let ada = one.default_app().register(&address).await;
    let eve = two.default_app().register(&email("eve")).await;
    one.default_app().ban(&eve.user_id).await.expect_success();
    let key = one.platform_key();
    let checkpoint = one.post("/v1/audit/checkpoint").bearer(&key).await.expect(200).text;
    let vkey = two.get("/v1/audit/key").bearer(&key).await.expect(200).text;
    let events = one.events().await;
    one.terminate().await;
    two.terminate().await;
    let (history, note) = (one.data().with_file_name("history"), one.data().with_file_name("checkpoint"));
    fs::write(&history, run(&one, &["export"])).expect("written");
    fs::write(&note, &checkpoint).expect("written");
    let mut owner = PgConnection::connect(&database).await.expect("connects");
    let lost = "DROP SCHEMA watchword CASCADE; DROP SCHEMA watchword_read CASCADE";
    sqlx::raw_sql(lost).execute(&mut owner).await.expect("dropped");
    owner.close().await.expect("closes");

    let (history, note) = (history.to_str().expect("UTF-8"), note.to_str().expect("UTF-8"));
    let import =
        ["import-history", "--json", "--file", history, "--checkpoint", note, "--key", vkey.trim_end()];
    let imported: Value = serde_json::from_slice(&run(&one, &import)).expect("JSON");
    assert_eq!(imported["imported"], events.len());
    assert_eq!(imported["root"].as_str(), checkpoint.lines().nth(2));
    tokio::join!(one.up(), two.up());
    let (here, there) = (one.default_app(), two.default_app());
    here.me(&ada.access).await.expect(200);
    there.refresh(&ada.refresh).await.expect(200);
    here.login(&address, PASSWORD).await.expect(200);
    assert!(matches!(there.refresh(&eve.refresh).await.status, 401 | 403));
    assert_eq!(two.events().await[..events.len()], events);
    run(&one, &["rebuild", "--all", "--verify"]);
}
