//! How soon webhooks are sent events while one of ten receivers hangs, and how fast they catch up, compared with what this
//! machine's HTTP can do, measured in the same run.
//!
//! ```text
//! cargo run --release -p tests --bin webhooks [-- --check]
//! ```
//!
//! Starts a server and ten receivers. One of them reads every message and never answers.
//!
//! 1. *Delay*: `LOAD_EVENTS` (10 000) refreshes at `LOAD_PACE` (200) a second. The delay of a message is the time from its
//!    event's to its arrival, over the nine receivers that work.
//! 2. *Catching up*: one of the nine gets everything again by a replay. Its messages per second are compared with those that a
//!    bare client posts, of the same size and as many at a time, to the same receiver.
//!
//! Server, generator and receivers share the cores. Prints one JSON object. With `--check` it exits with 1 if the 99th
//! percentile of the delay exceeds a second, an event is missing, or one came out of its stream's order.

use std::collections::BTreeSet;
use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures::future::try_join_all;
use serde_json::json;
use tests::generator::{Client, Failure, Work, per_second, quantiles, round, users};
use tests::{Message, Reaction, Receiver, Server, assert_ordered, webhook_positions};

const RECEIVERS: usize = 10;
/// Who refreshes: each of them waits for its answer.
const CLIENTS: usize = 16;
/// How many messages a webhook is sent at a time.
const AT_ONCE: usize = 8;
/// The longest acceptable delay, at the 99th percentile.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// The longest time for each phase.
const LIMIT: Duration = Duration::from_mins(5);

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let number = |name: &str, default| env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default);
    let (events, pace): (u64, u64) = (number("LOAD_EVENTS", 10_000), number("LOAD_PACE", 200));
    let server = Server::start_with(&[
        ("WATCHWORD_ALLOWED_WEBHOOK_NETWORKS", "127.0.0.0/8"),
        ("WATCHWORD_LOG", "error"),
    ])
    .await;
    let address: Arc<str> = server.base().trim_start_matches("http://").into();
    let users = users(&address, CLIENTS).await?;
    let app = server.app("default");

    let mut receivers = Vec::new();
    for _ in 0..RECEIVERS {
        let receiver = Receiver::start().await;
        let (id, _) = app.webhook(&receiver.url(), &["session.*"]).await;
        receivers.push((receiver, id));
    }
    let (hanging, _) = receivers.pop().expect("there are ten");
    hanging.react(|_| Reaction::Hang);

    // Both clocks at one moment: messages have an instant, events a time.
    let (began, began_at) = both_clocks();
    let next = AtomicU64::new(0);
    let workers = users.into_iter().map(|user| {
        let (address, next) = (Arc::clone(&address), &next);
        async move {
            let (mut client, mut work) = (Client::connect(&address).await?, Work::Refresh(user.refresh));
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= events {
                    return Ok::<_, Failure>(());
                }
                let due = began + Duration::from_micros(number * 1_000_000 / pace);
                tokio::time::sleep_until(due.into()).await;
                client.work(&mut work).await?;
            }
        }
    });
    try_join_all(workers).await?;
    let rate = per_second(events, began);
    eprintln!("{events} events at {rate:.0}/s");

    let wanted = wanted(&server).await;
    let mut delays = Vec::new();
    let mut ordered = true;
    for (receiver, _) in &receivers {
        let messages = all_of(receiver, &wanted).await?;
        ordered &= std::panic::catch_unwind(|| assert_ordered(&messages)).is_ok();
        delays.extend(messages.iter().map(|message| delay(message, began, began_at)));
    }
    let hung = hanging.seen().len();
    delays.sort_unstable();
    let worst = delays[delays.len() * 99 / 100];
    eprintln!("delays of {} messages: 99% within {worst:?}", delays.len());

    // The rest is about one receiver: the others are busy no more.
    let (receiver, id) = receivers.swap_remove(0);
    let before = receiver.accepted().len();
    let began = Instant::now();
    let replay = app.post(&format!("admin/webhooks/{id}/replay")).bearer(&server.platform_key());
    replay.json(&json!({"from_position": 1})).await.expect_success();
    while receiver.accepted().len() < before + wanted.len() {
        if began.elapsed() > LIMIT {
            return Err("the replay did not end".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let caught_up = per_second(wanted.len() as u64, began);
    let body = receiver.accepted().last().expect("there are many").body.clone();
    let bare = bare_posts(&receiver.url(), &body, wanted.len()).await?;
    eprintln!("a replay: {caught_up:.0} messages/s; bare posts: {bare:.0}/s");

    let result = json!({
        "settings": {"events": events, "pace": pace, "receivers": RECEIVERS, "hanging": 1},
        "figures": {"events_per_second": round(rate), "delay": quantiles(delays), "asked_of_the_hanging_one": hung,
            "replay_per_second": round(caught_up), "bare_posts_per_second": round(bare)},
        "ratios": {"replay_to_bare_posts": round(caught_up / bare)},
        "in_order": ordered,
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    let is_good = worst <= LONGEST_DELAY && ordered;
    Ok(if is_good || !env::args().any(|it| it == "--check") { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The positions of the sessions' events, which every receiver is to be sent.
async fn wanted(server: &Server) -> BTreeSet<u64> {
    let app = server.app("default");
    let all = webhook_positions(server, &app, 0).await;
    let events = server.events().await;
    let begins = events.iter().rposition(|event| event["type"] == "WebhookCreated").expect("there are some");
    let is_of_session =
        |event: &&serde_json::Value| event["subject"].as_str().is_some_and(|it| it.starts_with("session-"));
    let of_sessions = events[begins..].iter().filter(is_of_session);
    of_sessions.filter_map(|event| event["position"].as_u64()).filter(|it| all.contains(it)).collect()
}

/// The first message of each event, once all have come.
async fn all_of(receiver: &Receiver, wanted: &BTreeSet<u64>) -> Result<Vec<Message>, Failure> {
    let began = Instant::now();
    loop {
        let (accepted, mut missing) = (receiver.accepted(), wanted.clone());
        let first: Vec<Message> =
            accepted.into_iter().filter(|message| missing.remove(&message.position())).collect();
        if first.len() == wanted.len() {
            return Ok(first);
        }
        if began.elapsed() > LIMIT {
            return Err(format!("only {} of {} events came", first.len(), wanted.len()).into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the times of events are compared with this machine's clock")]
fn both_clocks() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

/// How long after its event a message came.
fn delay(message: &Message, began: Instant, began_at: SystemTime) -> Duration {
    let at: jiff::Timestamp = message.event["time"].as_str().expect("a time").parse().expect("RFC 3339");
    let came = began_at + message.at.saturating_duration_since(began);
    came.duration_since(SystemTime::from(at)).unwrap_or_default()
}

/// Posts per second of a client that does nothing else.
async fn bare_posts(url: &str, body: &[u8], count: usize) -> Result<f64, Failure> {
    let (client, left) = (reqwest::Client::new(), AtomicU64::new(count as u64));
    let began = Instant::now();
    try_join_all((0..AT_ONCE).map(|_| {
        let (client, left) = (&client, &left);
        async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                client.post(url).body(body.to_vec()).send().await?.error_for_status()?;
            }
            Ok::<_, reqwest::Error>(())
        }
    }))
    .await?;
    Ok(per_second(count as u64, began))
}
