//! `verify`: whoever can write to the stores, but lacks the instance's keys, is found out, and told where.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use test_services::Postgres;
use tests::{Server, email, of_type, until};

const QUICK: (&str, &str) = ("WATCHWORD_ARGON2", "m=1024,t=1,p=1");

/// More refreshes than a stream may have without a snapshot.
const REFRESHES: usize = 101;

/// The exit code, and what was found.
fn run(mut command: Command) -> (Option<i32>, Value) {
    let output = command.output().expect("the binary runs");
    let told = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&output.stderr).into_owned()));
    (output.status.code(), told)
}

fn verify(server: &Server) -> (Option<i32>, Value) {
    run(server.command(&["verify", "--json"]))
}

async fn caught_up(server: &Server) {
    let key = server.platform_key();
    until("the read models catch up", async || {
        let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
        list["items"].as_array().expect("a list").iter().all(|it| it["lag"] == 0)
    })
    .await;
}

/// A history with people, a session long enough for a snapshot, and its position of interest.
async fn history(server: &Server) -> (u64, u64) {
    let app = server.create_app(json!({})).await;
    let ada = app.register(&email("ada")).await;
    let mut refresh = ada.refresh.clone();
    for _ in 0..REFRESHES {
        refresh = app.refresh(&refresh).await.tokens().refresh;
    }
    for name in ["grace", "eve"] {
        app.register(&email(name)).await;
    }
    let events = server.events().await;
    let registered = of_type(&events, "UserRegistered")[1]["position"].as_u64().expect("a position");
    (registered, events.len() as u64)
}

/// The files of a stopped server.
struct Files {
    server: Server,
    honest: Vec<(PathBuf, Vec<u8>)>,
}

impl Files {
    /// Changes one of them, after all others were put back.
    async fn alter(&self, file: &str, statements: &str) {
        for (path, bytes) in &self.honest {
            fs::write(path, bytes).expect("it can be written");
        }
        let path = self.server.data().join(file);
        let mut file = SqliteConnectOptions::new().filename(path).connect().await.expect("it opens");
        for trigger in ["events_are_never_changed", "events_are_never_deleted", "events_have_no_gaps"] {
            let drop = format!("DROP TRIGGER IF EXISTS {trigger}");
            file.execute(AssertSqlSafe(drop)).await.expect("it can be dropped");
        }
        file.execute(AssertSqlSafe(statements.to_owned())).await.expect("it can be changed");
        file.close().await.expect("it closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_store_is_named_by_the_right_command() {
    let mut server = Server::start_with(&[QUICK]).await;
    let (position, head) = history(&server).await;
    caught_up(&server).await;
    let (code, told) = verify(&server);
    assert!(
        code == Some(1) && told.as_str().is_some_and(|it| it.contains("stop the server first")),
        "{told}"
    );
    server.terminate().await;
    let honest = server.stored_bytes();
    let (code, told) = verify(&server);
    assert_eq!((code, &told["ok"]), (Some(0), &json!(true)), "{told}");
    assert_eq!((&told["events"], &told["snapshots"]), (&json!(head), &json!(1)), "{told}");
    assert!(told["checked"].to_string().contains("merkle_tree: the first"), "{told}");
    assert!(server.stored_bytes() == honest, "it changes nothing");

    let files = Files { server, honest };
    let next = position + 1;
    let swap = format!(
        "UPDATE events SET position = -position WHERE position IN ({position}, {next});
         UPDATE events SET position = {next} WHERE position = -{position};
         UPDATE events SET position = {position} WHERE position = -{next}"
    );
    let tail = head - 1;
    for (what, statements, positions, texts) in [
        (
            "a byte of an event is flipped",
            format!(
                "UPDATE events SET data = replace(data, '\"method\":\"p', '\"method\":\"q') WHERE position = {position}"
            ),
            vec![position],
            vec!["its MAC is wrong"],
        ),
        (
            "an event is removed",
            format!("DELETE FROM events WHERE position = {position}"),
            vec![position],
            vec!["is missing"],
        ),
        ("two events are swapped", swap, vec![position, next], vec!["its MAC is wrong"]),
        (
            "the tail is cut",
            format!("DELETE FROM events WHERE position > {tail}"),
            vec![],
            vec!["merkle_tree: it has", "the last 1 were removed"],
        ),
        (
            "a claim is changed",
            "UPDATE claims SET owner = (SELECT max(owner) FROM claims WHERE kind = 'email')
             WHERE kind = 'email' AND owner = (SELECT min(owner) FROM claims WHERE kind = 'email')"
                .to_owned(),
            vec![],
            vec!["the email claim", "is held by user-"],
        ),
        (
            "a snapshot is changed",
            "UPDATE snapshots SET state = CAST(substr(state, 1, length(state) - 1) || x'00' AS BLOB)"
                .to_owned(),
            vec![],
            vec!["the snapshot of session-", "its MAC is false"],
        ),
    ] {
        files.alter("journal.db", &statements).await;
        let (code, told) = verify(&files.server);
        assert_eq!((code, &told["ok"]), (Some(1), &json!(false)), "{what}: {told}");
        let faults = told["faults"].as_array().expect("a list");
        let mut at: Vec<u64> = faults.iter().filter_map(|fault| fault["position"].as_u64()).collect();
        at.dedup();
        assert_eq!(at, positions, "{what}: {told}");
        let all = told["faults"].to_string();
        assert!(texts.iter().all(|text| all.contains(text)), "{what}: {told}");
    }

    // The rows of read models are another command's.
    files.alter("read-models.db", "UPDATE users_v2 SET banned = 1").await;
    let (code, told) = verify(&files.server);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = run(files.server.command(&["rebuild", "--all", "--verify", "--json"]));
    assert_eq!((code, &told["ok"]), (Some(1), &json!(false)), "{told}");
    assert!(told.to_string().contains("banned is 1, but the events up to"), "{told}");
    // A checkpoint that names another event than it has.
    let moved = "UPDATE checkpoints SET position = position - 1 WHERE projector = 'users_v2'";
    files.alter("read-models.db", moved).await;
    let (code, told) = run(files.server.command(&["rebuild", "--all", "--verify", "--json"]));
    assert_eq!((code, told["compared"].as_array().map(Vec::len)), (Some(1), Some(8)), "{told}");
    assert!(
        told.to_string().contains("users: event ") && told.to_string().contains("changed its checkpoint"),
        "{told}"
    );
    // The head of the tree is proved by the instance's key.
    files.alter("read-models.db", "UPDATE merkle_head_v1 SET size = size - 1").await;
    let (code, told) = verify(&files.server);
    assert!(code == Some(1) && told["faults"].to_string().contains("not written by this instance"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_beside_nodes_on_postgresql() {
    let database = Postgres::shared().database();
    let server = Server::start_with(&[
        QUICK,
        ("WATCHWORD_JOURNAL_URL", &database),
        ("WATCHWORD_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ])
    .await;
    let (position, _) = history(&server).await;
    let app = server.create_app(json!({})).await;
    let (told, ()) = tokio::join!(async { tokio::task::block_in_place(|| verify(&server)) }, async {
        for _ in 0..20 {
            app.register(&email("ada")).await;
        }
    });
    assert_eq!((told.0, &told.1["ok"]), (Some(0), &json!(true)), "{}", told.1);
    let change = format!(
        "SET search_path = watchword; ALTER TABLE events DISABLE TRIGGER USER;
         UPDATE events SET data = replace(data, '\"method\":\"p', '\"method\":\"q') WHERE position = {position}"
    );
    Postgres::shared().psql(&database, &change);
    let (code, told) = verify(&server);
    let faults = told["faults"].as_array().expect("a list");
    assert!(code == Some(1) && faults.iter().any(|fault| fault["position"] == position), "{told}");
}

#[test]
fn wrong_usage_is_told_from_what_is_found_wrong() {
    let server = Server::new(&[]);
    let file = server.data().with_file_name("export.ndjson");
    fs::write(&file, "").expect("it can be written");
    let file = file.to_str().expect("a path");
    let key = "log.example+5d23591e+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    for arguments in [
        &["--file", file][..],
        &["--file", file, "--checkpoint", file],
        &["--file", "nowhere", "--checkpoint", file, "--key", key],
        &["--file", file, "--checkpoint", file, "--key", "no key"],
        &["--receipt", file],
        &["--receipt", file, "--file", file, "--checkpoint", file, "--key", key],
        &["--checkpoint", file, "--key", key],
        &["--key", key],
    ] {
        let output = server.command(&[&["verify"], arguments].concat()).output().expect("the binary runs");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
