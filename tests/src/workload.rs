//! Recorded load: clients that register, log in, refresh, log out and are banned, and a record of every call with its
//! start, its end and its outcome: done, refused or unknown.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use crate::stalls::{Stall, Watch};
use crate::{App, Call, PASSWORD, PATIENCE, Server, Tokens, email};

/// The number of concurrent clients.
pub const CLIENTS: usize = 6;
/// How long a client waits after a server did not answer.
const PAUSE: Duration = Duration::from_millis(20);

/// What a call requested.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A registration of this address.
    Register(String),
    /// A login of this user.
    LogIn(String),
    /// A refresh of this session of this user.
    Refresh(String, String),
    /// `GET /me` with an access token of this session of this user.
    Me(String, String),
    /// The end of this session.
    LogOut(String),
    /// A ban of this user.
    Ban(String),
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was acknowledged, for some actions with tokens.
    Done(Option<Tokens>),
    /// It was refused with this status: nothing was done.
    Refused(u16),
    /// No answer came, or the server does not know: all of it was done, or nothing.
    Unknown,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Record {
    /// What it requested.
    pub action: Action,
    /// Before it was sent.
    pub began: Instant,
    /// After the answer was read.
    pub ended: Instant,
    /// The outcome of a call.
    pub outcome: Outcome,
}

/// Every call to one app, over all faults of a test.
pub struct History {
    /// The app.
    pub app: String,
    /// The calls.
    pub records: Vec<Record>,
    /// When the machine itself stood still.
    stalls: Vec<Stall>,
}

/// The progress of the load, for faults that wait for part of it.
#[derive(Default)]
pub struct Progress {
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl Progress {
    /// Waits until this many more calls are acknowledged.
    pub async fn done(&self, more: usize) {
        grows(&self.done, more, "are acknowledged").await;
    }

    /// Waits until this many more calls failed because the server is overloaded or gone.
    pub async fn failed(&self, more: usize) {
        grows(&self.failed, more, "fail").await;
    }
}

async fn grows(count: &AtomicUsize, more: usize, what: &str) {
    let (start, deadline) = (count.load(Ordering::Relaxed), Instant::now() + PATIENCE);
    while count.load(Ordering::Relaxed) < start + more {
        let came = count.load(Ordering::Relaxed) - start;
        assert!(Instant::now() < deadline, "only {came} of {more} calls {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl History {
    /// Creates an app for the load. Its refresh tokens have the longest grace period, so that a client that got no
    /// answer may ask again.
    pub async fn new(server: &Server) -> Self {
        let app = server.create_app(json!({"refresh_grace": 60})).await.id;
        Self { app, records: Vec::new(), stalls: Vec::new() }
    }

    /// Whether every call got an answer other than 5xx, except while the machine itself stood still. Prints those
    /// that did not.
    pub fn all_were_answered(&self) -> bool {
        let failed = |it: &&Record| matches!(it.outcome, Outcome::Unknown | Outcome::Refused(500..));
        let (excused, unanswered): (Vec<_>, Vec<_>) =
            self.records.iter().filter(failed).partition(|record| self.stalled(record));
        if !excused.is_empty() {
            eprintln!("{} calls were not answered while the machine stood still", excused.len());
        }
        for record in &unanswered {
            let Record { action, outcome, .. } = record;
            eprintln!("{action:?}, after {:?}: {outcome:?}", record.ended - record.began);
        }
        unanswered.is_empty()
    }

    /// The calls that took longer, except while the machine itself stood still.
    pub fn late(&self, bound: Duration) -> Vec<&Record> {
        let late = |it: &&Record| it.ended - it.began > bound && !self.stalled(it);
        self.records.iter().filter(late).collect()
    }

    fn stalled(&self, record: &Record) -> bool {
        self.stalls.iter().any(|(from, to)| record.began <= *to && *from <= record.ended)
    }

    /// Runs the load while `fault` runs, on all of these servers, and records it.
    pub async fn during<T>(&mut self, servers: &[&Server], fault: impl AsyncFnOnce(&Progress) -> T) -> T {
        let (stop, progress, watch) = (AtomicBool::new(false), Progress::default(), Watch::start());
        let clients = (0..CLIENTS).map(|index| {
            let server = servers[index % servers.len()];
            let app = server.app(&self.app);
            Client { platform_key: server.platform_key(), app, progress: &progress, records: Vec::new() }
                .run(index, &stop)
        });
        let fault = async {
            let result = fault(&progress).await;
            stop.store(true, Ordering::Relaxed);
            result
        };
        let (records, result) = tokio::join!(join_all(clients), fault);
        self.records.extend(records.into_iter().flatten());
        self.stalls.extend(watch.stop());
        result
    }
}

/// A call was not acknowledged.
struct NotDone;

struct Client<'a> {
    app: App<'a>,
    platform_key: String,
    progress: &'a Progress,
    records: Vec<Record>,
}

impl Client<'_> {
    async fn run(mut self, index: usize, stop: &AtomicBool) -> Vec<Record> {
        for life in index.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if self.one_life(life).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.records
    }

    /// What one user does, until a call fails. After everything that ends a session come attempts to use it.
    async fn one_life(&mut self, life: usize) -> Result<(), NotDone> {
        let app = self.app.clone();
        let address = email("load");
        let body = json!({"email": address, "password": PASSWORD});
        let register = app.post("auth/register").json(&body);
        let first = self.tokens(Action::Register(address.clone()), register).await?;
        let user = first.user_id.clone();
        let login = || (Action::LogIn(user.clone()), app.login(&address, PASSWORD));
        let refresh = |tokens: &Tokens| {
            (Action::Refresh(tokens.session.clone(), user.clone()), app.refresh(&tokens.refresh))
        };
        let me = |tokens: &Tokens| (Action::Me(tokens.session.clone(), user.clone()), app.me(&tokens.access));

        let (action, call) = login();
        let second = self.tokens(action, call).await?;
        let mut newest = first;
        for _ in 0..2 {
            let (action, call) = refresh(&newest);
            newest = self.tokens(action, call).await?;
        }
        if life.is_multiple_of(2) {
            // The refresh may come before the end of its session, but never after.
            let (action, call) = refresh(&second);
            let log_out = app.post("auth/logout").json(&json!({"refresh_token": second.refresh}));
            let (refreshed, ended) =
                tokio::join!(record(action, call), record(Action::LogOut(second.session.clone()), log_out));
            let last = match &refreshed.outcome {
                Outcome::Done(Some(tokens)) => tokens.clone(),
                _ => second,
            };
            let _ = self.keep(refreshed);
            self.keep(ended)?;
            for (action, call) in [me(&last), refresh(&last)] {
                let _ = self.call(action, call).await;
            }
        }
        if life.is_multiple_of(3) {
            let ban = app.post(&format!("admin/users/{user}/ban")).bearer(&self.platform_key);
            self.call(Action::Ban(user.clone()), ban.json(&json!({"reason": "load"}))).await?;
            for (action, call) in [me(&newest), refresh(&newest), login()] {
                let _ = self.call(action, call).await;
            }
        }
        Ok(())
    }

    /// Makes a call that returns tokens, and records it.
    async fn tokens(&mut self, action: Action, call: Call) -> Result<Tokens, NotDone> {
        self.call(action, call).await?.ok_or(NotDone)
    }

    /// Makes a call and records it.
    async fn call(&mut self, action: Action, call: Call) -> Result<Option<Tokens>, NotDone> {
        let record = record(action, call).await;
        self.keep(record)
    }

    fn keep(&mut self, record: Record) -> Result<Option<Tokens>, NotDone> {
        let outcome = record.outcome.clone();
        self.records.push(record);
        match outcome {
            Outcome::Done(tokens) => {
                self.progress.done.fetch_add(1, Ordering::Relaxed);
                return Ok(tokens);
            }
            Outcome::Unknown | Outcome::Refused(503) => {
                self.progress.failed.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Refused(_) => {}
        }
        Err(NotDone)
    }
}

/// Makes a call and records its outcome.
pub async fn record(action: Action, call: Call) -> Record {
    let began = Instant::now();
    let answer = call.attempt().await;
    let ended = Instant::now();
    let gives_tokens = matches!(action, Action::Register(_) | Action::LogIn(_) | Action::Refresh(..));
    let outcome = match answer {
        Ok(answer) if answer.status < 300 => Outcome::Done(gives_tokens.then(|| answer.tokens())),
        Ok(answer) if answer.json()["code"] == "outcome_unknown" => Outcome::Unknown,
        Ok(answer) => Outcome::Refused(answer.status),
        Err(_) => Outcome::Unknown,
    };
    Record { action, began, ended, outcome }
}
