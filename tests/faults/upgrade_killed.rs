//! The upgrade that adds MACs to older events is killed, at each of its steps and at random moments: it continues where
//! it was, and ends as if nothing had happened.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use test_services::Postgres;
use tests::Server;

use crate::old_data::{expected, restore, unpack};
use crate::steps::ABORTED;
use crate::{Random, SETTINGS};

const STEPS: [&str; 2] = ["before-upgrade-commit", "before-mark"];

/// Makes the upgrade of a short journal take many transactions.
const BATCH: &str = "upgrade-batch=return(20)";

/// A server whose journal can be reset to what version 0.1 left, and compared with another.
trait Old {
    fn server(&self) -> &Server;

    /// Resets it, as if it had never been upgraded.
    async fn put_back(&mut self);

    /// The whole journal, byte for byte.
    async fn dump(&self) -> String;
}

struct Folder {
    server: Server,
    old: PathBuf,
}

impl Old for Folder {
    fn server(&self) -> &Server {
        &self.server
    }

    async fn put_back(&mut self) {
        let _ = fs::remove_dir_all(self.server.data());
        let copied = Command::new("cp").arg("-a").arg(&self.old).arg(self.server.data()).status();
        assert!(copied.expect("cp runs").success());
    }

    async fn dump(&self) -> String {
        let path = self.server.data().join("journal.db");
        let mut file = SqliteConnectOptions::new().filename(path).connect().await.expect("it opens");
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
        let tables: Vec<String> =
            sqlx::query_scalar(tables).fetch_all(&mut file).await.expect("it has tables");
        let made = "SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name";
        let mut lines: Vec<String> =
            sqlx::query_scalar(made).fetch_all(&mut file).await.expect("it has a schema");
        lines.push(
            sqlx::query_scalar("SELECT user_version FROM pragma_user_version")
                .fetch_one(&mut file)
                .await
                .map(|version: i64| format!("format {version}"))
                .expect("it has a format"),
        );
        for table in tables {
            let columns = format!(
                "SELECT group_concat('quote(\"' || name || '\")', ' || ' || char(39) || '|' || char(39) || ' || ') FROM pragma_table_info('{table}')"
            );
            let columns: String = sqlx::query_scalar(AssertSqlSafe(columns))
                .fetch_one(&mut file)
                .await
                .expect("it has columns");
            let rows = AssertSqlSafe(format!("SELECT {columns} AS line FROM {table} ORDER BY line"));
            lines.push(table);
            lines.extend(
                sqlx::query_scalar::<_, String>(rows).fetch_all(&mut file).await.expect("it has rows"),
            );
        }
        file.close().await.expect("it closes");
        lines.join("\n")
    }
}

struct Database {
    server: Server,
    /// The original, which is copied.
    old: String,
    now: String,
}

impl Old for Database {
    fn server(&self) -> &Server {
        &self.server
    }

    async fn put_back(&mut self) {
        let postgres = Postgres::shared();
        self.now = postgres.copy(&self.old);
        self.server.set_environment("WATCHWORD_JOURNAL_URL", &self.now);
    }

    async fn dump(&self) -> String {
        let tables = "SELECT relname FROM pg_class WHERE relnamespace = 'watchword'::regnamespace AND relkind = 'r' ORDER BY 1";
        let triggers = "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1";
        let tables = Postgres::shared().psql(&self.now, tables);
        let mut dump = Postgres::shared().psql(&self.now, triggers);
        for table in tables.lines() {
            // The end of a lease differs in each run.
            let row = if table == "effects" { "(name, position, epoch, holder)" } else { "t" };
            let rows = format!("SELECT {row}::text FROM watchword.{table} t ORDER BY 1");
            dump = dump + table + "\n" + &Postgres::shared().psql(&self.now, &rows);
        }
        dump
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_of_a_folder_is_killed() {
    let server = Server::new(&SETTINGS);
    let folder = server.data().parent().expect("it is in a folder").to_owned();
    unpack("2026-11-28.sqlite.tar.gz", &folder);
    let old = folder.join("old");
    fs::rename(server.data(), &old).expect("it can be moved");
    let mut journal = Folder { server, old };
    dies(&mut journal, &expected(&folder)).await;

    let server = &journal.server;
    // An old checksum no longer proves anything.
    let path = server.data().join("journal.db");
    let mut file = SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let put = format!(
        "ATTACH '{}' AS old; DROP TRIGGER events_are_never_changed;
         UPDATE events SET mac = (SELECT checksum FROM old.events WHERE position = 3) WHERE position = 3; DETACH old",
        journal.old.join("journal.db").display()
    );
    sqlx::raw_sql(AssertSqlSafe(put)).execute(&mut file).await.expect("it can be changed");
    file.close().await.expect("it closes");
    tells(server, "event 3 ");

    // Nothing restores a state without MACs, not even the old journal beside the new key store.
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(server.data().join(format!("journal.db{suffix}")));
        let _ = fs::copy(
            journal.old.join(format!("journal.db{suffix}")),
            server.data().join(format!("journal.db{suffix}")),
        );
    }
    refuses(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_of_a_database_is_killed() {
    let old = Postgres::shared().database();
    let mut server = Server::new(&[&SETTINGS[..], &[("WATCHWORD_JOURNAL_URL", old.as_str())]].concat());
    let folder = server.data().parent().expect("it is in a folder").to_owned();
    let expected = restore(&mut server, &old, &folder);
    let mut journal = Database { server, now: old.clone(), old };
    dies(&mut journal, &expected).await;

    let checksum = Postgres::shared()
        .psql(&journal.old, "SELECT encode(checksum, 'hex') FROM watchword.events WHERE position = 3");
    let put = format!(
        "ALTER TABLE watchword.events DISABLE TRIGGER USER;
         UPDATE watchword.events SET mac = '\\x{}' WHERE position = 3",
        checksum.trim()
    );
    Postgres::shared().psql(&journal.now, &put);
    tells(&journal.server, "event 3 ");
    Postgres::shared().psql(&journal.now, "UPDATE watchword.format SET version = 4");
    refuses(&journal.server);
}

fn refuses(server: &Server) {
    let refused = server.command(&["migrate"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("carry no MAC"), "{text}");
    let doctor = server.command(&["doctor"]).output().expect("it runs");
    assert!(!doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}

fn tells(server: &Server, what: &str) {
    let doctor = server.command(&["doctor"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&doctor.stdout);
    let told = text.lines().any(|line| line.contains(what) && line.contains("checksum"));
    assert!(!doctor.status.success() && told, "{text}");
}

/// Upgrades the same journal repeatedly, first without interruption, then interrupted. The result is always the same.
async fn dies(journal: &mut impl Old, expected: &Value) {
    tests::binary();
    let mut took = Duration::MAX;
    let mut whole = vec![];
    for _ in 0..3 {
        journal.put_back().await;
        let old = journal.dump().await;
        let begun = Instant::now();
        migrates(journal.server());
        took = took.min(begun.elapsed());
        whole = upgraded(journal).await;
        assert_ne!(whole.join("\n"), old);
    }
    for step in STEPS {
        journal.put_back().await;
        let died = migrate(journal.server(), &format!("{BATCH};{step}=return")).output().expect("it runs");
        assert_eq!(died.status.signal(), Some(ABORTED), "{step}: {}", String::from_utf8_lossy(&died.stderr));
        migrates(journal.server());
        same(&upgraded(journal).await, &whole, step);
    }
    let mut random = Random::new();
    let mut killed = 0;
    for round in 0..20 {
        journal.put_back().await;
        let mut child = migrate(journal.server(), BATCH).spawn().expect("it runs");
        random.moment(took).await;
        let _ = child.kill();
        killed += u32::from(!child.wait().expect("it ends").success());
        migrates(journal.server());
        same(&upgraded(journal).await, &whole, &format!("kill {round}"));
    }
    assert!(killed > 0, "some are killed before they have ended");
    let server = journal.server();
    let doctor = server.command(&["doctor"]).output().expect("it runs");
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
    let exported = server.command(&["export"]).output().expect("it runs");
    let lines = String::from_utf8(exported.stdout).expect("it is text");
    let ids: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("it is JSON")["id"].clone())
        .collect();
    let then = expected["events"].as_array().expect("a list");
    for (id, event) in ids.iter().zip(then) {
        assert_eq!(*id, event["id"]);
    }
    assert!(ids.len() >= then.len());
}

/// An upgraded journal without the event, and its claim, that gives it its origin, and the one that gives it its first key for
/// checkpoints: they differ in each run.
async fn upgraded(journal: &impl Old) -> Vec<String> {
    let dump = journal.dump().await;
    let (origin, rest): (Vec<_>, Vec<_>) = dump.lines().partition(|line| line.contains("journal-"));
    assert_eq!(origin.len(), 3, "once: {origin:?}");
    rest.into_iter().map(str::to_owned).collect()
}

#[track_caller]
fn same(found: &[String], whole: &[String], after: &str) {
    let differing = found.iter().zip(whole).find(|(found, whole)| found != whole);
    assert_eq!(differing, None, "after {after}");
    assert_eq!(found.len(), whole.len(), "after {after}");
}

fn migrate(server: &Server, fail_points: &str) -> Command {
    let mut command = server.command(&["migrate"]);
    command.env("FAILPOINTS", fail_points);
    command
}

fn migrates(server: &Server) {
    let migrated = migrate(server, BATCH).output().expect("it runs");
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
}
