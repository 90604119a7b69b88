//! How fast the server is, compared with the limits of its machine, measured in the same run.
//!
//! ```text
//! cargo run --release -p tests --bin load
//! ```
//!
//! Measures a raw batched append, then register and login between two measurements of raw argon2id, then refresh and
//! me, at concurrency 32 against a server that this program starts. Generator and server share the cores. Prints one
//! JSON object with figures per second and their ratios to the limits. `LOAD_SECONDS` (5) is the length of each
//! measurement.

use std::env;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, QueryBuilder, Sqlite, SqliteConnection};
use tests::Server;
use tests::generator::{
    CONCURRENCY, Failure, Work, argon2_cost, per_second, raw_hashes, resident_mib, round, run, users,
};

/// Rows of one raw commit, about as many as in a group commit at this concurrency.
const ROWS: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let seconds = env::var("LOAD_SECONDS").ok().and_then(|it| it.parse().ok()).unwrap_or(5);
    let length = Duration::from_secs(seconds);

    let rows = raw_append(length).await?;
    eprintln!("raw batched append: {rows:.0} rows/s");

    let cost = argon2_cost();
    let server = Server::start_with(&[("WATCHWORD_ARGON2", &cost), ("WATCHWORD_LOG", "warn")]).await;
    let address: Arc<str> = server.base().trim_start_matches("http://").into();
    let users = users(&address, CONCURRENCY).await?;
    let address = [address];

    // The limit before and after, as a machine's speed drifts.
    let before = raw_hashes(length);
    let register = run(&address, length, |_| Work::Register).await?;
    eprintln!("register: {register}");
    let login = run(&address, length, |index| Work::Login(users[index].email.clone())).await?;
    eprintln!("login: {login}");
    let hashes = f64::midpoint(before, raw_hashes(length));
    eprintln!("raw argon2id: {hashes:.1}/s");
    let refresh = run(&address, length, |index| Work::Refresh(users[index].refresh.clone())).await?;
    eprintln!("refresh: {refresh}");
    let me = run(&address, length, |index| Work::Me(users[index].access.clone())).await?;
    eprintln!("me: {me}");

    let rate = |figure: &Value| figure["per_second"].as_f64().unwrap_or(0.0);
    let result = json!({
        "settings": {"concurrency": CONCURRENCY, "seconds": seconds, "argon2": cost,
            "cores": thread::available_parallelism()?.get(), "memory_mib": resident_mib(server.pid())},
        "figures": {"raw_argon2id_per_second": round(hashes), "raw_append_rows_per_second": round(rows),
            "register": register, "login": login, "refresh": refresh, "me": me},
        "ratios": {"login_to_argon2id": round(rate(&login) / hashes), "register_to_argon2id": round(rate(&register) / hashes),
            "refresh_to_append": round(rate(&refresh) / rows)},
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

/// Rows per second into a table like the journal's, durable, [`ROWS`] a commit.
async fn raw_append(length: Duration) -> Result<f64, Failure> {
    let directory = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(directory.path().join("raw.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::query("CREATE TABLE events (position INTEGER PRIMARY KEY, stream TEXT, version INTEGER, data TEXT, UNIQUE (stream, version))")
        .execute(&mut connection)
        .await?;
    let data = "x".repeat(400);
    let (mut position, start) = (0_i64, Instant::now());
    while start.elapsed() < length {
        let first = position + 1;
        position += i64::try_from(ROWS)?;
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO events (position, stream, version, data) ");
        insert.push_values(first..=position, |mut row, at| {
            row.push_bind(at).push_bind(format!("session-{at:036}")).push_bind(1).push_bind(&data);
        });
        insert.build().execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(per_second(position.cast_unsigned(), start))
}
