//! Configuration: `watchword.toml`, each key overridden by an environment variable.
//!
//! Every key is in [`KEYS`]. A key that is not, a value that is not one, and a file with a secret that others can
//! read are errors which name it and say what to do.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use command_service::relay::{self, RelaySettings};
use domain::lockout::LockoutPolicy;
use event_store::PostgresSettings;
use event_store::location::{InvalidLocation, Location, is_kurrent};
use http_kit::limits::{Rate, RateSettings};
use ipnet::IpNet;
use projection_service::SharingSettings;
use secrecy::SecretString;
use url::Url;

use crate::bus;
use crate::databases::{Databases, SharedJournal};
use crate::traces::TraceSettings;

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
        "public_url",
        "http://<listen>",
        "the address clients reach the service at; the issuer of every token",
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
    key("mail_url", "", "where mails go; not in this version"),
    key(
        "otlp_endpoint",
        "",
        "an OpenTelemetry collector that gets traces, by OTLP over HTTP: http://collector:4318",
    ),
    key("master_key", "", "32 bytes, base64 [default: <data_dir>/master.key, made at the first start]"),
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
    key("limits.general", "1200/60", "requests per seconds of one address to all other routes"),
    key("limits.in_flight", "4096", "requests answered at the same time; more are told 503"),
    key("limits.event_streams", "256", "live streams of events open at the same time; more are told 503"),
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
    key("lockout.failures", "10", "wrong passwords within the window that lock an account"),
    key("lockout.window", "900", "seconds in which wrong passwords add up"),
    key(
        "lockout.first_lock",
        "60",
        "seconds of an account's first lock; each further one lasts twice as long",
    ),
    key("lockout.longest_lock", "900", "seconds of an account's longest lock"),
    key("cache.aggregates", "100000", "apps, users and sessions kept in memory"),
    key("password_hashing.threads", "", "password hashes computed at a time [default: one for each core]"),
    key(
        "password_hashing.queue",
        "",
        "requests that may wait for a hash, more are told 503 [default: 64 for each thread]",
    ),
];

/// The first secret-bearing or wrong thing found in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {source}. Make it readable, or name another with --config", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is not valid TOML: {message}", path.display())]
    NotToml { path: PathBuf, message: String },
    #[error("{origin} is no key of the configuration{}. `watchword doctor --keys` lists them", suggestion.as_ref().map(|s| format!("; did you mean {s}?")).unwrap_or_default())]
    Unknown { origin: String, suggestion: Option<String> },
    #[error("{origin} is not valid: {problem}")]
    Bad { origin: String, problem: String },
    #[error("{} holds a secret and other users of this machine can read it (mode {mode:04o}). Run: chmod 600 {}", path.display(), path.display())]
    WorldReadable { path: PathBuf, mode: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What a password hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

/// The configuration, every value valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from, if there was one.
    pub file: Option<PathBuf>,
    pub listen: SocketAddr,
    /// None: made from the address listened on.
    pub public_url: Option<Url>,
    pub data_dir: PathBuf,
    /// In PostgreSQL; None: in the files named here.
    pub databases: Option<Databases>,
    pub journal: PathBuf,
    pub read_models: Location,
    /// None: made at each start.
    pub projections_node: Option<String>,
    pub projections_lease: Duration,
    pub key_store: PathBuf,
    pub master_key: Option<SecretString>,
    pub log: String,
    pub log_format: LogFormat,
    pub trusted_proxies: Vec<IpNet>,
    pub argon2: Argon2Cost,
    pub shutdown_timeout: Duration,
    pub limits: RateSettings,
    pub lockout: LockoutPolicy,
    /// None: there is no bus.
    pub nats: Option<Nats>,
    /// None: there are no traces.
    pub traces: Option<TraceSettings>,
    /// At a time; more are told 503.
    pub requests_in_flight: NonZeroUsize,
    pub event_streams: NonZeroUsize,
    pub sessions_of_a_user: NonZeroUsize,
    pub cached_aggregates: NonZeroUsize,
    pub hashing_threads: Option<NonZeroUsize>,
    pub hashing_queue: Option<NonZeroUsize>,
}

/// The bus.
#[derive(Debug, Clone)]
pub struct Nats {
    /// The servers' addresses, which may hold a password.
    pub url: SecretString,
    pub credentials: Option<PathBuf>,
    pub relay: RelaySettings,
}

impl Config {
    /// Reads the file (by default `watchword.toml`, if there is one) and the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut values = Values::default();
        let default_file = Path::new("watchword.toml");
        let file = file.or_else(|| default_file.exists().then_some(default_file));
        if let Some(path) = file {
            values.read_file(path)?;
        }
        values.read_environment(std::env::vars_os())?;
        let mut config = Self::from_values(&mut values)?;
        config.file = file.map(Path::to_owned);
        Ok(config)
    }

    /// The defaults, with everything in one folder.
    pub fn in_folder(data_dir: &Path) -> Self {
        let mut values = Values::default();
        values.set("data_dir", "the folder", data_dir.display().to_string());
        Self::from_values(&mut values).expect("the defaults are valid")
    }

    fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        let data_dir =
            PathBuf::from(values.take("data_dir", non_empty)?.unwrap_or_else(|| "./data".to_owned()));
        let master_key = values.take("master_key", |text| non_empty(text).map(SecretString::from))?;
        let (databases, journal, key_store) = journal_and_keys(values, &data_dir, master_key.is_some())?;
        values.take("mail_url", |text| not_yet(text, "no flow sends mail yet"))?;
        let limits = RateSettings::default();
        let limits = RateSettings {
            enabled: values.take("rate_limits", on_or_off)?.unwrap_or(limits.enabled),
            credentials: values.take("limits.credentials", rate)?.unwrap_or(limits.credentials),
            general: values.take("limits.general", rate)?.unwrap_or(limits.general),
        };
        let lockout = LockoutPolicy::default();
        let number = |values: &mut Values, key: &str, default: u32| {
            Ok::<_, ConfigError>(values.take(key, parsed(POSITIVE))?.map_or(default, NonZeroU32::get))
        };
        let lockout = LockoutPolicy {
            failures: number(values, "lockout.failures", lockout.failures)?,
            window: number(values, "lockout.window", lockout.window)?,
            first_lock: number(values, "lockout.first_lock", lockout.first_lock)?,
            longest_lock: number(values, "lockout.longest_lock", lockout.longest_lock)?,
        };
        Ok(Self {
            file: None,
            listen: values
                .take("listen", parsed("an address and a port such as 127.0.0.1:8080"))?
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            public_url: values.take("public_url", public_url)?,
            read_models: match (values.take("read_models_url", location)?, &databases) {
                (Some(location), _) => location,
                (None, Some(databases)) => Location::Postgres(databases.read_models()),
                (None, None) => Location::File(data_dir.join("read-models.db")),
            },
            databases,
            journal,
            projections_node: values.take("projections.node", non_empty)?,
            projections_lease: values
                .take("projections.lease", parsed("a number of seconds"))?
                .map_or(SharingSettings::LEASE, |n: NonZeroU32| Duration::from_secs(n.get().into())),
            key_store,
            master_key,
            log: values.take("log", log_directives)?.unwrap_or_else(|| "info".to_owned()),
            log_format: values.take("log_format", log_format)?.unwrap_or(LogFormat::Text),
            trusted_proxies: values.take("trusted_proxies", networks)?.unwrap_or_default(),
            argon2: values.take("argon2", argon2_cost)?.unwrap_or(Argon2Cost {
                memory_kib: 19456,
                passes: 2,
                lanes: 1,
            }),
            shutdown_timeout: Duration::from_secs(
                values
                    .take("shutdown_timeout", parsed("a number of seconds"))?
                    .map_or(10, |n: NonZeroU32| n.get().into()),
            ),
            limits,
            lockout,
            nats: nats(values)?,
            traces: traces(values)?,
            requests_in_flight: values
                .take("limits.in_flight", parsed(POSITIVE))?
                .unwrap_or(const { positive(4096) }),
            event_streams: values
                .take("limits.event_streams", parsed(POSITIVE))?
                .unwrap_or(const { positive(256) }),
            sessions_of_a_user: values
                .take("limits.sessions", parsed(POSITIVE))?
                .unwrap_or(const { positive(1000) }),
            cached_aggregates: values
                .take("cache.aggregates", parsed(POSITIVE))?
                .unwrap_or(positive(100_000)),
            hashing_threads: values.take("password_hashing.threads", parsed(POSITIVE))?,
            hashing_queue: values.take("password_hashing.queue", parsed(POSITIVE))?,
            data_dir,
        })
    }

    /// Whether several processes can open the stores at the same time.
    pub fn shares_stores(&self) -> bool {
        self.databases.is_some()
    }

    /// Where the next master key lies until the key store opens with it.
    pub fn next_master_key_file(&self) -> PathBuf {
        self.data_dir.join("master.key.new")
    }

    /// The file with the master key, unless the key is in the configuration itself.
    pub fn master_key_file(&self) -> PathBuf {
        self.data_dir.join("master.key")
    }

    /// The file with the first platform key.
    pub fn admin_key_file(&self) -> PathBuf {
        self.data_dir.join("admin.key")
    }

    /// Where clients reach the service when it listens on `listening`.
    pub fn public_url(&self, listening: SocketAddr) -> Url {
        self.public_url.clone().unwrap_or_else(|| {
            let host = if listening.ip().is_unspecified() {
                format!("localhost:{}", listening.port())
            } else {
                listening.to_string()
            };
            Url::parse(&format!("http://{host}")).expect("an address and a port make a URL")
        })
    }
}

/// The section `nats` is checked even where no server is given.
fn nats(values: &mut Values) -> Result<Option<Nats>, ConfigError> {
    let url = values.take("nats_url", |text| {
        if text.is_empty() { Ok(None) } else { bus::servers(text).map(|_| Some(SecretString::from(text))) }
    })?;
    let credentials = values.take("nats.credentials", non_empty)?.map(PathBuf::from);
    let default = RelaySettings::default();
    let positive = |values: &mut Values, key: &str, default: usize| {
        Ok::<_, ConfigError>(values.take(key, parsed(POSITIVE))?.map_or(default, NonZeroUsize::get))
    };
    let seconds = |values: &mut Values, key: &str, default: Duration| {
        let seconds: Option<NonZeroU32> = values.take(key, parsed(POSITIVE))?;
        Ok::<_, ConfigError>(seconds.map_or(default, |seconds| Duration::from_secs(seconds.get().into())))
    };
    let number = |values: &mut Values, key: &str| {
        let number: Option<u64> = values.take(key, parsed("a whole number"))?;
        Ok::<_, ConfigError>(number.filter(|number| *number > 0))
    };
    let relay = RelaySettings {
        replicas: positive(values, "nats.replicas", default.replicas)?,
        in_memory: values.take("nats.storage", storage)?.unwrap_or(default.in_memory),
        max_age: number(values, "nats.max_age")?.map(Duration::from_secs),
        max_bytes: number(values, "nats.max_bytes")?,
        duplicate_window: seconds(values, "nats.duplicate_window", default.duplicate_window)?,
        batch: values.take("nats.batch", batch)?.unwrap_or(default.batch),
        check_interval: seconds(values, "nats.check_interval", default.check_interval)?,
    };
    Ok(url.flatten().map(|url| Nats { url, credentials, relay }))
}

/// The section `otlp` is checked even where no collector is given.
fn traces(values: &mut Values) -> Result<Option<TraceSettings>, ConfigError> {
    let endpoint = values.take("otlp_endpoint", collector)?.flatten();
    let sampling = values.take("otlp.sampling", share)?.unwrap_or(1.0);
    Ok(endpoint.map(|endpoint| TraceSettings { endpoint, sampling }))
}

/// Where the journal is: it can be in more places than other stores.
enum JournalLocation {
    Store(Location),
    #[cfg(feature = "kurrentdb")]
    Kurrent(event_store::KurrentUrl),
}

fn journal_location(text: &str) -> Result<JournalLocation, String> {
    if is_kurrent(text) { kurrent(text) } else { location(text).map(JournalLocation::Store) }
}

#[cfg(feature = "kurrentdb")]
fn kurrent(text: &str) -> Result<JournalLocation, String> {
    text.trim().parse().map(JournalLocation::Kurrent).map_err(|error| format!("{error}"))
}

#[cfg(not(feature = "kurrentdb"))]
fn kurrent(_: &str) -> Result<JournalLocation, String> {
    Err("this program was built without KurrentDB: build it with `cargo build --release --features kurrentdb`".to_owned())
}

/// Journal and key store are both files, or both on servers: nodes that share one must share the other.
fn journal_and_keys(
    values: &mut Values,
    data_dir: &Path,
    has_master_key: bool,
) -> Result<(Option<Databases>, PathBuf, PathBuf), ConfigError> {
    let seconds = |values: &mut Values, key: &str, default: Duration| {
        let seconds: Option<NonZeroU32> = values.take(key, parsed("a number of seconds"))?;
        Ok::<_, ConfigError>(seconds.map_or(default, |seconds| Duration::from_secs(seconds.get().into())))
    };
    let default = PostgresSettings::default();
    let connections: Option<NonZeroU32> = values.take("postgres.connections", parsed(POSITIVE))?;
    let settings = PostgresSettings {
        readers: connections.map_or(default.readers, NonZeroU32::get),
        statement_timeout: seconds(values, "postgres.statement_timeout", default.statement_timeout)?,
        poll: seconds(values, "postgres.poll", default.poll)?,
        ..default
    };
    let journal = values.take("journal_url", journal_location)?;
    let key_store = values.take("key_store_url", location)?;
    let bad = |origin: &str, problem: &str| {
        Err(ConfigError::Bad { origin: origin.to_owned(), problem: problem.to_owned() })
    };
    let (journal, beside) = match journal {
        None => return in_files(None, key_store, data_dir),
        Some(JournalLocation::Store(Location::File(journal))) => {
            return in_files(Some(journal), key_store, data_dir);
        }
        Some(JournalLocation::Store(Location::Postgres(url))) => {
            (SharedJournal::Postgres(url.clone()), Some(url))
        }
        #[cfg(feature = "kurrentdb")]
        Some(JournalLocation::Kurrent(url)) => {
            (SharedJournal::Kurrent { url, replica: data_dir.join(crate::databases::REPLICA) }, None)
        }
    };
    if !has_master_key {
        return bad(
            "master_key (WATCHWORD_MASTER_KEY)",
            "with a journal that nodes share it must be given, as all of them need the same one. Make it once: \
             openssl rand -base64 32",
        );
    }
    let key_store = match (key_store, beside) {
        (Some(Location::Postgres(key_store)), _) | (None, Some(key_store)) => key_store,
        (Some(Location::File(_)), Some(_)) => {
            return bad(
                "key_store_url",
                "nodes that share a journal share its keys: give a PostgreSQL database, or leave it out for the journal's",
            );
        }
        (_, None) => {
            return bad(
                "key_store_url",
                "nodes that share a journal share its keys, and KurrentDB keeps none: give a PostgreSQL database",
            );
        }
    };
    let databases = Databases { journal, key_store, settings };
    Ok((Some(databases), data_dir.join("journal.db"), data_dir.join("keys.db")))
}

/// The files of one process.
fn in_files(
    journal: Option<PathBuf>,
    key_store: Option<Location>,
    data_dir: &Path,
) -> Result<(Option<Databases>, PathBuf, PathBuf), ConfigError> {
    let key_store = match key_store {
        None => data_dir.join("keys.db"),
        Some(Location::File(path)) => path,
        Some(Location::Postgres(_)) => {
            return Err(ConfigError::Bad {
                origin: "key_store_url".to_owned(),
                problem: "a journal in a file has its keys in a file: leave it out, or give sqlite:<path>"
                    .to_owned(),
            });
        }
    };
    Ok((None, journal.unwrap_or_else(|| data_dir.join("journal.db")), key_store))
}

const POSITIVE: &str = "a whole number above 0";

const fn positive(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("a positive number")
}

/// Raw values by key, each with where it came from.
#[derive(Default)]
struct Values(BTreeMap<String, (String, String)>);

impl Values {
    fn set(&mut self, key: &str, origin: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.to_owned(), (origin.into(), value.into()));
    }

    fn take<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        debug_assert!(KEYS.iter().any(|known| known.name == key), "{key} is in KEYS");
        let Some((origin, value)) = self.0.remove(key) else { return Ok(None) };
        parse(&value).map(Some).map_err(|problem| ConfigError::Bad { origin, problem })
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| ConfigError::NotToml {
            path: path.to_owned(),
            message: e.message().to_owned(),
        })?;
        self.add_table(path, "", &table)?;
        let holds_password = |(key, (_, value)): (&String, &(String, String))| {
            key == "master_key" || (key.ends_with("_url") && value.contains('@'))
        };
        if self.0.iter().any(holds_password) {
            refuse_world_readable(path)?;
        }
        Ok(())
    }

    fn add_table(&mut self, path: &Path, prefix: &str, table: &toml::Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            let origin = format!("{key} in {}", path.display());
            let is_section = KEYS.iter().any(|known| known.name.starts_with(&format!("{key}.")));
            if let toml::Value::Table(section) = value
                && is_section
            {
                self.add_table(path, &format!("{key}."), section)?;
                continue;
            }
            if !KEYS.iter().any(|known| known.name == key) {
                let suggestion = nearest(&key, KEYS.iter().map(|known| known.name.to_owned()));
                return Err(ConfigError::Unknown { origin, suggestion });
            }
            let Some(text) = as_text(value) else {
                return Err(ConfigError::Bad {
                    origin,
                    problem: "give a text, a number or a list of texts".to_owned(),
                });
            };
            self.set(&key, origin, text);
        }
        Ok(())
    }

    fn read_environment(
        &mut self,
        variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("WATCHWORD_")) else { continue };
            let Some(known) = KEYS.iter().find(|known| variable(known.name) == name) else {
                if made_by_kubernetes(name) {
                    continue;
                }
                let suggestion = nearest(name, KEYS.iter().map(|known| variable(known.name)));
                return Err(ConfigError::Unknown {
                    origin: format!("the environment variable {name}"),
                    suggestion,
                });
            };
            let Ok(value) = value.into_string() else {
                return Err(ConfigError::Bad {
                    origin: name.to_owned(),
                    problem: "it is not UTF-8".to_owned(),
                });
            };
            // An empty variable is how shells and compose files say "not set".
            if !value.is_empty() {
                self.set(known.name, name, value);
            }
        }
        Ok(())
    }
}

/// The environment variable that overrides a key.
pub fn variable(key: &str) -> String {
    format!("WATCHWORD_{}", key.replace('.', "_").to_uppercase())
}

/// Kubernetes sets these in every pod beside a service that is named `watchword`.
fn made_by_kubernetes(name: &str) -> bool {
    name == "WATCHWORD_PORT" || name.starts_with("WATCHWORD_PORT_") || name.starts_with("WATCHWORD_SERVICE_")
}

/// Refuses a file that everybody on the machine can read.
pub fn refuse_world_readable(path: &Path) -> Result<(), ConfigError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?
            .permissions()
            .mode();
        if mode & 0o007 != 0 {
            return Err(ConfigError::WorldReadable { path: path.to_owned(), mode: mode & 0o7777 });
        }
    }
    Ok(())
}

fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(if *flag { "on" } else { "off" }.to_owned()),
        toml::Value::Array(items) => {
            items.iter().map(as_text).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn parsed<T: std::str::FromStr>(what: &'static str) -> impl FnOnce(&str) -> Result<T, String> {
    move |text| text.trim().parse().map_err(|_| format!("{text:?} is not {what}"))
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty".to_owned()) } else { Ok(text.trim().to_owned()) }
}

fn not_yet(text: &str, instead: &str) -> Result<(), String> {
    if text.is_empty() {
        Ok(())
    } else {
        Err(format!("this version cannot use it ({instead}); leave it out"))
    }
}

fn location(text: &str) -> Result<Location, String> {
    text.parse().map_err(|error: InvalidLocation| error.to_string())
}

fn public_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("{text:?} is not a URL: {e}"))?;
    let plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/";
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !plain {
        return Err("give scheme, host and port only, such as https://login.example.com".to_owned());
    }
    Ok(url)
}

fn collector(text: &str) -> Result<Option<Url>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // It is not quoted: somebody may have put a password into it.
    let wrong = || {
        "give http:// or https://, host and port such as http://127.0.0.1:4318; what the collector wants to see besides, \
         such as a key, goes into the environment variable OTEL_EXPORTER_OTLP_HEADERS"
            .to_owned()
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !plain {
        return Err(wrong());
    }
    Ok(Some(url))
}

fn share(text: &str) -> Result<f64, String> {
    match parsed::<f64>("a number from 0 to 1, such as 0.1")(text)? {
        share if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{text:?} is not from 0 to 1")),
    }
}

fn log_directives(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|e| format!("give a level (error, warn, info, debug, trace) or tracing directives: {e}"))
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}

/// Whether NATS keeps the stream in memory.
fn storage(text: &str) -> Result<bool, String> {
    match text {
        "file" => Ok(false),
        "memory" => Ok(true),
        _ => Err(format!("{text:?} is neither file nor memory")),
    }
}

fn batch(text: &str) -> Result<usize, String> {
    match parsed::<usize>(POSITIVE)(text)? {
        events @ 1..=relay::MAX_BATCH => Ok(events),
        _ => Err(format!("it must be between 1 and {}", relay::MAX_BATCH)),
    }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

fn rate(text: &str) -> Result<Rate, String> {
    let wrong = || format!("{text:?} is not of the form 60/60 (requests/seconds)");
    let (requests, seconds) = text.split_once('/').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse().map_err(|_| wrong());
    Ok(Rate { requests: number(requests)?, seconds: number(seconds)? })
}

fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse()
                .or_else(|_| part.parse().map(|address: std::net::IpAddr| IpNet::from(address)))
                .map_err(|_| format!("{part:?} is neither a network such as 10.0.0.0/8 nor an address"))
        })
        .collect()
}

fn argon2_cost(text: &str) -> Result<Argon2Cost, String> {
    let wrong = || format!("{text:?} is not of the form m=19456,t=2,p=1 (memory in KiB, passes, lanes)");
    let mut numbers = BTreeMap::new();
    for part in text.split(',') {
        let (name, number) = part.trim().split_once('=').ok_or_else(wrong)?;
        let number: u32 = number.parse().map_err(|_| wrong())?;
        if !matches!(name, "m" | "t" | "p") || numbers.insert(name, number).is_some() {
            return Err(wrong());
        }
    }
    let number = |name| numbers.get(name).copied().ok_or_else(wrong);
    let cost = Argon2Cost { memory_kib: number("m")?, passes: number("t")?, lanes: number("p")? };
    let range = |name, value: u32, least, most| {
        if (least..=most).contains(&value) {
            Ok(())
        } else {
            Err(format!("{name} must be between {least} and {most}"))
        }
    };
    range("p", cost.lanes, 1, 16)?;
    // RFC 9106, section 3.1: at least 8 KiB a lane.
    range("m", cost.memory_kib, 8 * cost.lanes, 4 * 1024 * 1024)?;
    range("t", cost.passes, 1, 64)?;
    Ok(cost)
}

/// The candidate that is at most three edits away.
fn nearest(text: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (edits(text, &candidate), candidate))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl fmt::Display for Argon2Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={},t={},p={}", self.memory_kib, self.passes, self.lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> Result<Config, ConfigError> {
        let mut values = Values::default();
        values.set(key, key, value);
        Config::from_values(&mut values)
    }

    #[test]
    fn the_listed_defaults_are_the_defaults() {
        let bare = Config::from_values(&mut Values::default()).expect("defaults");
        for key in KEYS.iter().filter(|key| !key.default.is_empty() && !key.default.contains('<')) {
            let said = with(key.name, key.default).expect(key.name);
            assert_eq!(format!("{said:?}"), format!("{bare:?}"), "{}", key.name);
        }
    }

    #[test]
    fn every_key_is_read() {
        let mut values = Values::default();
        for key in KEYS {
            values.set(key.name, key.name, "");
        }
        for key in KEYS {
            let mut one = Values::default();
            one.set(key.name, key.name, "no value of any key \u{1}://");
            let wrong = Config::from_values(&mut one).is_err();
            assert!(wrong || one.0.is_empty(), "{} is never taken", key.name);
        }
    }

    #[test]
    fn refuses_bad_values_by_name() {
        for (key, value) in [
            ("listen", "8080"),
            ("public_url", "https://example.com/path"),
            ("public_url", "example.com"),
            ("nats_url", "http://localhost"),
            ("nats.batch", "1001"),
            ("nats.batch", "0"),
            ("nats.replicas", "0"),
            ("nats.storage", "disk"),
            ("nats.max_age", "1d"),
            ("journal_url", "mysql://localhost/journal"),
            ("journal_url", "postgres://localhost"),
            ("key_store_url", "postgres://localhost/keys"),
            ("postgres.connections", "0"),
            ("postgres.poll", "often"),
            ("log_format", "xml"),
            ("otlp_endpoint", "collector:4318"),
            ("otlp_endpoint", "grpc://collector:4317"),
            ("otlp_endpoint", "https://key@collector"),
            ("otlp.sampling", "10"),
            ("otlp.sampling", "NaN"),
            ("trusted_proxies", "10.0.0.0/99"),
            ("argon2", "m=1,t=1,p=1"),
            ("argon2", "m=19456,t=2"),
            ("argon2", "m=19456,t=2,p=1,p=1"),
            ("rate_limits", "yes"),
            ("limits.credentials", "0/60"),
            ("limits.general", "60"),
            ("limits.in_flight", "0"),
            ("limits.event_streams", "some"),
            ("lockout.failures", "0"),
            ("shutdown_timeout", "0"),
            ("cache.aggregates", "-1"),
        ] {
            let error = with(key, value).expect_err(value).to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }

    #[test]
    fn journal_and_keys_are_both_files_or_both_in_postgres() {
        let with_all = |pairs: &[(&str, &str)]| {
            let mut values = Values::default();
            for (key, value) in pairs {
                values.set(key, *key, *value);
            }
            Config::from_values(&mut values)
        };
        let journal = ("journal_url", "postgres://u:hunter2@db.example/auth");
        let master = ("master_key", "secret of all nodes");
        let config = with_all(&[journal, master]).expect("valid");
        let databases = config.databases.as_ref().expect("in PostgreSQL");
        assert_eq!(databases.journal.to_string(), "postgres://db.example:5432/auth");
        assert_eq!(databases.key_store.to_string(), databases.journal.to_string());
        assert_eq!(config.read_models.to_string(), databases.journal.to_string());
        assert!(!format!("{config:?}").contains("hunter2"));
        let apart = with_all(&[journal, master, ("key_store_url", "postgres://keys.example/keys")]);
        let apart = apart.expect("valid").databases.expect("in PostgreSQL");
        assert_eq!(apart.key_store.to_string(), "postgres://keys.example:5432/keys");

        let error = with_all(&[journal]).expect_err("no master key").to_string();
        assert!(error.contains("WATCHWORD_MASTER_KEY") && !error.contains("hunter2"), "{error}");
        let mixed = with_all(&[journal, master, ("key_store_url", "sqlite:keys.db")]);
        assert!(mixed.expect_err("mixed").to_string().starts_with("key_store_url"));
        assert!(with_all(&[("key_store_url", "postgres://localhost/keys"), master]).is_err());
    }

    #[test]
    fn only_the_journal_can_be_in_kurrentdb() {
        for key in ["read_models_url", "key_store_url"] {
            let error = with(key, "esdb://ada:hunter2@db.example").expect_err("is refused").to_string();
            assert!(error.starts_with(key) && error.contains("only the journal"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[cfg(not(feature = "kurrentdb"))]
    #[test]
    fn without_kurrentdb_it_is_told_how_to_build_with_it() {
        let error = with("journal_url", "esdb://ada:hunter2@db.example").expect_err("is refused").to_string();
        assert!(error.starts_with("journal_url") && error.contains("--features kurrentdb"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[cfg(feature = "kurrentdb")]
    #[test]
    fn a_journal_in_kurrentdb_has_its_keys_and_read_models_in_postgres() {
        let with_all = |pairs: &[(&str, &str)]| {
            let mut values = Values::default();
            for (key, value) in pairs {
                values.set(key, *key, *value);
            }
            Config::from_values(&mut values)
        };
        let journal = ("journal_url", "esdb://ada:hunter2@db.example?tls=false");
        let master = ("master_key", "secret of all nodes");
        let keys = ("key_store_url", "postgres://keys.example/keys");
        let config = with_all(&[journal, master, keys, ("data_dir", "here")]).expect("valid");
        let databases = config.databases.as_ref().expect("shared");
        assert_eq!(databases.journal.to_string(), "esdb://db.example:2113");
        let SharedJournal::Kurrent { replica, .. } = &databases.journal else { panic!("in KurrentDB") };
        assert_eq!(replica, Path::new("here/replica.db"));
        assert_eq!(databases.key_store.to_string(), "postgres://keys.example:5432/keys");
        assert_eq!(config.read_models.to_string(), databases.key_store.to_string());
        assert!(config.shares_stores() && !format!("{config:?}").contains("hunter2"));

        let without = |left_out: &str| {
            let pairs: Vec<_> =
                [journal, master, keys].into_iter().filter(|(key, _)| *key != left_out).collect();
            with_all(&pairs).expect_err(left_out).to_string()
        };
        assert!(without("key_store_url").starts_with("key_store_url"));
        assert!(without("master_key").contains("WATCHWORD_MASTER_KEY"));
        let error =
            with_all(&[journal, master, ("key_store_url", "keys.db")]).expect_err("a file").to_string();
        assert!(error.starts_with("key_store_url") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn takes_the_environment_over_the_file_and_names_what_it_does_not_know() {
        let mut values = Values::default();
        values.set("listen", "file", "127.0.0.1:1");
        let variables =
            [("WATCHWORD_LISTEN", "127.0.0.1:2"), ("WATCHWORD_SERVICE_HOST", "10.0.0.1"), ("PATH", "/")];
        values.read_environment(variables.map(|(k, v)| (k.into(), v.into())).into_iter()).expect("known");
        assert_eq!(Config::from_values(&mut values).expect("valid").listen.port(), 2);

        let error = Values::default()
            .read_environment([("WATCHWORD_LISTNE".into(), "x".into())].into_iter())
            .expect_err("unknown")
            .to_string();
        assert!(error.contains("WATCHWORD_LISTNE") && error.contains("WATCHWORD_LISTEN"), "{error}");
    }

    #[test]
    fn a_network_may_be_a_single_address() {
        let config = with("trusted_proxies", "10.0.0.0/8, ::1").expect("valid");
        assert_eq!(config.trusted_proxies.len(), 2);
    }
}
