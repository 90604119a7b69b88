//! Metrics: what the services count, as Prometheus reads it.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Seconds; a login is a password hash, the rest is much faster.
const BUCKETS: &[f64] = &[0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Events or appends that go together: from one at a time to as many as there can be.
const BATCH_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 250.0, 500.0, 1000.0];

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric.
struct Metric {
    kind: Kind,
    /// It ends in its unit: seconds, or what is counted.
    name: &'static str,
    /// Its label. Those of requests are several.
    label: &'static str,
    /// Every value of the label; none where they depend on the routes, the read models or the problems there are.
    values: &'static [&'static str],
    /// What it is.
    meaning: &'static str,
}

const fn counter(name: &'static str, meaning: &'static str) -> Metric {
    Metric { kind: Kind::Counter, name, label: "", values: &[], meaning }
}

const fn gauge(name: &'static str, meaning: &'static str) -> Metric {
    Metric { kind: Kind::Gauge, name, label: "", values: &[], meaning }
}

const fn histogram(name: &'static str, meaning: &'static str) -> Metric {
    Metric { kind: Kind::Histogram, name, label: "", values: &[], meaning }
}

impl Metric {
    const fn by(self, label: &'static str, values: &'static [&'static str]) -> Self {
        Self { label, values, ..self }
    }
}

const CACHES: &[&str] = &["aggregates", "data_keys", "access_tokens", "signing_keys"];
const LIMITS: &[&str] =
    &["credentials", "mail", "mailbox", "mails", "known-mails", "server", "person", "general"];
const POOLS: &[&str] = &["journal", "key_store", "read_models", "projectors"];
const MAIL_KINDS: &[&str] = &[
    "magic_link",
    "email_verification",
    "email_change",
    "email_change_notice",
    "password_reset",
    "address_taken",
];
const MAIL_REASONS: &[&str] = &["unreachable", "deferred", "rejected", "not_made", "expired"];
const OUTCOMES: &[&str] = &[
    "done",
    "replayed",
    "conflict",
    "claim_taken",
    "idempotency_key_reused",
    "empty",
    "damaged",
    "unknown",
    "unavailable",
];

/// Every metric there is. `deploy/README.md` has them as a table.
#[rustfmt::skip]
static METRICS: &[Metric] = &[
    gauge("build_info", "1, with the version of the program").by("version", &[]),
    // Requests.
    counter("http_requests_total", "Answers").by("route, method, status", &[]),
    histogram("http_request_duration_seconds", "Time to the head of an answer").by("route, method", &[]),
    gauge("watchword_http_connections", "Open connections"),
    gauge("watchword_event_streams", "Readers of server-sent events"),
    counter("watchword_refusals_total", "Answers that are problems, by their code").by("problem", &[]),
    counter("watchword_mails_withheld_total", "Mails that were asked for and not sent, as their mailbox had too many"),
    counter("watchword_rate_limited_total", "Requests over a limit").by("limit", LIMITS),
    gauge("watchword_rate_limit_clients", "Clients, or mailboxes, whose requests are being counted").by("limit", LIMITS),
    // Passwords.
    gauge("watchword_password_hashing_waiting", "Passwords that wait for a thread"),
    histogram("watchword_password_hashing_wait_seconds", "How long they waited"),
    histogram("watchword_password_hashing_seconds", "How long hashing took then"),
    counter("watchword_password_hashing_refused_total", "Passwords that found the queue full: 503"),
    counter("watchword_breach_checks_failed_total", "New passwords that were not looked up in the list of breached ones: it was away"),
    // Decisions and the journal.
    counter("watchword_appends_total", "Appends, by what became of them").by("outcome", OUTCOMES),
    histogram("watchword_append_seconds", "Time of an append, with its wait for the writer"),
    counter("watchword_dispatch_conflicts_total", "Decisions made again, as somebody else wrote first"),
    counter("watchword_dispatch_contended_total", "Decisions given up, as others kept writing first: 503"),
    counter("watchword_idempotent_replays_total", "Requests answered from what was done under their key before"),
    gauge("watchword_journal_damaged_events", "Events that were read and are not as this instance wrote them: nothing is decided on them"),
    counter("watchword_journal_unproven_reads_total", "Reads of such events, and of rows of idempotency keys without a valid MAC"),
    counter("watchword_snapshots_passed_over_total", "Snapshots that were not used: all events of the stream were read").by("reason", &["old_form", "unproven", "unreadable"]),
    gauge("journal_head", "Position of the newest event, as this node knows it"),
    gauge("watchword_journal_waiting_appends", "Appends that wait for the writer"),
    histogram("watchword_journal_group_appends", "Appends that were committed together"),
    histogram("watchword_journal_commit_seconds", "Time of such a commit"),
    // Stores.
    gauge("watchword_pool_connections", "Connections to a store").by("pool", POOLS),
    gauge("watchword_pool_idle_connections", "Those that nobody uses").by("pool", POOLS),
    gauge("watchword_pool_max_connections", "How many there may be").by("pool", POOLS),
    counter("watchword_postgres_connects_total", "Connections made to the journal and the key store in PostgreSQL"),
    counter("watchword_postgres_failures_total", "Attempts there that failed, most of which are made again").by("of", &["append", "read", "listen"]),
    histogram("watchword_postgres_read_seconds", "Time of a read there, with the wait for a connection and all attempts"),
    histogram("watchword_read_models_query_seconds", "Time of a query of the read models, with the wait for a connection"),
    gauge("watchword_cache_entries", "What a cache holds").by("cache", CACHES),
    gauge("watchword_cache_bytes", "What that takes in memory, about").by("cache", CACHES),
    counter("watchword_cache_hits_total", "Times that what was looked for was there").by("cache", CACHES),
    counter("watchword_cache_misses_total", "Times that it was not").by("cache", CACHES),
    // Projectors.
    gauge("watchword_projection_position", "Position of the last event that is in a read model").by("projection", &[]),
    gauge("watchword_projection_lag", "Events that are not in it yet").by("projection", &[]),
    histogram("watchword_projection_delay_seconds", "Time from an event to its being in the read model").by("projection", &[]),
    gauge("watchword_projection_failed", "1 while the projector stands still at an event").by("projection", &[]),
    counter("watchword_projection_failures_total", "Tries that did not work").by("projection", &[]),
    histogram("watchword_projection_apply_seconds", "Time of a batch").by("projection", &[]),
    histogram("watchword_projection_batch_events", "Events of a batch").by("projection", &[]),
    gauge("watchword_projection_lease_held", "1 on the node that runs the projector").by("projection", &[]),
    counter("watchword_projection_leases_taken_total", "Times that this node took the projector").by("projection", &[]),
    counter("watchword_projection_lease_errors_total", "Beats at which no lease could be renewed"),
    gauge("watchword_projection_nodes", "Nodes that share the projectors"),
    counter("watchword_feed_events_total", "Events that projectors were given, by where they came from").by("from", &["journal", "bus"]),
    counter("watchword_feed_errors_total", "Times that following the stream broke off"),
    counter("watchword_feed_refused_total", "Messages of the stream that were not believed, by why: their events were read from the journal").by("reason", &["no_mark", "wrong_mark", "not_in_journal", "unreadable"]),
    // The relay.
    gauge("watchword_nats_connected", "1 while NATS is connected"),
    gauge("watchword_relay_position", "Position of the last event that is in the stream"),
    gauge("watchword_relay_lag", "Events that are not in it yet"),
    gauge("watchword_relay_stopped", "1 while stream and journal contradict each other"),
    counter("watchword_relay_published_total", "Events published by this node"),
    histogram("watchword_relay_publish_seconds", "Time of a batch"),
    counter("watchword_relay_conflicts_total", "Batches that the stream refused, mostly as another relay was first"),
    counter("watchword_relay_errors_total", "Times that publishing broke off"),
    counter("watchword_relay_repairs_total", "Times that the stream had lost events and was filled again"),
    counter("watchword_relay_rebuilds_total", "Times that this node made a stream anew by itself whose end was not of this instance"),
    // The mailer.
    gauge("watchword_mail_position", "Position of the last event whose mails were tried"),
    gauge("watchword_mail_lag", "Events that were not looked at yet"),
    gauge("watchword_mail_waiting", "Mails that wait for another try"),
    gauge("watchword_mail_failed", "Mails that were given up and that nobody has asked to try again"),
    counter("watchword_mail_sent_total", "Mails that the mail server took, by what they are for").by("mail", MAIL_KINDS),
    counter("watchword_mail_failures_total", "Tries that failed, by why").by("reason", MAIL_REASONS),
    counter("watchword_mail_given_up_total", "Mails that were given up, by what they are for").by("mail", MAIL_KINDS),
    counter("watchword_mail_unreadable_total", "Events that ask for a mail and cannot be read"),
    histogram("watchword_mail_send_seconds", "Time of a try"),
    // Traces.
    counter("watchword_trace_spans_total", "Spans for the collector, by what became of them").by("outcome", &["sent", "failed", "dropped"]),
    gauge("watchword_trace_waiting_spans", "Spans that wait to be sent"),
];

/// Starts counting. Further calls change nothing.
pub fn start() {
    if HANDLE.get().is_some() {
        return;
    }
    let set = |builder: PrometheusBuilder, suffix: &str, buckets| {
        let builder = builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), buckets);
        builder.expect("the buckets are not empty")
    };
    let builder = set(PrometheusBuilder::new(), "_seconds", BUCKETS);
    let builder = set(builder, "_batch_events", BATCH_BUCKETS);
    let recorder = set(builder, "_group_appends", BATCH_BUCKETS).build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        METRICS.iter().for_each(describe);
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

/// Says what a metric is. Counters start at 0: one that began with the first thing it counts would hide just that from
/// `increase()` and `rate()`.
fn describe(metric: &Metric) {
    let Metric { kind, name, label, values, meaning } = *metric;
    match kind {
        Kind::Counter => metrics::describe_counter!(name, meaning),
        Kind::Gauge => metrics::describe_gauge!(name, meaning),
        Kind::Histogram => metrics::describe_histogram!(name, meaning),
    }
    if kind == Kind::Counter && label.is_empty() {
        metrics::counter!(name).absolute(0);
    }
    for value in values.iter().filter(|_| kind == Kind::Counter) {
        metrics::counter!(name, label => *value).absolute(0);
    }
}

/// All metrics as text.
pub fn render() -> String {
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn the_table_for_operators_is_this_one() {
        let mut table = String::from("| metric | kind | labels | what it is |\n|---|---|---|---|\n");
        for Metric { kind, name, label, values, meaning } in METRICS {
            let labels = if values.is_empty() {
                (*label).to_owned()
            } else {
                format!("{label}: {}", values.join(", "))
            };
            let kind = format!("{kind:?}").to_lowercase();
            writeln!(table, "| `{name}` | {kind} | {labels} | {meaning} |")
                .expect("a string takes everything");
        }
        let manual = include_str!("../../deploy/README.md");
        assert!(manual.contains(&table), "deploy/README.md should have this table:\n{table}");
    }

    #[test]
    fn names_end_in_what_is_counted() {
        for Metric { kind, name, .. } in METRICS {
            let is_total = name.ends_with("_total");
            assert_eq!(is_total, *kind == Kind::Counter, "{name}");
        }
    }
}
