//! Every key of the configuration: its name, type, default and meaning. A key is declared once, here; parsing, the
//! environment variable, `doctor --keys` and the reference follow from it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use domain::{Email, LogOrigin};
use effects::mailer::MailUrl;
use effects::senders::SenderDomains;
use event_store::location::Location;
use event_store::postgres::role::RoleName;
use http_kit::limits::Rate;
use ipnet::IpNet;
use projection_service::WitnessSettings;
use secrecy::SecretString;
use tokens::PublicUrl;
use url::Url;

use super::parse::{
    address, admin_key, any_number, any_seconds, argon2_cost, batch, collector, head_bytes, internal_address,
    lease, list_url, location, log_directives, log_format, log_origin, mail_url, mebibytes, nats_servers,
    networks, non_empty, number_or_none, on_or_off, positive_number, positive_seconds, positive_size,
    public_url, rate, seconds, seconds_or_none, secret, sender, sender_domains, share, storage, whole_number,
};
use super::stores::{JournalLocation, journal_location, role_name};
use super::witnesses::witnesses;
use super::{Argon2Cost, LogFormat};

/// The documentation of a key.
pub struct Entry {
    /// As spelled in `watchword.toml`; a dot separates section and key.
    pub name: &'static str,
    /// The value if it is not set.
    pub default: &'static str,
    pub meaning: &'static str,
    secrecy: Secrecy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    None,
    /// It may hold a password.
    MayHold,
    /// It is a secret.
    Is,
}

/// A key that always has a value: its default is written as an operator would write it.
pub(super) struct Key<T> {
    pub name: &'static str,
    pub default: &'static str,
    pub parse: fn(&str) -> Result<T, String>,
}

/// A key that may be unset; the text says what applies then.
pub(super) struct OptionalKey<T> {
    pub name: &'static str,
    pub parse: fn(&str) -> Result<T, String>,
}

/// `NAME "name": Type = parser, default "value", "meaning"` declares a [`Key`]; `otherwise "what applies then"` an
/// [`OptionalKey`]. After the default, `secret` marks a secret, `from_file` a value that may contain a password: both can be
/// read from a separate file.
macro_rules! keys {
    (@default $NAME:ident, $name:literal, $T:ty, $parse:expr, $default:literal) => {
        pub(super) const $NAME: Key<$T> = Key { name: $name, default: $default, parse: $parse };
    };
    (@otherwise $NAME:ident, $name:literal, $T:ty, $parse:expr, $default:literal) => {
        pub(super) const $NAME: OptionalKey<$T> = OptionalKey { name: $name, parse: $parse };
    };
    (@secrecy) => { Secrecy::None };
    (@secrecy from_file) => { Secrecy::MayHold };
    (@secrecy secret) => { Secrecy::Is };
    ($(
        $NAME:ident $name:literal: $T:ty = $parse:expr, $kind:ident $default:literal $($secrecy:ident)?, $meaning:literal;
    )*) => {
        $(keys!(@$kind $NAME, $name, $T, $parse, $default);)*

        /// All keys.
        pub static KEYS: &[Entry] = &[$(
            Entry { name: $name, default: $default, meaning: $meaning, secrecy: keys!(@secrecy $($secrecy)?) }
        ),*];
    };
}

keys! {
    LISTEN "listen": SocketAddr = address, default "127.0.0.1:8080",
        "address and port to listen on";
    INTERNAL_LISTEN "internal_listen": SocketAddr = internal_address, otherwise "",
        "a second address and port, without authentication, for /metrics, /readyz with all details and /healthz: only \
         monitoring may reach it";
    PUBLIC_URL "public_url": PublicUrl = public_url, otherwise "http://<listen>",
        "the URL at which clients reach the service; the issuer of every token. With a path, such as \
         https://example.com/auth, everything is below it: a proxy passes paths on unchanged";
    LOG_ORIGIN "log_origin": LogOrigin = log_origin, otherwise "<public_url>",
        "the origin of events: their dataschema is a URL below it. The first start writes it into the journal; later \
         changes have no effect";
    DATA_DIR "data_dir": String = non_empty, default "./data",
        "the folder of the stores and the keys";
    JOURNAL_URL "journal_url": JournalLocation = journal_location, otherwise "sqlite:<data_dir>/journal.db" from_file,
        "the event journal; several nodes can share postgres://user:password@host:5432/database?sslmode=verify-full, or, \
         in a build with the feature kurrentdb, esdb://user:password@host:2113";
    READ_MODELS_URL "read_models_url": Location = location, otherwise "sqlite:<data_dir>/read-models.db" from_file,
        "the read models; in postgres://…, which several nodes share, they are in the schema watchword_read \
         [with a journal in PostgreSQL: the same database]";
    KEY_STORE_URL "key_store_url": Location = location, otherwise "sqlite:<data_dir>/keys.db" from_file,
        "the key store [with a journal in PostgreSQL: the same database]";
    POSTGRES_ROLE "postgres.role": RoleName = role_name, default "watchword_service",
        "the role that nodes use in PostgreSQL. It belongs to the whole server: give each of several instances with \
         databases on one server its own. `watchword migrate` creates it, and revokes from watchword_service its \
         rights in this database";
    POSTGRES_CONNECTIONS "postgres.connections": u32 = positive_number, default "8",
        "maximum number of concurrent reading connections to PostgreSQL";
    POSTGRES_STATEMENT_TIMEOUT "postgres.statement_timeout": Duration = seconds, default "10",
        "maximum seconds for a PostgreSQL statement; at most four fifths of the time that a request waits for it \
         (http.request_time)";
    POSTGRES_POLL "postgres.poll": Duration = seconds, default "1",
        "seconds between polls for new events, in case PostgreSQL's notifications fail";
    NATS_URL "nats_url": Option<SecretString> = nats_servers, otherwise "" from_file,
        "NATS servers that receive every event, separated by commas: nats://[user:password@]host:port, or tls://";
    MAIL_URL "mail_url": MailUrl = mail_url, otherwise "file://<data_dir>/outbox" from_file,
        "where mails go: smtps://user:password@host; smtp://user:password@host?tls=required, with STARTTLS; or \
         file://<folder>, one .eml per mail";
    OTLP_ENDPOINT "otlp_endpoint": Option<Url> = collector, otherwise "",
        "an OpenTelemetry collector that receives traces, by OTLP over HTTP: http://collector:4318";
    MASTER_KEY "master_key": SecretString = secret, otherwise "" secret,
        "32 bytes, base64 [default: <data_dir>/master.key, created at the first start]";
    ADMIN_KEY "admin_key": SecretString = admin_key, otherwise "" secret,
        "a platform key that you create: openssl rand -base64 32. The next start admits it, and creates none itself \
         [default: <data_dir>/admin.key, created at the first start]";
    LOG "log": String = log_directives, default "info",
        "what is logged: a level from error to trace, or tracing directives such as info,command_service=debug";
    LOG_FORMAT "log_format": LogFormat = log_format, default "text",
        "text or json";
    LOG_BUFFER "log_buffer_mib": u64 = mebibytes, default "4",
        "MiB for lines of the log that nobody reads at the moment, or for which the disk has no room; further lines are \
         dropped and counted";
    TASK_FAILURES "task_failures": u32 = positive_number, default "20",
        "failures in a row, without a minute of work in between, after which a background task is not started again, and the \
         process ends with an error";
    TRUSTED_PROXIES "trusted_proxies": Vec<IpNet> = networks, default "",
        "networks whose X-Forwarded-For is trusted, separated by commas";
    ARGON2 "argon2": Argon2Cost = argon2_cost, default "m=19456,t=2,p=1",
        "cost of password hashing: memory in KiB, passes, lanes";
    RATE_LIMITS "rate_limits": bool = on_or_off, default "on",
        "on; off for load tests only";
    SHUTDOWN_TIMEOUT "shutdown_timeout": Duration = seconds, default "10",
        "seconds that requests have to finish after SIGTERM";
    LIMITS_CREDENTIALS "limits.credentials": Rate = rate, default "60/60",
        "requests/seconds from one address to login, register and similar routes";
    LIMITS_MAIL "limits.mail": Rate = rate, default "20/60",
        "requests/seconds for mails from one address; does not apply to an app's own server with its API key";
    LIMITS_MAILBOX "limits.mailbox": Rate = rate, default "5/600",
        "requests/seconds from one client (address, device, API key) for mails of one purpose to one mailbox";
    LIMITS_MAILS "limits.mails": Rate = rate, default "8/600",
        "mails/seconds of one purpose to one mailbox, from all clients; more are silently dropped";
    LIMITS_KNOWN_MAILS "limits.known_mails": Rate = rate, default "3/600",
        "mails/seconds in addition, for known clients of the account";
    LIMITS_INVITATIONS "limits.invitations": Rate = rate, default "100/86400",
        "invitations/seconds by one user, and in the name of one organization; an app's own server has no such limit";
    LIMITS_SERVER "limits.server": Rate = rate, default "6000/60",
        "requests/seconds with one API key, instead of limits per address";
    LIMITS_PERSON "limits.person": Rate = rate, default "30/60",
        "logins/seconds of one person: through an app's own server, or successful ones from one address";
    LIMITS_GENERAL "limits.general": Rate = rate, default "1200/60",
        "requests/seconds from one address to all other routes";
    LIMITS_IN_FLIGHT "limits.in_flight": NonZeroUsize = positive_size, default "4096",
        "concurrent requests, each from when all of it has come; more get 503. As many bodies may be arriving";
    LIMITS_IN_FLIGHT_OF_AN_APP "limits.in_flight_of_an_app": NonZeroUsize = positive_size, otherwise "",
        "of these, the maximum per app [default: three quarters]";
    LIMITS_IN_FLIGHT_OF_AN_ADDRESS "limits.in_flight_of_an_address": NonZeroUsize = positive_size, otherwise "",
        "of these, the maximum per client address [default: a sixteenth]";
    LIMITS_IN_FLIGHT_RESERVE "limits.in_flight_reserve": usize = whole_number, otherwise "",
        "of these, reserved for API keys and for addresses with valid credentials in the last day [default: a sixteenth]";
    LIMITS_EVENT_STREAMS "limits.event_streams": NonZeroUsize = positive_size, default "256",
        "concurrent live event streams; more get 503";
    LIMITS_EVENT_STREAMS_OF_AN_APP "limits.event_streams_of_an_app": NonZeroUsize = positive_size, otherwise "",
        "of these, the maximum per app [default: a quarter]";
    LIMITS_EVENT_STREAMS_OF_A_CALLER "limits.event_streams_of_a_caller": NonZeroUsize = positive_size, otherwise "",
        "of these, the maximum per API key or user [default: a sixteenth]";
    LIMITS_EVENT_STREAMS_RESERVE "limits.event_streams_reserve": usize = whole_number, otherwise "",
        "of these, reserved for platform keys [default: a sixteenth]";
    LIMITS_EXPORTS "limits.exports": NonZeroUsize = positive_size, default "32",
        "concurrent audit exports; more get 503";
    LIMITS_EXPORTS_OF_AN_APP "limits.exports_of_an_app": NonZeroUsize = positive_size, otherwise "",
        "of these, the maximum per app [default: a quarter]";
    LIMITS_EXPORTS_OF_A_CALLER "limits.exports_of_a_caller": NonZeroUsize = positive_size, otherwise "",
        "of these, the maximum per API key or user [default: a sixteenth]";
    LIMITS_EXPORTS_RESERVE "limits.exports_reserve": usize = whole_number, otherwise "",
        "of these, reserved for platform keys [default: a sixteenth]";
    LIMITS_SESSIONS "limits.sessions": NonZeroUsize = positive_size, default "1000",
        "maximum sessions per user; one more login ends the oldest. A tenth of them can be test tokens";
    HTTP_HEAD_TIME "http.head_time": Duration = positive_seconds, default "30",
        "seconds a client has for the head of a request, and for its first one to come";
    HTTP_IDLE_TIME "http.idle_time": Duration = positive_seconds, default "130",
        "seconds that a connection is kept without another request; longer than a proxy keeps it, so that the proxy closes it";
    HTTP_BODY_TIME "http.body_time": Duration = positive_seconds, default "20",
        "seconds a client has for the body of a request";
    HTTP_BODY_RATE "http.body_rate": NonZeroUsize = positive_size, default "500",
        "bytes of a body per second; a slower client has half of that time";
    HTTP_REQUEST_TIME "http.request_time": Duration = positive_seconds, default "10",
        "seconds that a request takes at most once all of it has come, whatever stores do; then it gets 503. Half of that is \
         the most that it waits for an answer of a store";
    HTTP_CONNECTIONS "http.connections": NonZeroUsize = positive_size, default "16384",
        "open connections, at most what the limit of open files allows; for more, those make room that wait longest, of the \
         address with the most";
    HTTP_HEAD_BYTES "http.head_bytes": u32 = head_bytes, default "65536",
        "maximum bytes of the head of a request, at least 8192; longer ones get 431";
    HTTP_UNREAD_BYTES "http.unread_bytes": u64 = any_number, default "2097152",
        "bytes of a request body that are read and discarded after an early response, so that the connection stays usable";
    HTTP_UNREAD_TIME "http.unread_time": Duration = positive_seconds, default "5",
        "seconds for that; if more is left to read, the connection is closed after the response";
    HTTP_LINGER_BYTES "http.linger_bytes": u64 = any_number, default "67108864",
        "bytes of a longer body that a client may still send after the response; stopping it at once could lose the response";
    HTTP_LINGER_TIME "http.linger_time": Duration = positive_seconds, default "20",
        "seconds for that";
    HTTP_COMPRESS_FROM "http.compress_from": Option<u64> = number_or_none, default "1024",
        "minimum bytes of a response to compress it, if the client asks for it and it holds no secret; 0 turns compression off";
    HTTP2_REQUESTS "http2.requests": u32 = positive_number, default "100",
        "concurrent requests on one HTTP/2 connection";
    HTTP2_RESETS "http2.resets": NonZeroUsize = positive_size, default "20",
        "requests that an HTTP/2 client may reset before the server has looked at them; more end the connection";
    NATS_CREDENTIALS "nats.credentials": String = non_empty, otherwise "",
        "a credentials file for NATS";
    NATS_REPLICAS "nats.replicas": NonZeroUsize = positive_size, default "1",
        "number of NATS servers that replicate the stream";
    NATS_STORAGE "nats.storage": bool = storage, default "file",
        "file or memory: where NATS stores the stream";
    NATS_MAX_AGE "nats.max_age": Option<Duration> = seconds_or_none, default "0",
        "seconds that the stream keeps events; 0 keeps all";
    NATS_MAX_BYTES "nats.max_bytes": Option<u64> = number_or_none, default "0",
        "bytes of the newest events that the stream keeps; 0 keeps all";
    NATS_DUPLICATE_WINDOW "nats.duplicate_window": Duration = positive_seconds, default "120",
        "seconds that NATS remembers the ids of events";
    NATS_BATCH "nats.batch": usize = batch, default "500",
        "maximum events published together, up to 1000";
    NATS_CHECK_INTERVAL "nats.check_interval": Duration = positive_seconds, default "30",
        "seconds between checks that the stream's end matches the journal's";
    NATS_REBUILD_INTERVAL "nats.rebuild_interval": Option<Duration> = seconds_or_none, default "0",
        "minimum seconds between two automatic rebuilds of a stream whose end this instance did not publish; 0: the \
         relay stops, and `watchword relay --rebuild` rebuilds it";
    PROJECTIONS_NODE "projections.node": String = non_empty, otherwise "",
        "the unique name of this node, if several share the projectors [default: the host's name and a random part]";
    PROJECTIONS_LEASE "projections.lease": Duration = lease, default "4",
        "seconds without a heartbeat after which another node takes over a node's projectors; at most 300";
    CHECKPOINT_INTERVAL "checkpoint.interval": Duration = positive_seconds, default "60",
        "seconds after which a checkpoint is signed if there are events that the newest one does not cover";
    CHECKPOINT_EVENTS "checkpoint.events": NonZeroUsize = positive_size, default "10000",
        "events that the newest checkpoint does not cover, from which one is signed earlier";
    CHECKPOINT_KEY_OVERLAP "checkpoint.key_overlap": Duration = seconds, default "2592000",
        "seconds that a key for checkpoints signs beside the next one, so that auditors have time to learn of that";
    WITNESSES "witnesses": Vec<WitnessSettings> = witnesses, default "",
        "who is asked to sign each checkpoint too: a list such as [{key = \"<vkey>\", url = \"https://witness.example.com\"}], in \
         the environment the same as JSON";
    ALLOWED_WEBHOOK_NETWORKS "allowed_webhook_networks": Vec<IpNet> = networks, default "",
        "networks, separated by commas, that webhooks may reach besides public addresses, also by http: whoever may set \
         webhooks of an app can send requests to every service there";
    WEBHOOKS_PER_APP "webhooks.per_app": NonZeroUsize = positive_size, default "50",
        "maximum number of webhooks of an app";
    WEBHOOKS_TIMEOUT "webhooks.timeout": Duration = positive_seconds, default "15",
        "seconds that a webhook has to accept a message";
    WEBHOOKS_FIRST_PAUSE "webhooks.first_pause": u32 = positive_number, default "5",
        "seconds before the second attempt to send an event; each further pause is four times as long";
    WEBHOOKS_LONGEST_PAUSE "webhooks.longest_pause": u32 = positive_number, default "14400",
        "maximum seconds between two attempts";
    WEBHOOKS_GIVE_UP_AFTER "webhooks.give_up_after": u32 = positive_number, default "259200",
        "seconds after its first failure from which an event is not sent again";
    WEBHOOKS_DISABLE_AFTER "webhooks.disable_after": u32 = positive_number, default "432000",
        "seconds in which a webhook has accepted nothing, after which it is disabled";
    OTLP_SAMPLING "otlp.sampling": f64 = share, default "1",
        "the fraction of requests that is traced, 0 to 1, unless the request decides (traceparent)";
    MAIL_SENDER "mail.sender": Email = sender, otherwise "no-reply@<host of public_url>",
        "the sender of mails of apps that set no other";
    MAIL_SENDER_DOMAINS "mail.sender_domains": SenderDomains = sender_domains, default "",
        "domains, besides that of mail.sender, that apps may use in their senders, separated by commas; * for any";
    MAIL_ATTEMPTS "mail.attempts": u32 = positive_number, default "8",
        "delivery attempts before a mail is given up";
    MAIL_FIRST_PAUSE "mail.first_pause": u32 = positive_number, default "5",
        "seconds before a mail's second attempt; each further pause is four times as long";
    MAIL_LONGEST_PAUSE "mail.longest_pause": u32 = positive_number, default "3600",
        "maximum seconds between two attempts";
    LOCKOUT_FAILURES "lockout.failures": u32 = positive_number, default "10",
        "wrong passwords within the window that lock out strangers, or one device, from an account";
    LOCKOUT_DEVICE_TTL "lockout.device_ttl": u32 = positive_number, default "15552000",
        "seconds that a known device is counted separately from strangers (header Device-Token)";
    CLOCK_LEEWAY "clock_leeway": u32 = any_seconds, default "60",
        "seconds that another node's clock may be ahead: access tokens issued further in the future are refused";
    LOCKOUT_WINDOW "lockout.window": u32 = positive_number, default "900",
        "seconds in which wrong passwords add up";
    LOCKOUT_FIRST_LOCK "lockout.first_lock": u32 = positive_number, default "60",
        "seconds of an account's first lock; each further one lasts twice as long";
    LOCKOUT_LONGEST_LOCK "lockout.longest_lock": u32 = positive_number, default "900",
        "seconds of an account's longest lock";
    CACHE_AGGREGATES "cache.aggregates": NonZeroUsize = positive_size, default "100000",
        "maximum number of apps, users and sessions in memory";
    CACHE_AGGREGATES_MIB "cache.aggregates_mib": u64 = mebibytes, default "32",
        "maximum MiB for them";
    CACHE_DATA_KEYS_MIB "cache.data_keys_mib": u64 = mebibytes, default "8",
        "MiB for subject keys in memory";
    CACHE_ACCESS_TOKENS_MIB "cache.access_tokens_mib": u64 = mebibytes, default "8",
        "MiB for access tokens that are already verified";
    CACHE_EVENTS_MIB "cache.events_mib": u64 = mebibytes, default "8",
        "MiB for recent events in memory, for projectors slightly behind";
    STORAGE_FREE_MIB "storage.free_mib": u64 = mebibytes, default "512",
        "MiB of free space in a folder that the service writes to, below which log, `/readyz`, metrics and `watchword \
         doctor` warn; 0 for no warning";
    BREACHED_PASSWORDS_URL "breached_passwords_url": Option<Url> = list_url, otherwise "",
        "a list of breached passwords, queried for new ones with the first 5 digits of their SHA-1 hash, such as \
         https://api.pwnedpasswords.com/range/";
    PASSWORD_HASHING_THREADS "password_hashing.threads": NonZeroUsize = positive_size, otherwise "",
        "concurrent password hashes [default: one for each core]";
    PASSWORD_HASHING_QUEUE "password_hashing.queue": NonZeroUsize = positive_size, otherwise "",
        "requests that may wait for a hash; more get 503 [default: 64 for each thread]";
    IMPORT_AT_ONCE "import.at_once": NonZeroUsize = positive_size, default "2",
        "imports of users that this process carries out at a time; each holds up to 16 MiB of lines in memory";
    IMPORT_MAX_HASH_COST "import.max_hash_cost": u32 = positive_number, default "2097152",
        "maximum cost of verifying an imported password hash, in PBKDF2 iterations (the default takes about a second); bcrypt \
         with cost c counts as 128 * 2^c, argon2 as 2 * m * t, scrypt as N * r * p, SHA-2 crypt as 4 * rounds";
}

/// The environment variable that overrides a key.
pub fn variable(key: &str) -> String {
    format!("WATCHWORD_{}", key.replace('.', "_").to_uppercase())
}

/// Keys whose value is a secret, or may contain one. Each can be read from a file instead, which only its owner, or its owner
/// and a group, may read: `WATCHWORD_MASTER_KEY_FILE=/run/secrets/master-key`, or `master_key_file` in `watchword.toml`.
pub fn from_files() -> impl Iterator<Item = &'static str> {
    let of = |secrecy| KEYS.iter().filter(move |key| key.secrecy == secrecy).map(|key| key.name);
    of(Secrecy::Is).chain(of(Secrecy::MayHold))
}

/// Whether the value of this key is a secret.
pub(super) fn is_secret(name: &str) -> bool {
    KEYS.iter().any(|key| key.name == name && key.secrecy == Secrecy::Is)
}

/// The environment variable that names a file with the key's value, for keys in [`from_files`].
pub fn file_variable(key: &str) -> Option<String> {
    from_files().any(|name| name == key).then(|| variable(key) + "_FILE")
}

/// The key that a file's name belongs to: `master_key_file` belongs to `master_key`.
pub fn of_file(name: &str) -> Option<&'static str> {
    let key = name.strip_suffix("_file")?;
    from_files().find(|known| *known == key)
}
