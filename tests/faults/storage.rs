//! Disks that fail: every call that writes a file of a store, in every way. Whatever happens, clients are told, `/readyz`,
//! metrics and `doctor` say it, and all of it heals without a restart.

use std::time::Duration;

use serde_json::{Value, json};
use test_services::{Calls, Disk, IoFault, IoFaults, What};
use tests::workload::History;
use tests::{Answer, PASSWORD, Server, checker, email};

use crate::{SETTINGS, until};

/// A server whose calls can be made to fail.
pub async fn server_with(faults: &IoFaults) -> Server {
    let of_faults = faults.environment();
    let of_faults: Vec<(&str, &str)> =
        of_faults.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Server::start_with(&[&SETTINGS[..], &of_faults].concat()).await
}

/// A registration, whatever its outcome.
pub async fn register(server: &Server) -> Answer {
    let body = json!({"email": email("disk"), "password": PASSWORD});
    server.default_app().post("auth/register").json(&body).await
}

/// A refusal with this code.
pub fn is_refused(answer: &Answer, code: &str) -> bool {
    answer.status == 503 && answer.json()["code"] == code
}

/// What readiness says, and whether that is "ready".
pub async fn readiness(server: &Server) -> (bool, Value) {
    let answer = server.readiness().await;
    (answer.status == 200, answer.json())
}

pub async fn is_ready(server: &Server) -> bool {
    readiness(server).await.0
}

/// What `doctor` says, and whether it finds no fault.
pub fn doctor(server: &Server) -> (bool, String) {
    let output = server.command(&["doctor"]).output().expect("runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Everybody who asks is told that this store cannot be written.
async fn is_told(server: &Server, store: &str, state: &str) {
    until("/readyz says so", async || {
        let (ready, told) = readiness(server).await;
        !ready && told["checks"][store]["state"] == state
    })
    .await;
    let strangers = server.get("/readyz").await;
    let told = strangers.problem(503, "not_ready");
    assert_eq!(told["checks"][store]["ok"], false, "{told}");
    assert!(!strangers.text.contains(".db") && !strangers.text.contains("free_bytes"), "{}", strangers.text);
    let metric = format!("watchword_store_writable{{store=\"{store}\"}} 0");
    until("metrics say so", async || server.metrics().await.contains(&metric)).await;
    let (fine, said) = doctor(server);
    assert!(!fine && said.contains("cannot be written"), "{said}");
}

/// Nothing but time, and those who look, make it ready again.
async fn heals(server: &Server) {
    until("it is ready again", async || is_ready(server).await).await;
    for store in ["journal", "key_store"] {
        let metric = format!("watchword_store_writable{{store=\"{store}\"}} 1");
        until("metrics say so", async || server.metrics().await.contains(&metric)).await;
    }
    register(server).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_heals_by_itself() {
    let disk = Disk::new(32);
    let data = disk.path().join("data").display().to_string();
    let mut server = Server::start_with(&[&SETTINGS[..], &[("WATCHWORD_DATA_DIR", &data)]].concat()).await;
    let mut history = History::new(&server).await;
    register(&server).await.expect(201);
    // Little space is a warning, which only the platform sees.
    let (ready, told) = readiness(&server).await;
    assert!(ready && told["checks"]["storage"][0]["ok"] == false, "{told}");
    assert!(told["checks"]["storage"][0]["free_bytes"].as_u64() < Some(32 << 20), "{told}");
    assert!(server.get("/readyz").await.json()["checks"]["storage"].is_null());
    server.says("storage.free_mib").await;
    assert!(doctor(&server).1.contains("storage.free_mib"));
    assert!(server.metrics().await.contains("watchword_storage_low{folder=\"journal\"} 1"));

    for _ in 0..2 {
        disk.fill(0);
        until("registrations are refused", async || is_refused(&register(&server).await, "storage_full"))
            .await;
        let (_, told) = readiness(&server).await;
        let store = if told["checks"]["journal"]["ok"] == false { "journal" } else { "key_store" };
        is_told(&server, store, "full").await;
        // Reading needs no space.
        assert!(!server.events().await.is_empty());
        disk.free();
        heals(&server).await;
    }
    history.during(&[&server], async |load| load.done(30).await).await;
    checker::check(&mut server, None, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_becomes_read_only_and_is_writable_again() {
    let faults = IoFaults::new();
    let mut server = server_with(&faults).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(30).await;
            let file = format!("{}/", server.data().display());
            faults.set(&IoFault { what: What::IsReadOnly, calls: Calls::Writes, file, times: None });
            load.failed(20).await;
            until("a client is told", async || is_refused(&register(&server).await, "storage_read_only"))
                .await;
            is_told(&server, "key_store", "read_only").await;
            faults.heal();
            heals(&server).await;
            load.done(30).await;
        })
        .await;
    checker::check(&mut server, None, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_a_every_write_of_every_store_fails_in_every_way() {
    let faults = IoFaults::new();
    let mut server = server_with(&faults).await;
    let mut history = History::new(&server).await;
    let mut hit = 0;
    history
        .during(&[&server], async |load| {
            load.done(30).await;
            for file in [
                "journal.db-wal",
                "journal.db",
                "keys.db-wal",
                "keys.db",
                "read-models.db-wal",
                "read-models.db",
            ] {
                for (what, calls, times) in [
                    (What::Fails, Calls::Writes, Some(1)),
                    (What::Fails, Calls::Writes, None),
                    (What::IsFull, Calls::Writes, Some(1)),
                    (What::IsFull, Calls::Writes, None),
                    (What::IsShort, Calls::Writes, None),
                    (What::IsSlow, Calls::Writes, Some(6)),
                    (What::Fails, Calls::Syncs, Some(1)),
                    (What::Fails, Calls::Syncs, None),
                    (What::IsSlow, Calls::Syncs, Some(6)),
                    (What::Fails, Calls::Truncates, None),
                ] {
                    let is_log = file.ends_with("-wal");
                    // The database itself is written only when its log has grown, which fails no append.
                    if !is_log && (calls == Calls::Truncates || (what == What::Fails) == times.is_some()) {
                        continue;
                    }
                    let fault = IoFault { what, calls, file: file.to_owned(), times };
                    println!("{fault:?}");
                    faults.set(&fault);
                    // The logs of the two are written by every registration; the rest only now and then.
                    let is_needed = ["journal.db-wal", "keys.db-wal"].contains(&file);
                    let fails = matches!(what, What::Fails | What::IsFull) && calls != Calls::Truncates;
                    if is_needed && fails && times.is_none() {
                        load.failed(6).await;
                        until("it is not ready", async || !is_ready(&server).await).await;
                    } else {
                        load.done(8).await;
                    }
                    // The key store grows too slowly.
                    if !is_log && file != "keys.db" {
                        until("it happens", async || faults.hits() > 0).await;
                    }
                    hit += u32::from(faults.hits() > 0);
                    faults.heal();
                    until("it is ready again", async || is_ready(&server).await).await;
                    load.done(4).await;
                }
            }
        })
        .await;
    assert!(hit > 24, "only {hit} faults happened to a call");
    checker::check(&mut server, None, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_answers_is_what_clients_hear() {
    let faults = IoFaults::new();
    let server = server_with(&faults).await;
    for (file, store) in [("journal.db-wal", "journal"), ("keys.db-wal", "key_store")] {
        for (what, state, code) in
            [(What::IsFull, "full", "storage_full"), (What::Fails, "failing", "outcome_unknown")]
        {
            let fault = IoFault { what, calls: Calls::Writes, file: file.to_owned(), times: None };
            faults.set(&fault);
            // Whoever only looks finds out, too: no request has failed yet.
            is_told(&server, store, state).await;
            let answer = register(&server).await;
            // Without its key nothing was tried.
            let code = if store == "key_store" && what == What::Fails { "unavailable" } else { code };
            assert!(is_refused(&answer, code), "{fault:?}: {}", answer.text);
            assert!(answer.header("retry-after").is_some(), "{fault:?}");
            faults.heal();
            heals(&server).await;
        }
    }
}

/// Somebody has the file locked, such as a program for backups: nobody waits for it longer than 5 seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_another_process_keeps_nobody_waiting() {
    use sqlx::{ConnectOptions, Connection, Executor};
    const LONGEST: Duration = Duration::from_secs(5);
    let server = Server::start_with(&SETTINGS).await;
    for (file, store) in [("journal.db", "journal"), ("keys.db", "key_store")] {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(server.data().join(file));
        let mut other = options.connect().await.expect("it can be opened");
        other.execute("BEGIN IMMEDIATE").await.expect("it can be locked");
        let calls = (0..8).map(|_| async {
            let begun = std::time::Instant::now();
            (register(&server).await, begun.elapsed())
        });
        let stalls = tests::stalls::Watch::start();
        let answers = futures::future::join_all(calls).await;
        let stood_still = !stalls.stop().is_empty();
        for (answer, took) in answers {
            assert!(is_refused(&answer, "unavailable"), "{store}: {}", answer.text);
            assert!(took < LONGEST || stood_still, "{store}: it took {took:?}");
        }
        is_told(&server, store, "locked").await;
        other.execute("ROLLBACK").await.expect("it can be unlocked");
        other.close().await.expect("it can be closed");
        heals(&server).await;
    }
}
