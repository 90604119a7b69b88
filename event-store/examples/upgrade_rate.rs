//! Measures how fast a journal without MACs is upgraded: `cargo run --release -p event-store --example upgrade_rate
//! [events]`.

use std::time::Instant;

use event_store::contract::{append, macs, macs_before_upgrade, stream};
use event_store::{Journal, PostgresJournal, PostgresSettings, SqliteJournal};
use sqlx::{ConnectOptions, Executor};
use test_services::Postgres;

const TOGETHER: usize = 500;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let events: usize = std::env::args().nth(1).map_or(Ok(200_000), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path, &macs()).await?;
    fill(&journal, events).await?;
    let mut file = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await?;
    // As the first format wrote them.
    file.execute("DROP TRIGGER events_are_never_changed; UPDATE events SET mac = NULL").await?;
    drop(file);
    let begun = Instant::now();
    SqliteJournal::open(&path, &macs_before_upgrade()).await?.close().await;
    tell("SQLite", events, begun);

    let server = Postgres::start();
    let database = server.database();
    let journal = PostgresJournal::open(&database.parse()?, PostgresSettings::default(), &macs()).await?;
    fill(&journal, events).await?;
    server.psql(
        &database,
        "SET search_path = watchword; ALTER TABLE events DISABLE TRIGGER USER; ALTER TABLE events ALTER COLUMN mac DROP NOT NULL;
         UPDATE events SET mac = NULL",
    );
    let begun = Instant::now();
    PostgresJournal::open(&database.parse()?, PostgresSettings::default(), &macs_before_upgrade())
        .await?
        .close()
        .await;
    tell("PostgreSQL", events, begun);
    Ok(())
}

async fn fill(journal: &dyn Journal, events: usize) -> Result<(), Box<dyn std::error::Error>> {
    for number in 0..events.div_ceil(TOGETHER) {
        journal.append(append(&stream(&number.to_string()), 0, TOGETHER)).await?;
    }
    journal.close().await;
    Ok(())
}

fn tell(store: &str, events: usize, begun: Instant) {
    let took = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "it is printed")]
    let rate = events as f64 / took;
    println!("{store}: {events} events in {took:.1} s, {rate:.0}/s");
}
