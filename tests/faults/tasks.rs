//! Background tasks panic: each is started again, nothing is lost, and one that fails again and again ends the process.
//! The tasks are those that the server lists, so that a new one is tested without a change here.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use test_services::{Nats, Postgres};
use tests::workload::History;
use tests::{Bus, PASSWORD, PATIENCE, Server, checker, email};

use crate::postgres::node;
use crate::{Random, SETTINGS, server_of, until};

/// Tasks fail here once the process serves: one that fails while the stores are opened ends the start.
const FAIL: &str = "FAILPOINTS_IN_SERVICE";
/// The longest pause before a task is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many processes fail at a time.
const AT_ONCE: usize = 4;

/// One hashing thread, so that the test's logins reach it, and a second address.
fn settings(internal: &str) -> [(&str, &str); 2] {
    [("WATCHWORD_PASSWORD_HASHING_THREADS", "1"), ("WATCHWORD_INTERNAL_LISTEN", internal)]
}

/// The tasks, as the platform sees them; none while the server does not answer.
async fn tasks(server: &Server) -> Vec<Value> {
    let asked = server.client().get(server.url("/readyz")).bearer_auth(server.platform_key()).send().await;
    let Ok(answer) = asked else { return vec![] };
    let body: Value = serde_json::from_str(&answer.text().await.unwrap_or_default()).unwrap_or_default();
    body["checks"]["tasks"]["list"].as_array().cloned().unwrap_or_default()
}

async fn names(server: &Server) -> BTreeSet<String> {
    let tasks = tasks(server).await;
    tasks.iter().map(|task| task["name"].as_str().expect("a name").to_owned()).collect()
}

/// Makes each of these tasks panic once, after some of its steps.
fn once_each(names: &BTreeSet<String>, random: &mut Random) -> String {
    let one = |name: &String| format!("task-{name}={}*off->1*return", 1 + random.next() % 30);
    names.iter().map(one).collect::<Vec<_>>().join(";")
}

/// Whether all of these tasks run, and each was started again.
async fn are_back(server: &Server, names: &BTreeSet<String>) -> bool {
    let tasks = tasks(server).await;
    let back = tasks.iter().filter(|task| task["ok"] == true && task["restarts"].as_u64() > Some(0));
    back.map(|task| task["name"].as_str().expect("a name").to_owned()).collect::<BTreeSet<_>>() == *names
}

/// What the log says of failures: the task and the pause that followed.
fn failures(log: &str) -> Vec<(String, Duration)> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let failures = lines.filter_map(|line| {
        let pause = line["pause"].as_str()?;
        let (number, unit) = pause.split_at(pause.find(|c: char| c.is_alphabetic())?);
        let seconds = number.parse::<f64>().ok()? / if unit == "ms" { 1000.0 } else { 1.0 };
        Some((line["task"].as_str()?.to_owned(), Duration::from_secs_f64(seconds)))
    });
    failures.collect()
}

/// Every task of these servers panics under load, and is back.
async fn all_come_back(mut servers: Vec<Server>, bus: &Bus) {
    let mut random = Random::new();
    let mut history = History::new(&servers[0]).await;
    let mut all = vec![];
    for server in &mut servers {
        let names = names(server).await;
        assert!(names.len() >= 5, "{names:?}");
        assert!(server.terminate().await.success());
        server.expect_panics();
        server.set_environment(FAIL, &once_each(&names, &mut random));
        all.push(names);
    }
    for server in &mut servers {
        server.up_alive().await;
    }
    let commands: Vec<&Server> = servers.iter().take(1).collect();
    history
        .during(&commands, async |load| {
            for (server, names) in servers.iter().zip(&all) {
                until("every task was started again", async || are_back(server, names).await).await;
            }
            load.done(30).await;
        })
        .await;
    for (server, names) in servers.iter().zip(&all) {
        // A thread of its own writes the log, and has failed, too.
        until("the log names each", async || {
            let failures = failures(&server.log());
            failures.into_iter().map(|(task, _)| task).collect::<BTreeSet<_>>() == *names
        })
        .await;
        let failures = failures(&server.log());
        let late = failures.iter().find(|(_, pause)| *pause > LONGEST_PAUSE);
        assert!(late.is_none(), "{late:?}");
        let metrics = server.metrics().await;
        for name in names {
            let counted = format!("watchword_task_restarts_total{{task=\"{name}\"}} ");
            assert!(metrics.lines().any(|line| line.starts_with(&counted)), "{counted}");
        }
    }
    let doctor = servers[0].command(&["doctor"]).output().expect("it runs");
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    if servers.len() == 1 {
        assert!(told.contains("mailer runs, but has failed 1 times"), "{told}");
    }
    for server in &mut servers {
        assert!(server.terminate().await.success());
        server.set_environment(FAIL, "");
        server.up().await;
    }
    let mut first = servers.remove(0);
    checker::check(&mut first, Some(bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_panics_and_is_back() {
    let bus = Bus::start();
    let internal = format!("127.0.0.1:{}", tests::free_port());
    let server = server_of(&bus, &settings(&internal)).await;
    all_come_back(vec![server], &bus).await;
}

/// The same with journal and read models in PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn every_task_of_a_node_panics_and_is_back() {
    let bus = Bus::start();
    let node = node(&Postgres::shared().database(), &bus).await;
    all_come_back(vec![node], &bus).await;
}

/// A process that is about to end by itself.
struct Failing {
    server: Server,
    child: Child,
    said: File,
}

impl Failing {
    /// A server of which this task fails at each step.
    fn start(nats: &Nats, task: &str, internal: &str) -> Self {
        let (url, always) = (nats.url(), format!("task-{task}=return"));
        let own = [("WATCHWORD_NATS_URL", url.as_str()), (FAIL, always.as_str())];
        let server = Server::new(&[&SETTINGS[..], &settings(internal), &own].concat());
        let said = tempfile::NamedTempFile::new().expect("a file").into_file();
        let output = || Stdio::from(said.try_clone().expect("a handle"));
        let mut command = server.command(&["serve"]);
        let child =
            command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn().expect("it starts");
        Self { server, child, said }
    }

    fn log(&self) -> String {
        use std::os::unix::fs::FileExt as _;
        let mut text =
            vec![0; usize::try_from(self.said.metadata().expect("a length").len()).expect("small")];
        let read = self.said.read_at(&mut text, 0).expect("it can be read");
        String::from_utf8_lossy(&text[..read]).into_owned()
    }

    /// Waits until it has ended, and asks it for hashes meanwhile.
    async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let register = self.server.url("/v1/apps/default/auth/register");
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "it has not ended:\n{}", self.log());
            let body = json!({ "email": email("hash"), "password": PASSWORD });
            let _ = self.server.client().post(&register).json(&body).send().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_twenty_times_in_a_row_ends_the_process() {
    let bus = Bus::start();
    let internal = format!("127.0.0.1:{}", tests::free_port());
    let server = server_of(&bus, &settings(&internal)).await;
    let names: Vec<String> = names(&server).await.into_iter().collect();
    drop(server);
    for some in names.chunks(AT_ONCE) {
        join_all(some.iter().map(|name| ends_by(&bus, name))).await;
    }
}

async fn ends_by(nats: &Nats, task: &str) {
    let internal = format!("127.0.0.1:{}", tests::free_port());
    let mut failing = Failing::start(nats, task, &internal);
    let status = failing.ended().await;
    let log = failing.log();
    assert_eq!(status.code(), Some(1), "{task}: {log}");
    let why = format!("the background task {task} failed 20 times in a row: it panicked");
    assert!(log.contains(&why), "{task}: {log}");
}

/// A writer that fails does not let a second server open the folder.
#[tokio::test(flavor = "multi_thread")]
async fn the_lock_is_kept_while_the_writer_fails() {
    let bus = Bus::start();
    let internal = format!("127.0.0.1:{}", tests::free_port());
    let mut failing = Failing::start(&bus, "journal_writer", &internal);
    let restarts = |log: &str| failures(log).len();
    until("the writer has failed a few times", async || restarts(&failing.log()) >= 3).await;
    let second = || {
        let mut command = failing.server.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.env_remove("WATCHWORD_INTERNAL_LISTEN").env(FAIL, "");
        command.output().expect("it runs")
    };
    for _ in 0..3 {
        let refused = second();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let runs = failing.child.try_wait().expect("it can be waited for").is_none();
        assert!(runs, "the first server ended before the second one was refused: {said}");
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("in use") || said.contains("another process"), "{said}");
    }
    // It says that it cannot do its work.
    let status = failing.ended().await;
    assert_eq!(status.code(), Some(1));
}
