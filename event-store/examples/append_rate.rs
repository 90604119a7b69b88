//! Compares the append rate of the PostgreSQL journal with plain multi-row inserts on the same server: `cargo run
//! --release -p event-store --example append_rate`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_store::contract::{append, event, stream};
use event_store::{Journal, PostgresJournal, PostgresSettings};
use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor};
use test_services::Postgres;
use uuid::Uuid;

const BATCH: usize = 128;
const TIME: Duration = Duration::from_secs(4);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Postgres::start();
    let database = server.database();
    let journal = PostgresJournal::open(
        &database.parse()?,
        PostgresSettings::default(),
        &event_store::contract::macs(),
    )
    .await?;
    let journal = Arc::new(journal);
    // Alternating, so that other load on the machine affects both.
    for round in 1..=3 {
        let raw = raw(&database).await?;
        let appended = appends(&journal, round).await?;
        println!("raw inserts {raw:.0}/s, appends {appended:.0}/s, {:.2} of it", appended / raw);
    }
    Ok(())
}

/// Rows like events, with the same keys, in statements of [`BATCH`] rows, each committed.
async fn raw(database: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let options: PgConnectOptions = database.parse()?;
    let mut connection = options.connect().await?;
    connection.execute("CREATE TABLE IF NOT EXISTS raw (LIKE watchword.events INCLUDING ALL)").await?;
    let mut position: i64 = sqlx::query_scalar("SELECT count(*) FROM raw").fetch_one(&mut connection).await?;
    let metadata = serde_json::to_string(&append(&stream("x"), 0, 1).metadata)?;
    let (started, before) = (Instant::now(), position);
    while started.elapsed() < TIME {
        let events: Vec<_> = (0..BATCH).map(|_| event()).collect();
        let positions: Vec<i64> = (1..).map(|offset| position + offset).take(BATCH).collect();
        let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        let streams: Vec<String> = ids.iter().map(|id| format!("user-{id}")).collect();
        let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
        sqlx::query(
            "INSERT INTO raw SELECT position, id, stream, 1, 'AppEnabled', 1, 0, 'default', $5, data, NULL, NULL,
                 '\\x00112233445566778899aabbccddeeff'
             FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[]) n (position, id, stream, data)",
        )
        .bind(&positions)
        .bind(&ids)
        .bind(&streams)
        .bind(&data)
        .bind(&metadata)
        .execute(&mut connection)
        .await?;
        position += i64::try_from(BATCH)?;
    }
    Ok(rate(u64::try_from(position - before)?, started))
}

/// As many concurrent callers, each appending one event at a time to its own streams, guarded by another stream.
async fn appends(journal: &Arc<PostgresJournal>, round: u32) -> Result<f64, Box<dyn std::error::Error>> {
    let guard = (stream("guard"), journal.versions(&[stream("guard")]).await?[0]);
    let (started, before) = (Instant::now(), journal.head().await?);
    let caller = |number: usize| {
        let (journal, guard) = (Arc::clone(journal), guard.clone());
        tokio::spawn(async move {
            let own = stream(&format!("{round}-{number}-{}", event().id));
            let mut version = 0;
            while started.elapsed() < TIME {
                let mut append = append(&own, version, 1);
                append.guards.push(guard.clone());
                journal.append(append).await.expect("appends");
                version += 1;
            }
        })
    };
    for ended in join_all((0..2 * BATCH).map(caller)).await {
        ended?;
    }
    Ok(rate(journal.head().await? - before, started))
}

#[expect(clippy::cast_precision_loss, reason = "shown without decimals")]
fn rate(count: u64, started: Instant) -> f64 {
    count as f64 / started.elapsed().as_secs_f64()
}
