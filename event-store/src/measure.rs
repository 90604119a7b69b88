//! Metrics that are collected on request, and those that the adapters share.

use std::time::Duration;

/// Reports cache metrics: entries, bytes, hits and misses.
pub fn cache(name: &'static str, entries: usize, bytes: u64, hits: u64, misses: u64) {
    metrics::gauge!("watchword_cache_entries", "cache" => name).set(gauge(entries));
    metrics::gauge!("watchword_cache_bytes", "cache" => name)
        .set(gauge(usize::try_from(bytes).unwrap_or(usize::MAX)));
    metrics::counter!("watchword_cache_hits_total", "cache" => name).absolute(hits);
    metrics::counter!("watchword_cache_misses_total", "cache" => name).absolute(misses);
}

/// Reports pool metrics: connections, how many of them are idle, and the limit.
pub fn pool(name: &'static str, connections: u32, idle: usize, most: u32) {
    metrics::gauge!("watchword_pool_connections", "pool" => name).set(connections);
    metrics::gauge!("watchword_pool_idle_connections", "pool" => name).set(gauge(idle));
    metrics::gauge!("watchword_pool_max_connections", "pool" => name).set(most);
}

/// Reports how many appends wait for the journal's writer.
pub(crate) fn queue(waiting: usize) {
    metrics::gauge!("watchword_journal_waiting_appends").set(gauge(waiting));
}

/// Reports a group of appends that was committed, or failed, together.
pub(crate) fn group(appends: usize, took: Duration) {
    metrics::histogram!("watchword_journal_group_appends").record(gauge(appends));
    metrics::histogram!("watchword_journal_commit_seconds").record(took);
}

#[expect(clippy::cast_precision_loss, reason = "a metric need not be exact past 2^53")]
fn gauge(number: usize) -> f64 {
    number as f64
}
