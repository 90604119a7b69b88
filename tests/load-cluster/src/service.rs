//! The service as clients see it: how much of each request a second, and what it costs in memory and bytes.

use std::time::Duration;

use serde_json::{Value, json};
use test_services::Postgres;
use tests::generator::{CONCURRENCY, Failure, Work, resident_mib, round, run, users};

use crate::cluster::Cluster;
use crate::lag;

/// The lag is measured this many times as long, because its tail matters.
const LAG: u32 = 4;

pub async fn measure(postgres: &Postgres, command_nodes: u32, length: Duration) -> Result<Value, Failure> {
    let cluster = Cluster::start(postgres, command_nodes).await;
    let addresses = cluster.addresses();
    let people = users(&addresses[0], CONCURRENCY).await?;
    let mut figures = json!({"concurrency": CONCURRENCY});

    let lag = lag::measure(&cluster, length * LAG).await?;
    eprintln!("lag: {lag}");
    figures["lag"] = lag;

    for (name, events) in [("refresh", 1), ("me", 0), ("register", 0), ("login", 1)] {
        let before = cluster.journal_bytes().await?;
        let work = |index: usize| match name {
            "refresh" => Work::Refresh(people[index].refresh.clone()),
            "me" => Work::Me(people[index].access.clone()),
            "register" => Work::Register,
            _ => Work::Login(people[index].email.clone()),
        };
        let mut figure = run(&addresses, length, work).await?;
        if events > 0 {
            figure["journal_bytes_each"] = each(cluster.journal_bytes().await? - before, &figure["requests"]);
        }
        eprintln!("{name}: {figure}");
        figures[name] = figure;
    }
    let head: i64 = sqlx::query_scalar("SELECT max(position) FROM watchword.events")
        .fetch_one(&mut cluster.connect().await?)
        .await?;
    figures["events"] = head.into();
    figures["stream_bytes_each"] = each(cluster.stream_bytes(), &figures["events"]);
    let commands: Vec<_> = cluster.commands.iter().map(|node| resident_mib(node.pid())).collect();
    figures["memory_mib"] =
        json!({"commands": commands, "projections": resident_mib(cluster.projections.pid())});
    Ok(figures)
}

fn each(bytes: u64, count: &Value) -> Value {
    let bytes = u32::try_from(bytes).map_or(f64::INFINITY, f64::from);
    round(bytes / count.as_f64().unwrap_or(f64::NAN)).into()
}
