//! How far the read models lag behind what was acknowledged, at a steady rate of refreshes.
//!
//! The rate does not depend on response times: each request has a scheduled time, and its latency counts from then, so
//! that a stall affects all requests that fall into it. An event is applied when the checkpoint of the last projector
//! has reached it, which this polls in the database: rows and checkpoint are committed together. The time of a poll is
//! when its answer came in, so the figure is too large by up to one poll, never too small.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgConnection;
use tests::generator::{Client, Failure, Registered, per_second, quantiles, round, users};
use tokio::time::MissedTickBehavior;

use crate::cluster::Cluster;

/// Refreshes per second.
const RATE: u32 = 1000;
/// How many sessions share them, each with its own connection.
const SESSIONS: usize = 64;
/// How often the checkpoints are polled.
const LOOK: Duration = Duration::from_millis(2);
/// How long the read models may take to catch up after the last request is answered.
const PATIENCE: Duration = Duration::from_secs(20);

/// An acknowledged refresh.
struct Acknowledged {
    /// The event: this version of its session's stream.
    stream: String,
    version: i64,
    intended: Instant,
    at: Instant,
}

pub async fn measure(cluster: &Cluster, length: Duration) -> Result<Value, Failure> {
    let addresses = cluster.addresses();
    let sessions = users(&addresses[0], SESSIONS).await?;
    let (settled, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let watching = tokio::spawn(watch(cluster.connect().await?, Arc::clone(&settled), Arc::clone(&done)));
    let deadline = Instant::now() + PATIENCE;
    while !settled.load(Ordering::Relaxed) && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }

    let start = Instant::now() + Duration::from_millis(50);
    let mut workers = vec![];
    for (index, session) in sessions.into_iter().enumerate() {
        let address = Arc::clone(&addresses[index % addresses.len()]);
        workers.push(tokio::spawn(refresh(address, session, index, start, length)));
    }
    let mut acknowledged = vec![];
    for worker in workers {
        acknowledged.extend(worker.await??);
    }
    let rate = per_second(acknowledged.len() as u64, start);

    let positions = positions(&mut cluster.connect().await?).await?;
    let last = positions.values().copied().max().ok_or("there are no refreshes")?;
    let deadline = Instant::now() + PATIENCE;
    let mut connection = cluster.connect().await?;
    while look(&mut connection).await?.iter().any(|(_, position)| *position < last) {
        if Instant::now() > deadline {
            return Err("the read models do not catch up".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    // Ensures that a poll after they have caught up is recorded.
    tokio::time::sleep(10 * LOOK).await;
    done.store(true, Ordering::Relaxed);
    let seen = watching.await??;
    report(&acknowledged, &positions, &seen, rate)
}

fn report(
    acknowledged: &[Acknowledged],
    positions: &HashMap<(String, i64), i64>,
    seen: &Seen,
    rate: f64,
) -> Result<Value, Failure> {
    let (mut answered, mut lags, mut whole) = (vec![], vec![], vec![]);
    let mut by_projector: HashMap<&str, Vec<Duration>> = HashMap::new();
    for refresh in acknowledged {
        let key = (refresh.stream.clone(), refresh.version);
        let position = *positions.get(&key).ok_or("an acknowledged refresh is not in the journal")?;
        let mut applied = refresh.at;
        for (projector, steps) in &seen.steps {
            let step = steps.partition_point(|(_, reached)| *reached < position);
            let (at, _) = *steps.get(step).ok_or("an event was never seen applied")?;
            by_projector.entry(projector).or_default().push(at.saturating_duration_since(refresh.at));
            applied = applied.max(at);
        }
        answered.push(refresh.at.saturating_duration_since(refresh.intended));
        lags.push(applied.saturating_duration_since(refresh.at));
        whole.push(applied.saturating_duration_since(refresh.intended));
    }
    let projectors: Value = by_projector
        .into_iter()
        .map(|(name, lags)| (name.to_owned(), quantiles(lags)["p99_ms"].clone()))
        .collect();
    Ok(json!({
        "wanted_per_second": RATE, "per_second": round(rate), "requests": acknowledged.len(),
        "answered_after_intended": quantiles(answered),
        "applied_after_acknowledged": quantiles(lags),
        "applied_after_intended": quantiles(whole),
        "applied_after_acknowledged_p99_ms": projectors,
        "between_looks": quantiles(seen.pauses.clone()),
    }))
}

/// Every [`SESSIONS`]th request of the rate.
async fn refresh(
    address: Arc<str>,
    session: Registered,
    index: usize,
    start: Instant,
    length: Duration,
) -> Result<Vec<Acknowledged>, Failure> {
    let mut client = Client::connect(&address).await?;
    let stream = format!("session-{}", session.session);
    let mut token = session.refresh;
    let (step, mut acknowledged) = (Duration::from_secs(1) / RATE, vec![]);
    let (mut number, stride) = (u32::try_from(index)?, u32::try_from(SESSIONS)?);
    while step * number < length {
        let intended = start + step * number;
        tokio::time::sleep_until(intended.into()).await;
        client.refresh(&mut token).await?;
        // Version 1 is its start.
        let version = i64::try_from(acknowledged.len())? + 2;
        acknowledged.push(Acknowledged { stream: stream.clone(), version, intended, at: Instant::now() });
        number += stride;
    }
    Ok(acknowledged)
}

/// The position of each refresh in the journal, by stream and version.
async fn positions(connection: &mut PgConnection) -> Result<HashMap<(String, i64), i64>, Failure> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT stream, version, position FROM watchword.events WHERE type = 'SessionRefreshed'",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(stream, version, position)| ((stream, version), position)).collect())
}

/// The observed progress of the projectors.
struct Seen {
    /// For each projector, when it was first seen at each position.
    steps: HashMap<String, Vec<(Instant, i64)>>,
    /// The times between polls.
    pauses: Vec<Duration>,
}

async fn watch(
    mut connection: PgConnection,
    settled: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
) -> Result<Seen, Failure> {
    let mut seen = Seen { steps: HashMap::new(), pauses: vec![] };
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let head: i64 =
        sqlx::query_scalar("SELECT max(position) FROM watchword.events").fetch_one(&mut connection).await?;
    let mut last = Instant::now();
    while !done.load(Ordering::Relaxed) {
        looks.tick().await;
        let found = look(&mut connection).await?;
        let now = Instant::now();
        if settled.load(Ordering::Relaxed) {
            seen.pauses.push(now - last);
        } else if !found.is_empty() && found.iter().all(|(_, position)| *position >= head) {
            settled.store(true, Ordering::Relaxed);
        }
        last = now;
        for (projector, position) in found {
            let steps = seen.steps.entry(projector).or_default();
            if steps.last().is_none_or(|(_, before)| *before < position) {
                steps.push((now, position));
            }
        }
    }
    Ok(seen)
}

async fn look(connection: &mut PgConnection) -> Result<Vec<(String, i64)>, Failure> {
    let rows = sqlx::query_as("SELECT projector, position FROM watchword_read.checkpoints")
        .fetch_all(connection)
        .await?;
    Ok(rows)
}
