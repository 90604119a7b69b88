//! Metrics: what the services count, as Prometheus reads it.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Seconds; a login is a password hash, the rest is much faster.
const BUCKETS: &[f64] = &[0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Events of a batch: from one at a time to as many as are read at once.
const BATCH_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 250.0, 500.0, 1000.0];

/// Starts counting. Further calls change nothing.
pub fn start() {
    if HANDLE.get().is_some() {
        return;
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_batch_events".to_owned()), BATCH_BUCKETS)
        })
        .expect("the buckets are not empty");
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        metrics::gauge!("build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let upkeep = handle.clone();
        // Without it, what histograms remember between two scrapes would grow for ever.
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                upkeep.run_upkeep();
            }
        });
        let _ = HANDLE.set(handle);
    }
}

/// All metrics as text.
pub fn render(head: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; positions stay below 2^53 for ages")]
    metrics::gauge!("journal_head").set(head as f64);
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}
