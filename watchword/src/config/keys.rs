//! Every key of the configuration, and the environment variable that overrides it.

/// A key of the configuration.
pub struct Key {
    /// As `watchword.toml` spells it; a dot separates section and key.
    pub name: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it is.
    pub meaning: &'static str,
}

const fn key(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default, meaning }
}

/// Every key there is.
pub static KEYS: &[Key] = &[
    key("listen", "127.0.0.1:8080", "address and port to listen on"),
    key(
        "internal_listen",
        "",
        "a second address and port, for /metrics, /readyz with all details and /healthz, which ask for no key there: only \
         the monitoring may reach it",
    ),
    key(
        "public_url",
        "http://<listen>",
        "the address clients reach the service at; the issuer of every token. With a path, such as https://example.com/auth, \
         everything is below it: a proxy passes paths on as they come",
    ),
    key(
        "log_origin",
        "<public_url>",
        "where events come from: their dataschema is a URL below it. The first start writes it into the journal; later it \
         changes nothing",
    ),
    key("data_dir", "./data", "the folder of the stores and the keys"),
    key(
        "journal_url",
        "sqlite:<data_dir>/journal.db",
        "the event journal; several nodes can share postgres://user:password@host:5432/database?sslmode=verify-full, or, \
         in a build with the feature kurrentdb, esdb://user:password@host:2113",
    ),
    key(
        "read_models_url",
        "sqlite:<data_dir>/read-models.db",
        "the read models; in postgres://…, which several nodes share, they are in the schema watchword_read \
         [with a journal in PostgreSQL: the same database]",
    ),
    key(
        "key_store_url",
        "sqlite:<data_dir>/keys.db",
        "the key store [with a journal in PostgreSQL: the same database]",
    ),
    key(
        "postgres.role",
        "watchword_service",
        "the role that nodes work as in PostgreSQL. It belongs to the whole server: give each of several instances with databases on \
         one server its own. `watchword migrate` makes it, and takes from watchword_service what that had in this database",
    ),
    key("postgres.connections", "8", "connections to PostgreSQL that read at the same time"),
    key("postgres.statement_timeout", "10", "seconds a statement of PostgreSQL may take"),
    key(
        "postgres.poll",
        "1",
        "seconds between looks for new events, should PostgreSQL's notifications not come",
    ),
    key(
        "nats_url",
        "",
        "NATS servers that get every event, separated by commas: nats://[user:password@]host:port, or tls://",
    ),
    key(
        "mail_url",
        "file://<data_dir>/outbox",
        "where mails go: smtps://user:password@host; smtp://user:password@host?tls=required, with STARTTLS; or \
         file://<folder>, one .eml a mail",
    ),
    key(
        "otlp_endpoint",
        "",
        "an OpenTelemetry collector that gets traces, by OTLP over HTTP: http://collector:4318",
    ),
    key("master_key", "", "32 bytes, base64 [default: <data_dir>/master.key, made at the first start]"),
    key(
        "admin_key",
        "",
        "a platform key that you have made: openssl rand -base64 32. The next start admits it, and makes none by itself \
         [default: <data_dir>/admin.key, made at the first start]",
    ),
    key(
        "log",
        "info",
        "what is logged: a level from error to trace, or tracing directives such as info,command_service=debug",
    ),
    key("log_format", "text", "text or json"),
    key("trusted_proxies", "", "networks whose X-Forwarded-For is believed, separated by commas"),
    key("argon2", "m=19456,t=2,p=1", "cost of password hashing: memory in KiB, passes, lanes"),
    key("rate_limits", "on", "on; off for load tests only"),
    key("shutdown_timeout", "10", "seconds that requests have to end after SIGTERM"),
    key("limits.credentials", "60/60", "requests per seconds of one address to login, register and the like"),
    key(
        "limits.mail",
        "20/60",
        "requests per seconds of one address for mails; an app's own server, with its API key, has no such limit",
    ),
    key(
        "limits.mailbox",
        "5/600",
        "requests per seconds of one client (address, device, API key) for mails of one purpose to one mailbox",
    ),
    key(
        "limits.mails",
        "8/600",
        "mails per seconds of one purpose that are sent to one mailbox, whoever asks; more are left out silently",
    ),
    key(
        "limits.known_mails",
        "3/600",
        "mails besides those, for clients that have been in the account before",
    ),
    key("limits.server", "6000/60", "requests per seconds with one API key, instead of limits by address"),
    key(
        "limits.person",
        "30/60",
        "logins per seconds of one person: through an app's own server, or good ones from one address",
    ),
    key("limits.general", "1200/60", "requests per seconds of one address to all other routes"),
    key("limits.in_flight", "4096", "requests answered at the same time; more are told 503"),
    key("limits.in_flight_of_an_app", "", "those of one app [default: three quarters]"),
    key("limits.in_flight_of_an_address", "", "those of one client address [default: a quarter]"),
    key("limits.in_flight_reserve", "", "those that no app can take [default: a sixteenth]"),
    key("limits.event_streams", "256", "live streams of events open at the same time; more are told 503"),
    key("limits.event_streams_of_an_app", "", "those of one app [default: a quarter]"),
    key("limits.event_streams_of_a_caller", "", "those of one API key or user [default: a sixteenth]"),
    key("limits.event_streams_reserve", "", "those kept for platform keys [default: a sixteenth]"),
    key("limits.exports", "32", "exports of audit logs at the same time; more are told 503"),
    key("limits.exports_of_an_app", "", "those of one app [default: a quarter]"),
    key("limits.exports_of_a_caller", "", "those of one API key or user [default: a sixteenth]"),
    key("limits.exports_reserve", "", "those kept for platform keys [default: a sixteenth]"),
    key("limits.sessions", "1000", "sessions a user can have at a time; a login more ends the oldest"),
    key("nats.credentials", "", "a credentials file for NATS"),
    key("nats.replicas", "1", "servers of a NATS cluster that keep the stream"),
    key("nats.storage", "file", "file or memory: where NATS keeps the stream"),
    key("nats.max_age", "0", "seconds that the stream keeps events; 0 keeps all"),
    key("nats.max_bytes", "0", "bytes of the newest events that the stream keeps; 0 keeps all"),
    key("nats.duplicate_window", "120", "seconds that NATS remembers the ids of events"),
    key("nats.batch", "500", "events published together, 1000 at most"),
    key("nats.check_interval", "30", "seconds between two looks whether the stream's end is the journal's"),
    key(
        "nats.rebuild_interval",
        "0",
        "seconds that must lie between two times that the relay, by itself, deletes and fills again a stream whose end \
         this instance did not publish; 0: it stands still, and `watchword relay --rebuild` does it",
    ),
    key(
        "projections.node",
        "",
        "the name of this node, where several share the projectors; no two may have the same [default: the host's name \
         and a random part]",
    ),
    key(
        "projections.lease",
        "4",
        "seconds after which another node takes over the projectors of one that is not heard of",
    ),
    key(
        "otlp.sampling",
        "1",
        "which part of the requests is traced, 0 to 1, where a request does not say itself (traceparent)",
    ),
    key(
        "mail.sender",
        "no-reply@<host of public_url>",
        "the address that mails come from where an app has no other",
    ),
    key(
        "mail.sender_domains",
        "",
        "domains beside that of mail.sender that apps may let their mails come from, separated by commas; * for any",
    ),
    key("mail.attempts", "8", "how often a mail is tried before it is given up"),
    key(
        "mail.first_pause",
        "5",
        "seconds before a mail's second try; each further pause is four times as long",
    ),
    key("mail.longest_pause", "3600", "seconds of the longest pause between two tries of a mail"),
    key(
        "lockout.failures",
        "10",
        "wrong passwords within the window that lock an account for strangers, or one of its devices out of it",
    ),
    key(
        "lockout.device_ttl",
        "15552000",
        "seconds that a device which was in an account is counted apart from strangers (header Device-Token)",
    ),
    key(
        "clock_leeway",
        "60",
        "seconds that another node's clock may be ahead: access tokens that were made later than that are refused",
    ),
    key("lockout.window", "900", "seconds in which wrong passwords add up"),
    key(
        "lockout.first_lock",
        "60",
        "seconds of an account's first lock; each further one lasts twice as long",
    ),
    key("lockout.longest_lock", "900", "seconds of an account's longest lock"),
    key("cache.aggregates", "100000", "apps, users and sessions kept in memory at most"),
    key("cache.aggregates_mib", "32", "MiB that they may take"),
    key("cache.data_keys_mib", "8", "MiB of the keys of persons kept in memory"),
    key("cache.access_tokens_mib", "8", "MiB of access tokens that need not be verified again"),
    key("cache.events_mib", "8", "MiB of events kept in memory for projectors that come a little later"),
    key(
        "breached_passwords_url",
        "",
        "a list of passwords known from breaches, asked for new ones by the first 5 digits of their SHA-1 hash, such as \
         https://api.pwnedpasswords.com/range/",
    ),
    key("password_hashing.threads", "", "password hashes computed at a time [default: one for each core]"),
    key(
        "password_hashing.queue",
        "",
        "requests that may wait for a hash, more are told 503 [default: 64 for each thread]",
    ),
];

/// The environment variable that overrides a key.
pub fn variable(key: &str) -> String {
    format!("WATCHWORD_{}", key.replace('.', "_").to_uppercase())
}

/// Keys whose value may be a secret, or hold one. Each can be read from a file instead, which only its owner, or its owner and a
/// group, can read: `WATCHWORD_MASTER_KEY_FILE=/run/secrets/master-key`, or `master_key_file` in `watchword.toml`.
pub static FROM_FILES: &[&str] =
    &["master_key", "admin_key", "journal_url", "read_models_url", "key_store_url", "nats_url", "mail_url"];

/// The environment variable that names a file with the key's value, for those in [`FROM_FILES`].
pub fn file_variable(key: &str) -> Option<String> {
    FROM_FILES.contains(&key).then(|| variable(key) + "_FILE")
}

/// The key that this name of a file is for: `master_key_file` is for `master_key`.
pub fn of_file(name: &str) -> Option<&'static str> {
    let key = name.strip_suffix("_file")?;
    FROM_FILES.iter().copied().find(|known| *known == key)
}
