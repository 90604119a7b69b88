//! Load at a fixed pace: so many writes a second, each followed by a read with its consistency token.
//!
//! Unlike [`crate::workload`], it does not send as fast as it is answered, and expects success of every request: a read that
//! fails, or lacks what was acknowledged before it, fails the test.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use serde_json::{Value, json};

use crate::{Answer, App, PASSWORD, Server, Tokens, email};

/// How many register at once before the load begins.
const AT_ONCE: usize = 8;
/// One write in so many is a registration, and the others are refreshes.
const REGISTRATIONS: u64 = 5;
/// A session of so many refreshes is left: a page has room for no more of them.
const MOST_REFRESHES: u64 = 150;

/// So many writes and so many reads a second, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_second: u32,
    length: Duration,
    is_asked_for: bool,
}

impl Pace {
    /// A pace that a shared machine bears, or that of `REBUILD_PACE`, for `REBUILD_SECONDS`.
    pub fn given() -> Self {
        let number = |name: &str| {
            env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
        };
        let (pace, seconds) = (number("REBUILD_PACE"), number("REBUILD_SECONDS"));
        let length = Duration::from_secs(u64::from(seconds.unwrap_or(10)));
        Self { per_second: pace.unwrap_or(20), length, is_asked_for: pace.is_some() }
    }

    /// How many at once: enough if a write and its read take half a second.
    fn workers(self) -> usize {
        usize::try_from(self.per_second / 2).expect("a small number").max(4)
    }

    /// Runs the load on an app, which has no users yet: each write on one of the nodes, and its read on the next one.
    pub async fn run(self, nodes: &[&Server], app: &str) -> Done {
        let apps: Vec<App<'_>> = nodes.iter().map(|node| node.app(app)).collect();
        let (key, known) = (nodes[0].platform_key(), Known::default());
        let workers = (0..self.workers()).map(|index| {
            let (here, there) = (&apps[index % apps.len()], &apps[(index + 1) % apps.len()]);
            let (known, key) = (&known, key.as_str());
            async move {
                let user = here.register(&email("ada")).await;
                known.registrations.fetch_add(1, Ordering::Relaxed);
                Worker { here, there, key, known, user, refreshes: 0, slowest: Duration::ZERO }
            }
        });
        let workers = stream::iter(workers).buffer_unordered(AT_ONCE);
        let workers: Vec<Worker<'_>> = workers.collect().await;
        let tickets = Tickets { began: Instant::now(), pace: self, next: AtomicU64::new(0) };
        let slowest = join_all(workers.into_iter().map(|worker| worker.run(&tickets))).await;
        let done = Done {
            each: tickets.count(),
            took: tickets.began.elapsed(),
            slowest_read: slowest.into_iter().max().unwrap_or_default(),
        };
        println!("{done:?}");
        // Where nobody asks for a pace, the machine decides.
        let late = done.took.saturating_sub(self.length);
        assert!(!self.is_asked_for || late < self.length / 10, "the pace was not held: {late:?} late");
        done
    }
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// How many writes, and how many reads.
    pub each: u64,
    /// How long it took.
    pub took: Duration,
    /// The longest that a read took, with its wait for the read model.
    pub slowest_read: Duration,
}

/// Says when the next write is due.
struct Tickets {
    began: Instant,
    pace: Pace,
    next: AtomicU64,
}

impl Tickets {
    fn count(&self) -> u64 {
        u64::from(self.pace.per_second) * self.pace.length.as_secs()
    }

    /// The number of the next write, once it is due; `None` after the last.
    async fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.count() {
            return None;
        }
        let due = self.began + Duration::from_micros(number * 1_000_000 / u64::from(self.pace.per_second));
        tokio::time::sleep_until(due.into()).await;
        Some(number)
    }
}

/// What is acknowledged: a later read shows no less.
#[derive(Default)]
struct Known {
    registrations: AtomicU64,
    refreshes: AtomicU64,
}

struct Worker<'a> {
    here: &'a App<'a>,
    there: &'a App<'a>,
    key: &'a str,
    known: &'a Known,
    /// The user who was registered last, and how often its session was refreshed.
    user: Tokens,
    refreshes: u64,
    slowest: Duration,
}

impl Worker<'_> {
    /// Returns how long its slowest read took.
    async fn run(mut self, tickets: &Tickets) -> Duration {
        while let Some(number) = tickets.next().await {
            // Acknowledged before the write was sent, and so at positions before its own.
            let registrations = self.known.registrations.load(Ordering::Relaxed);
            let refreshes = self.known.refreshes.load(Ordering::Relaxed);
            let is_registration = number.is_multiple_of(REGISTRATIONS) || self.refreshes == MOST_REFRESHES;
            let written = if is_registration { self.register().await } else { self.refresh().await };
            let shown = (registrations + u64::from(is_registration), refreshes + u64::from(!is_registration));
            self.read(number, &written, shown).await;
        }
        self.slowest
    }

    async fn register(&mut self) -> Answer {
        let body = json!({"email": email("ada"), "password": PASSWORD});
        let written = self.here.post("auth/register").json(&body).await.expect(201);
        (self.user, self.refreshes) = (written.tokens(), 0);
        self.known.registrations.fetch_add(1, Ordering::Relaxed);
        written
    }

    async fn refresh(&mut self) -> Answer {
        let written = self.here.refresh(&self.user.refresh).await.expect(200);
        (self.user, self.refreshes) = (written.tokens(), self.refreshes + 1);
        self.known.refreshes.fetch_add(1, Ordering::Relaxed);
        written
    }

    /// Reads one of the read models, which must have what was written.
    async fn read(&mut self, number: u64, written: &Answer, (registrations, refreshes): (u64, u64)) {
        let user = &self.user.user_id;
        let path = match number % 3 {
            0 => "admin/users?limit=1".to_owned(),
            1 => "admin/stats?granularity=day".to_owned(),
            _ => format!("audit/events?user_id={user}&type=SessionStarted,SessionRefreshed&limit=200"),
        };
        let began = Instant::now();
        let read = self.there.get(&path).bearer(self.key);
        let read = read.header("consistency-token", written.consistency()).await.expect(200).json();
        self.slowest = self.slowest.max(began.elapsed());
        let is_there = match number % 3 {
            0 => read["total"].as_u64() >= Some(registrations),
            1 => sum(&read, "registrations") >= registrations && sum(&read, "refreshes") >= refreshes,
            // The session's start, and its refreshes so far.
            _ => read["items"].as_array().map(|items| items.len() as u64) == Some(1 + self.refreshes),
        };
        let expected = (registrations, refreshes, self.refreshes);
        assert!(is_there, "{path} is stale, it should have {expected:?}: {read}");
    }
}

/// The sum of figures of all days, each a number or numbers by kind.
fn sum(stats: &Value, member: &str) -> u64 {
    let number = |figure: &Value| match figure {
        Value::Object(kinds) => kinds.values().filter_map(Value::as_u64).sum(),
        other => other.as_u64().unwrap_or_default(),
    };
    stats["items"].as_array().into_iter().flatten().map(|day| number(&day[member])).sum()
}
