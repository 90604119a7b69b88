//! Metrics in Prometheus format.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use tasks::Weight;

use crate::logging;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// In seconds; a login takes a password hash, the rest is much faster.
const BUCKETS: &[f64] = &[0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Events or appends per batch, from one to the maximum.
const BATCH_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 250.0, 500.0, 1000.0];

/// The Prometheus type of a metric.
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
    /// Its labels, separated by commas.
    label: &'static str,
    /// All values of the label; empty if they depend on routes, read models or problems.
    values: &'static [&'static str],
    /// Its help text.
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
    &["credentials", "mail", "mailbox", "mails", "known-mails", "invitations", "server", "person", "general"];
const POOLS: &[&str] = &["journal", "key_store", "read_models", "projectors"];
const FOLDERS: &[&str] = &["journal", "key_store", "read_models", "data", "outbox"];
const MAIL_KINDS: &[&str] = &[
    "magic_link",
    "email_verification",
    "email_change",
    "email_change_notice",
    "password_reset",
    "address_taken",
    "invitation",
];
const MAIL_REASONS: &[&str] = &["unreachable", "deferred", "rejected", "not_made", "expired"];
const WEBHOOK_REASONS: &[&str] = &["unreachable", "timeout", "status", "forbidden", "not_made", "blocked"];
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

/// All metrics. `deploy/README.md` lists them in a table.
#[rustfmt::skip]
static METRICS: &[Metric] = &[
    gauge("build_info", "Always 1; its label is the program's version").by("version", &[]),
    // Requests.
    counter("http_requests_total", "HTTP responses").by("route, method, status", &[]),
    histogram("http_request_duration_seconds", "Time until the response head is sent").by("route, method", &[]),
    gauge("watchword_http_connections", "Open connections"),
    gauge("watchword_http_connections_max", "Maximum connections"),
    counter("watchword_ended_for_room_total", "Connections, and requests whose bodies were arriving, ended to make room for others").by("of", &["connections", "bodies"]),
    counter("watchword_refused_for_room_total", "Those refused because nothing could be ended for them").by("of", &["connections", "bodies"]),
    counter("watchword_accept_failures_total", "Failures to accept a connection, by what was missing").by("reason", &["descriptors", "other"]),
    gauge("process_open_fds", "Open file descriptors"),
    gauge("process_max_fds", "Maximum open file descriptors"),
    gauge("watchword_event_streams", "Open server-sent event streams"),
    counter("watchword_refusals_total", "Problem responses, by code").by("problem", &[]),
    counter("watchword_mails_withheld_total", "Requested mails not sent because the mailbox's budget was used up"),
    counter("watchword_rate_limited_total", "Requests refused by a rate limit").by("limit", LIMITS),
    counter("watchword_requests_overdue_total", "Requests that got 503 because they took longer than http.request_time"),
    gauge("watchword_rate_limit_clients", "Clients or mailboxes currently tracked by a limit").by("limit", LIMITS),
    // Passwords.
    gauge("watchword_password_hashing_waiting", "Passwords waiting to be hashed"),
    histogram("watchword_password_hashing_wait_seconds", "Time a password waited in the queue"),
    histogram("watchword_password_hashing_seconds", "Time to hash a password"),
    counter("watchword_password_hashing_refused_total", "Passwords refused because the queue was full (503)"),
    counter("watchword_breach_checks_failed_total", "New passwords not checked for breaches because the list was unavailable"),
    // Decisions and the journal.
    counter("watchword_appends_total", "Appends, by outcome").by("outcome", OUTCOMES),
    histogram("watchword_append_seconds", "Time of an append, including the wait for the writer"),
    counter("watchword_dispatch_conflicts_total", "Decisions retried after a concurrent write"),
    counter("watchword_dispatch_contended_total", "Decisions given up after repeated concurrent writes (503)"),
    counter("watchword_idempotent_replays_total", "Requests answered with the stored result of their idempotency key"),
    gauge("watchword_journal_damaged_events", "Events read that failed their integrity check; no decision uses them"),
    counter("watchword_journal_unproven_reads_total", "Reads of such events, and of idempotency keys without a valid MAC"),
    counter("watchword_snapshots_passed_over_total", "Snapshots not used; all events of the stream were read instead").by("reason", &["old_form", "unproven", "unreadable"]),
    gauge("journal_head", "Position of the newest event known to this node"),
    gauge("watchword_journal_waiting_appends", "Appends waiting for the writer"),
    histogram("watchword_journal_group_appends", "Appends per commit"),
    histogram("watchword_journal_commit_seconds", "Time of a commit"),
    // Checkpoints.
    gauge("watchword_checkpoint_size", "Events that the newest signed checkpoint known to this node covers"),
    gauge("watchword_checkpoint_age_seconds", "Time since it was signed"),
    gauge("watchword_checkpoint_refused", "1 while no checkpoint is signed because the journal or its tree contradicts the last one"),
    gauge("watchword_witness_cosigned_size", "Events that the newest checkpoint known to be signed by a witness covers").by("witness", &[]),
    counter("watchword_witness_failures_total", "Requests to a witness without a signature").by("witness", &[]),
    // Stores.
    gauge("watchword_store_writable", "1 while the last write succeeded; after a failed one, a small write tries again each second").by("store", &["journal", "key_store"]),
    gauge("watchword_storage_free_bytes", "Free bytes of a folder that the service writes to").by("folder", FOLDERS),
    gauge("watchword_storage_low", "1 while that is less than `storage.free_mib`").by("folder", FOLDERS),
    gauge("watchword_pool_connections", "Open connections to a store").by("pool", POOLS),
    gauge("watchword_pool_idle_connections", "Idle connections").by("pool", POOLS),
    gauge("watchword_pool_max_connections", "Maximum connections").by("pool", POOLS),
    counter("watchword_postgres_connects_total", "Connections opened to the journal and the key store in PostgreSQL"),
    counter("watchword_postgres_servers_changed_total", "Times the journal's address led to another server or timeline"),
    counter("watchword_journal_went_back_total", "Times the journal had lost events that this node had seen; it then starts anew"),
    counter("watchword_postgres_failures_total", "Failed attempts there; most are retried").by("of", &["append", "read", "listen", "silence"]),
    histogram("watchword_postgres_read_seconds", "Time of a read there, including the wait for a connection and all attempts"),
    histogram("watchword_read_models_query_seconds", "Time of a read-model query, including the wait for a connection"),
    gauge("watchword_cache_entries", "Entries in a cache").by("cache", CACHES),
    gauge("watchword_cache_bytes", "Approximate memory of a cache").by("cache", CACHES),
    counter("watchword_cache_hits_total", "Cache hits").by("cache", CACHES),
    counter("watchword_cache_misses_total", "Cache misses").by("cache", CACHES),
    // Projectors.
    gauge("watchword_projection_position", "Position of the last event applied to a read model").by("projection", &[]),
    gauge("watchword_projection_lag", "Events not applied yet").by("projection", &[]),
    histogram("watchword_projection_delay_seconds", "Time from an event's append to its application").by("projection", &[]),
    gauge("watchword_projection_failed", "1 while the projector is stuck at an event").by("projection", &[]),
    counter("watchword_projection_failures_total", "Failed attempts to apply events").by("projection", &[]),
    counter("watchword_projection_start_overs_total", "Read models filled anew because the journal had lost what they had applied").by("projection", &[]),
    histogram("watchword_projection_apply_seconds", "Time to apply a batch").by("projection", &[]),
    histogram("watchword_projection_batch_events", "Events per batch").by("projection", &[]),
    gauge("watchword_projection_lease_held", "1 on the node that runs the projector").by("projection", &[]),
    counter("watchword_projection_leases_taken_total", "Leases of the projector taken by this node").by("projection", &[]),
    counter("watchword_projection_leases_given_up_total", "Times that this node left the projectors to others, as one stood still"),
    counter("watchword_projection_lease_errors_total", "Heartbeats that failed to renew the leases"),
    gauge("watchword_projection_nodes", "Nodes sharing the projectors"),
    gauge("watchword_rebuild_running", "1 while a read model is rebuilt").by("model", &[]),
    gauge("watchword_rebuild_position", "Position of the last event that its new build has; 0 if there is none").by("model", &[]),
    gauge("watchword_rebuild_events_per_second", "How fast the new build is filled").by("model", &[]),
    gauge("watchword_rebuild_seconds_left", "How long that takes if it stays as fast").by("model", &[]),
    counter("watchword_rebuild_failures_total", "Rebuilds that ended with an error; the live read model is as it was").by("model", &[]),
    counter("watchword_feed_events_total", "Events delivered to projectors, by source").by("from", &["journal", "bus"]),
    counter("watchword_feed_errors_total", "Interruptions while following the stream"),
    counter("watchword_feed_refused_total", "Rejected messages of the stream, by reason; their events were read from the journal").by("reason", &["no_mark", "wrong_mark", "not_in_journal", "unreadable"]),
    // The relay.
    gauge("watchword_nats_connected", "1 while NATS is connected"),
    gauge("watchword_relay_position", "Position of the last published event"),
    gauge("watchword_relay_lag", "Events not published yet"),
    gauge("watchword_relay_stopped", "1 while the relay is stopped because stream and journal contradict each other"),
    counter("watchword_relay_published_total", "Events published by this node"),
    histogram("watchword_relay_publish_seconds", "Time to publish a batch"),
    counter("watchword_relay_conflicts_total", "Batches refused by the stream, mostly because another relay was first"),
    counter("watchword_relay_errors_total", "Interruptions of publishing"),
    counter("watchword_relay_repairs_total", "Times the stream had lost events and was refilled"),
    counter("watchword_relay_rebuilds_total", "Automatic rebuilds of a stream whose end this instance did not publish"),
    // The mailer.
    gauge("watchword_mail_position", "Position of the last event whose mails were attempted"),
    gauge("watchword_mail_lag", "Events not processed yet"),
    gauge("watchword_mail_waiting", "Mails waiting for a retry"),
    gauge("watchword_mail_failed", "Failed mails without a requested retry"),
    counter("watchword_mail_sent_total", "Mails accepted by the mail server, by purpose").by("mail", MAIL_KINDS),
    counter("watchword_mail_failures_total", "Failed attempts, by reason").by("reason", MAIL_REASONS),
    counter("watchword_mail_given_up_total", "Mails given up, by purpose").by("mail", MAIL_KINDS),
    counter("watchword_mail_unreadable_total", "Unreadable events that may request a mail"),
    histogram("watchword_mail_send_seconds", "Time of an attempt"),
    // Webhooks.
    gauge("watchword_webhook_lag", "Events that the slowest webhook was not sent yet"),
    gauge("watchword_webhook_waiting", "Events that wait to be sent to a webhook again"),
    counter("watchword_webhook_delivered_total", "Messages accepted by webhooks"),
    counter("watchword_webhook_failures_total", "Messages not accepted by webhooks, by reason").by("reason", WEBHOOK_REASONS),
    counter("watchword_webhook_unreadable_total", "Unreadable events that are sent to no webhook"),
    // Background tasks and the log.
    gauge("watchword_task_running", "1 while the background task runs, 0 while it waits to be started again").by("task", &[]),
    counter("watchword_task_restarts_total", "Times a background task failed and was started again").by("task", &[]),
    counter("watchword_log_lost_lines_total", "Lines of the log that were dropped because they could not be written in time"),
    // Traces.
    counter("watchword_trace_spans_total", "Spans for the collector, by outcome").by("outcome", &["sent", "failed", "dropped"]),
    gauge("watchword_trace_waiting_spans", "Spans waiting to be sent"),
];

/// Installs the recorder. Further calls have no effect.
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
        // Without it, histograms would grow without bound between scrapes.
        tasks::start("metrics", Weight::Usual, move || {
            let upkeep = upkeep.clone();
            async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    upkeep.run_upkeep();
                }
            }
        });
        let _ = HANDLE.set(handle);
    }
}

/// Registers a metric. Counters start at 0: one that appeared with its first increment would hide that increment from
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

/// Renders all metrics as text.
pub fn render() -> String {
    tasks::measure();
    metrics::counter!("watchword_log_lost_lines_total").absolute(logging::standing().lost);
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn the_table_for_operators_is_this_one() {
        let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
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
