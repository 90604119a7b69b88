//! `/readyz` against the truth, over random sequences of faults: whenever an append would fail for longer than five
//! seconds it is 503, and never longer than five seconds after it would succeed again. Sometimes clients write
//! meanwhile, and sometimes nobody but `/readyz` finds out.

use std::fs;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use test_services::{Calls, IoFault, IoFaults, What};
use tests::stalls::Watch;
use tests::workload::History;
use tests::{Server, checker};

use crate::Random;
use crate::storage::{register, server_with};

/// How many faults come one after the other.
const STEPS: usize = 16;
/// The promise.
const PROMISE: Duration = Duration::from_secs(5);
/// For how long it must stay so.
const STAYS: Duration = Duration::from_secs(1);

/// What keeps appends from succeeding while it lasts.
enum Fault {
    /// The calls of the process fail.
    Calls,
    /// Another process has a lock.
    Lock(SqliteConnection),
    /// A file is elsewhere.
    Moved(&'static str),
}

struct World<'a> {
    server: &'a Server,
    faults: &'a IoFaults,
    random: Random,
}

impl World<'_> {
    async fn begin(&mut self) -> Fault {
        let data = format!("{}/", self.server.data().display());
        let of = |what, calls, file: &str| IoFault { what, calls, file: file.to_owned(), times: None };
        let calls = [
            of(What::Fails, Calls::Writes, "journal.db-wal"),
            of(What::Fails, Calls::Syncs, "journal.db-wal"),
            of(What::IsFull, Calls::Writes, "journal.db-wal"),
            of(What::IsFull, Calls::Writes, "keys.db-wal"),
            of(What::Fails, Calls::Syncs, "keys.db-wal"),
            of(What::IsReadOnly, Calls::Writes, &data),
            of(What::IsFull, Calls::Writes, &data),
        ];
        let chosen = usize::try_from(self.random.next() % (calls.len() as u64 + 4)).expect("a small number");
        match chosen.checked_sub(calls.len()) {
            None => {
                println!("{:?}", calls[chosen]);
                self.faults.set(&calls[chosen]);
                Fault::Calls
            }
            Some(file @ (0 | 1)) => {
                let file = ["journal.db", "keys.db"][file];
                println!("{file} is locked");
                let options = SqliteConnectOptions::new().filename(self.server.data().join(file));
                let mut other = options.busy_timeout(Duration::from_mins(1)).connect().await.expect("opened");
                other.execute("BEGIN IMMEDIATE").await.expect("locked");
                Fault::Lock(other)
            }
            Some(file) => {
                let file = ["journal.db", "keys.db"][file - 2];
                println!("{file} is moved away");
                self.rename(file, &format!("{file}.aside"));
                Fault::Moved(file)
            }
        }
    }

    async fn end(&self, fault: Fault) {
        match fault {
            Fault::Calls => self.faults.heal(),
            Fault::Lock(mut other) => {
                other.execute("ROLLBACK").await.expect("unlocked");
                other.close().await.expect("closed");
            }
            Fault::Moved(file) => self.rename(&format!("{file}.aside"), file),
        }
    }

    fn rename(&self, from: &str, to: &str) {
        let data = self.server.data();
        fs::rename(data.join(from), data.join(to)).expect("it can be moved");
    }

    /// From the promised time on it is, or is not, ready, and stays so.
    async fn is_soon(&self, ready: bool, writing: bool) {
        let (begun, watch) = (Instant::now(), Watch::start());
        let mut right_since: Option<Instant> = None;
        let outcome = loop {
            let (asked, answer) = (Instant::now(), self.server.get("/readyz").await);
            let is_right = (answer.status == 200) == ready;
            if is_right {
                if asked.duration_since(*right_since.get_or_insert(asked)) > STAYS {
                    break Ok(());
                }
            } else {
                right_since = None;
                if asked.duration_since(begun) > PROMISE {
                    break Err(answer.text);
                }
            }
            if writing {
                let status = register(self.server).await.status;
                assert!(ready || status == 503, "an append succeeded: {status}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let stood_still = !watch.stop().is_empty();
        if let Err(answer) = outcome {
            assert!(stood_still, "{PROMISE:?} later it should be ready: {ready}; but it says {answer}");
        }
        // Whatever the machine did, it comes in the end.
        crate::until("/readyz says the truth", async || {
            (self.server.get("/readyz").await.status == 200) == ready
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_the_truth_through_random_faults() {
    let faults = IoFaults::new();
    let mut server = server_with(&faults).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(30).await).await;
    let mut world = World { server: &server, faults: &faults, random: Random::new() };
    for _ in 0..STEPS {
        let writing = world.random.next().is_multiple_of(2);
        let fault = world.begin().await;
        world.is_soon(false, writing).await;
        world.end(fault).await;
        let writing = world.random.next().is_multiple_of(2);
        world.is_soon(true, writing).await;
        register(&server).await.expect(201);
    }
    history.during(&[&server], async |load| load.done(30).await).await;
    checker::check(&mut server, None, &history).await;
}
