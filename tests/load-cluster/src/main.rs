//! How fast Watchword is on PostgreSQL and NATS, compared with what the database itself can do, measured in the same
//! run.
//!
//! ```text
//! cargo run --release -p load-cluster [append | service | journals] [-- --check]
//! ```
//!
//! Starts a PostgreSQL server and a nats-server with durable settings, then measures:
//!
//! 1. `append`: the journal's own append, in this process, compared with a raw batched insert of the same rows;
//! 2. `service`: a command node and a projection node of the real binary, NATS between them: refresh, me, register and
//!    login at full speed, then how far the read models lag behind what is acknowledged, at a steady rate.
//!
//! `journals` compares the same cluster on PostgreSQL and on a KurrentDB server, `LOAD_KURRENTDB_URL`: the stand-in of
//! the tests, if there is no other. Both binaries need the feature:
//!
//! ```text
//! cargo build --release -p watchword --features kurrentdb
//! cargo run --release -p event-store --features kurrentdb-tests --example kurrentdb-stand-in -- 127.0.0.1:2113 &
//! TEST_BINARY=target/release/watchword LOAD_KURRENTDB_URL='esdb://127.0.0.1:2113?tls=false' cargo run --release -p load-cluster journals
//! ```
//!
//! Everything shares the machine's cores. Prints a table to standard error and one JSON object to standard output. With
//! `--check` it exits with 1 if a limit is missed. `LOAD_SECONDS` (5) is the length of each measurement; that of the
//! lag is four times as long. `LOAD_NODES` (1) is the number of command nodes. It stops everything that it started.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use test_services::Postgres;
use tests::generator::Failure;

mod append;
mod cluster;
mod journals;
mod lag;
mod service;

// The same as in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The least share of the raw insert that the journal must reach.
const LEAST_APPEND: f64 = 0.6;
/// The longest acceptable lag of the read models, at the 99th percentile.
const LONGEST_LAG_MS: f64 = 100.0;

/// Limits for a journal in KurrentDB: the longest time of one refresh, the least rate as a share of PostgreSQL's, and
/// the least rate with two nodes as a share of one node's.
const LONGEST_REFRESH_MS: f64 = 6.0;
const LEAST_OF_POSTGRES: f64 = 0.5;
const LEAST_OF_ONE_NODE: f64 = 0.9;

/// The longest time for everything, without building.
const LIMIT: Duration = Duration::from_mins(10);

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some(unknown) =
        arguments.iter().find(|it| !matches!(it.as_str(), "append" | "service" | "journals" | "--check"))
    {
        return Err(format!("unknown argument {unknown}: use append, service, journals or --check").into());
    }
    let given = |name: &str| arguments.iter().any(|it| it == name);
    let number =
        |name: &str, default: u32| env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default);
    let length = Duration::from_secs(number("LOAD_SECONDS", 5).into());
    let nodes = number("LOAD_NODES", 1);
    let (append, service, journals) = (given("append"), given("service"), given("journals"));
    let all = !append && !service && !journals;

    let measure = async {
        let postgres = Postgres::start();
        let mut result = json!({"settings": {
            "seconds": length.as_secs(), "command_nodes": nodes,
            "cores": std::thread::available_parallelism()?.get(),
        }});
        if append || all {
            result["append"] = append::measure(&postgres, length).await?;
        }
        if service || all {
            result["service"] = service::measure(&postgres, nodes, length).await?;
        }
        if journals {
            let url = env::var("LOAD_KURRENTDB_URL")
                .map_err(|_| "set LOAD_KURRENTDB_URL to the URL of a server")?;
            result["journals"] = journals::measure(&postgres, &url, length).await?;
        }
        Ok::<_, Failure>(result)
    };
    let result = tokio::time::timeout(LIMIT, measure)
        .await
        .map_err(|_| format!("not finished within {LIMIT:?}"))??;
    print_table(&result);
    println!("{}", serde_json::to_string_pretty(&result)?);
    let missed = missed(&result);
    for bar in &missed {
        eprintln!("missed: {bar}");
    }
    Ok(if given("--check") && !missed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The limits that a result misses. What was not measured misses none.
fn missed(result: &Value) -> Vec<String> {
    let mut missed = vec![];
    if let Some(ratio) = result["append"]["ratio"].as_f64().filter(|ratio| *ratio < LEAST_APPEND) {
        missed.push(format!("the journal reaches {ratio} of the raw insert; the limit is {LEAST_APPEND}"));
    }
    let lag = &result["service"]["lag"];
    if let Some(p99) =
        lag["applied_after_acknowledged"]["p99_ms"].as_f64().filter(|p99| *p99 > LONGEST_LAG_MS)
    {
        missed.push(format!("the read models lag by {p99} ms at p99; the limit is {LONGEST_LAG_MS} ms"));
    }
    let journals = &result["journals"];
    let alone = &journals["kurrentdb"]["one_at_a_time"]["p50_ms"];
    if let Some(p50) = alone.as_f64().filter(|p50| *p50 > LONGEST_REFRESH_MS) {
        missed.push(format!("on KurrentDB one refresh takes {p50} ms; the limit is {LONGEST_REFRESH_MS} ms"));
    }
    for (name, least) in
        [("kurrentdb_to_postgres", LEAST_OF_POSTGRES), ("two_nodes_to_one", LEAST_OF_ONE_NODE)]
    {
        if let Some(ratio) = journals["ratios"][name].as_f64().filter(|ratio| *ratio < least) {
            missed.push(format!("{name} is {ratio}; the limit is {least}"));
        }
    }
    let rates = lag["per_second"].as_f64().zip(lag["wanted_per_second"].as_f64());
    if let Some((rate, wanted)) = rates.filter(|(rate, wanted)| *rate < 0.99 * *wanted) {
        missed.push(format!(
            "{rate} refreshes/s were done instead of {wanted}: the lag is that of another load"
        ));
    }
    missed
}

fn print_table(result: &Value) {
    let show = |name: &str, figure: &Value, unit: &str| {
        if !figure.is_null() {
            eprintln!("{name:<44} {:>12} {unit}", figure.to_string());
        }
    };
    let append = &result["append"];
    show("raw batched insert", &append["raw_rows_per_second"], "rows/s");
    show("journal append", &append["events_per_second"], "events/s");
    show("journal append, share of the raw insert", &append["ratio"], "");
    let service = &result["service"];
    for work in ["register", "login", "refresh", "me"] {
        show(work, &service[work]["per_second"], "/s");
    }
    for journal in ["postgres", "kurrentdb"] {
        for what in ["one_at_a_time", "one_node", "two_nodes"] {
            let figure = &result["journals"][journal][what];
            show(&format!("{journal}, refresh, {what}"), &figure["per_second"], "/s");
            show(&format!("{journal}, refresh, {what}, p50"), &figure["p50_ms"], "ms");
        }
    }
    let lag = &service["lag"];
    show("refreshes during the lag measurement", &lag["per_second"], "/s");
    for (name, times) in [
        ("  answered after the scheduled time", "answered_after_intended"),
        ("  applied after the answer (projection lag)", "applied_after_acknowledged"),
    ] {
        for quantile in ["p50_ms", "p99_ms", "max_ms"] {
            show(&format!("{name}, {}", quantile.trim_end_matches("_ms")), &lag[times][quantile], "ms");
        }
    }
}
