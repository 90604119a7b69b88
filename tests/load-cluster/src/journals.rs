//! The same cluster on two journals, one after the other in one run: refreshes one at a time, from many concurrent
//! callers, and from as many on two nodes.

use std::time::Duration;

use serde_json::{Value, json};
use test_services::Postgres;
use tests::generator::{Failure, Work, round, run_with, users};

use crate::cluster::Cluster;

/// The number of concurrent callers.
const CALLERS: usize = 16;

pub async fn measure(postgres: &Postgres, kurrentdb: &str, length: Duration) -> Result<Value, Failure> {
    let mut figures = json!({"callers": CALLERS});
    for (name, journal) in [("postgres", None), ("kurrentdb", Some(kurrentdb))] {
        let cluster = Cluster::start_on(postgres, journal, 2).await;
        let addresses = cluster.addresses();
        for (what, nodes, callers) in
            [("one_at_a_time", 1, 1), ("one_node", 1, CALLERS), ("two_nodes", 2, CALLERS)]
        {
            let people = users(&addresses[0], callers).await?;
            let refresh = |index: usize| Work::Refresh(people[index].refresh.clone());
            let figure = run_with(callers, &addresses[..nodes], length, refresh).await?;
            eprintln!("{name}, {what}: {figure}");
            figures[name][what] = figure;
        }
    }
    let rate = |journal: &str, what: &str| figures[journal][what]["per_second"].as_f64().unwrap_or(f64::NAN);
    figures["ratios"] = json!({
        "kurrentdb_to_postgres": round(rate("kurrentdb", "one_node") / rate("postgres", "one_node")),
        "two_nodes_to_one": round(rate("kurrentdb", "two_nodes") / rate("kurrentdb", "one_node")),
    });
    Ok(figures)
}
