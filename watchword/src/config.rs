//! Configuration: `watchword.toml`, each key overridden by an environment variable.
//!
//! Every key is in [`KEYS`]. An unknown key, an invalid value, and a secret in a file that others can read are errors
//! that name the key and say what to do.

mod keys;
mod parse;
mod stores;
mod values;
mod webhooks;
mod witnesses;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::journal::InvalidOrigin;
use domain::lockout::LockoutPolicy;
use domain::{Email, LogOrigin};
use effects::mailer::{DeliveryPolicy, MailUrl};
use effects::outbound::AllowedNetworks;
use effects::relay::RelaySettings;
use effects::senders::{SenderDomains, Senders};
use event_store::location::Location;
use http_kit::limits::RateSettings;
use http_kit::places::Shares;
use http_kit::{BodyTime, Discard, Rest};
use ipnet::IpNet;
use projection_service::{CheckpointSettings, WitnessSettings};
use secrecy::SecretString;
use tokens::PublicUrl;
use url::Url;

pub use self::keys::{KEYS, file_variable, from_files, variable};
use self::keys::{Key, OptionalKey};
use self::parse::log_format;
use self::stores::{UseOfDatabases, journal_and_keys};
use self::values::Values;
pub use self::values::{ConfigError, refuse_world_readable};
use crate::connections::HttpSettings;
use crate::databases::Databases;
use crate::traces::TraceSettings;

/// The default configuration file.
const DEFAULT_FILE: &str = "watchword.toml";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The cost of a password hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

/// The configuration, fully validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from, if any.
    pub file: Option<PathBuf>,
    pub listen: SocketAddr,
    /// For metrics and readiness without a key; `None` disables it.
    pub internal_listen: Option<SocketAddr>,
    /// None: derived from the listen address.
    pub public_url: Option<PublicUrl>,
    /// None: the public URL at the first start.
    pub log_origin: Option<LogOrigin>,
    pub data_dir: PathBuf,
    /// Whether it was configured, rather than the default.
    pub names_data_dir: bool,
    /// In PostgreSQL; None: in the files named here.
    pub databases: Option<Databases>,
    pub journal: PathBuf,
    pub read_models: Location,
    /// None: generated at each start.
    pub projections_node: Option<String>,
    pub projections_lease: Duration,
    pub key_store: PathBuf,
    pub master_key: Option<SecretString>,
    /// A platform key created by the operator. None: the first start creates one.
    pub admin_key: Option<SecretString>,
    pub log: String,
    pub log_format: LogFormat,
    /// How often in a row a background task may fail.
    pub task_failures: u32,
    /// Room for lines of the log that cannot be written yet, in bytes.
    pub log_buffer: u64,
    pub trusted_proxies: Vec<IpNet>,
    pub argon2: Argon2Cost,
    pub shutdown_timeout: Duration,
    pub limits: RateSettings,
    pub lockout: LockoutPolicy,
    /// How long, in seconds, a known device is counted separately from strangers.
    pub device_ttl: u32,
    /// How far, in seconds, another node's clock may be ahead.
    pub clock_leeway: u32,
    /// None: no list is queried.
    pub breached_passwords: Option<Url>,
    /// None: there is no bus.
    pub nats: Option<Nats>,
    /// None: no traces are sent.
    pub traces: Option<TraceSettings>,
    /// The maximum at a time; further requests get 503. The caller is an address here.
    pub requests_in_flight: Shares,
    pub http: HttpSettings,
    pub body_time: BodyTime,
    /// The longest that a request takes once all of it has come.
    pub request_time: Duration,
    /// The maximum of open connections.
    pub connections: usize,
    /// What is read of a body after its response was made.
    pub rest: Rest,
    /// The bytes from which a response is compressed; None: none is.
    pub compress_from: Option<u64>,
    pub event_streams: Shares,
    pub exports: Shares,
    pub checkpoints: CheckpointSettings,
    /// Who is asked to sign checkpoints too.
    pub witnesses: Vec<WitnessSettings>,
    pub sessions_of_a_user: NonZeroUsize,
    /// None: another process sends the mails.
    pub mail: Option<Mail>,
    /// The sender of mails. None: derived from the public URL.
    pub mail_sender: Option<Email>,
    pub sender_domains: SenderDomains,
    /// What webhooks may reach, besides public addresses.
    pub webhook_networks: AllowedNetworks,
    pub webhooks: webhooks::WebhookConfig,
    pub caches: Caches,
    /// Bytes of free space that are enough, in each folder that the service writes to.
    pub storage_free: u64,
    pub hashing_threads: Option<NonZeroUsize>,
    pub hashing_queue: Option<NonZeroUsize>,
    /// The maximum cost of verifying an imported password hash, in PBKDF2 iterations.
    pub imported_hash_cost: u32,
    /// How many imports of users are carried out at a time.
    pub imports_at_once: NonZeroUsize,
}

/// Cache sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Caches {
    /// The maximum number of aggregates, whatever their size.
    pub most_aggregates: NonZeroUsize,
    pub aggregates: u64,
    pub data_keys: u64,
    pub access_tokens: u64,
    /// Decoded events, for projectors slightly behind.
    pub events: u64,
}

/// Mail delivery.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The destination.
    pub url: MailUrl,
    pub policy: DeliveryPolicy,
}

/// The bus.
#[derive(Debug, Clone)]
pub struct Nats {
    /// The servers' addresses, which may contain a password.
    pub url: SecretString,
    pub credentials: Option<PathBuf>,
    pub relay: RelaySettings,
}

impl Config {
    /// Reads the file (by default `watchword.toml`, if it exists) and the environment.
    ///
    /// `data_dir` is the folder given on the command line.
    pub fn load(file: Option<&Path>, data_dir: Option<&Path>) -> Result<Self, ConfigError> {
        let mut values = Values::default();
        let default_file = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| default_file.exists().then_some(default_file));
        if let Some(path) = file {
            values.read_file(path)?;
        }
        values.read_environment(std::env::vars_os())?;
        if let Some(folder) = data_dir {
            values.set("data_dir", "--data", folder.display().to_string());
        }
        let names_data_dir = values.has("data_dir");
        let mut config = Self::from_values(&mut values)?;
        config.names_data_dir = names_data_dir;
        config.file = file.map(Path::to_owned);
        Ok(config)
    }

    /// The requested log format, even if the rest of the configuration is invalid.
    pub fn log_format_asked(file: Option<&Path>) -> LogFormat {
        let by_variable =
            std::env::var(variable(keys::LOG_FORMAT.name)).ok().filter(|value| !value.is_empty());
        let by_file = || {
            let text = std::fs::read_to_string(file.unwrap_or(Path::new(DEFAULT_FILE))).ok()?;
            Some(text.parse::<toml::Table>().ok()?.get(keys::LOG_FORMAT.name)?.as_str()?.to_owned())
        };
        let asked = by_variable.or_else(by_file);
        asked.and_then(|value| log_format(&value).ok()).unwrap_or(LogFormat::Text)
    }

    /// The defaults, with everything in one folder.
    pub fn in_folder(data_dir: &Path) -> Self {
        let mut values = Values::default();
        values.set("data_dir", "the folder", data_dir.display().to_string());
        Self::from_values(&mut values).expect("the defaults are valid")
    }

    fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        let data_dir = PathBuf::from(values.take(&keys::DATA_DIR)?);
        let master_key = values.take_given(&keys::MASTER_KEY)?;
        let admin_key = values.take_given(&keys::ADMIN_KEY)?;
        let role = values.take(&keys::POSTGRES_ROLE)?;
        let rest = rest(values)?;
        let request_time: Duration = values.take(&keys::HTTP_REQUEST_TIME)?;
        let use_of = UseOfDatabases { role, answer: request_time / 2 };
        let (databases, journal, key_store) =
            journal_and_keys(values, &data_dir, &use_of, master_key.is_some())?;
        Ok(Self {
            file: None,
            listen: values.take(&keys::LISTEN)?,
            internal_listen: values.take_given(&keys::INTERNAL_LISTEN)?,
            public_url: values.take_given(&keys::PUBLIC_URL)?,
            log_origin: values.take_given(&keys::LOG_ORIGIN)?,
            read_models: match (values.take_given(&keys::READ_MODELS_URL)?, &databases) {
                (Some(location), _) => use_of.of(location),
                (None, Some(databases)) => Location::Postgres(databases.read_models()),
                (None, None) => Location::File(data_dir.join("read-models.db")),
            },
            databases,
            journal,
            projections_node: values.take_given(&keys::PROJECTIONS_NODE)?,
            projections_lease: values.take(&keys::PROJECTIONS_LEASE)?,
            key_store,
            master_key,
            admin_key,
            log: values.take(&keys::LOG)?,
            log_format: values.take(&keys::LOG_FORMAT)?,
            log_buffer: values.take(&keys::LOG_BUFFER)?,
            task_failures: values.take(&keys::TASK_FAILURES)?,
            trusted_proxies: values.take(&keys::TRUSTED_PROXIES)?,
            argon2: values.take(&keys::ARGON2)?,
            shutdown_timeout: values.take(&keys::SHUTDOWN_TIMEOUT)?,
            limits: limits(values)?,
            lockout: LockoutPolicy {
                failures: values.take(&keys::LOCKOUT_FAILURES)?,
                window: values.take(&keys::LOCKOUT_WINDOW)?,
                first_lock: values.take(&keys::LOCKOUT_FIRST_LOCK)?,
                longest_lock: values.take(&keys::LOCKOUT_LONGEST_LOCK)?,
            },
            device_ttl: values.take(&keys::LOCKOUT_DEVICE_TTL)?,
            clock_leeway: values.take(&keys::CLOCK_LEEWAY)?,
            breached_passwords: values.take_given(&keys::BREACHED_PASSWORDS_URL)?.flatten(),
            nats: nats(values)?,
            traces: traces(values)?,
            http: http(values, rest.after)?,
            request_time,
            body_time: BodyTime {
                longest: values.take(&keys::HTTP_BODY_TIME)?,
                rate: values.take(&keys::HTTP_BODY_RATE)?.get() as u64,
            },
            connections: values.take(&keys::HTTP_CONNECTIONS)?.get(),
            rest,
            compress_from: values.take(&keys::HTTP_COMPRESS_FROM)?,
            requests_in_flight: SharesOf {
                total: &keys::LIMITS_IN_FLIGHT,
                of_an_app: &keys::LIMITS_IN_FLIGHT_OF_AN_APP,
                of_a_caller: &keys::LIMITS_IN_FLIGHT_OF_AN_ADDRESS,
                reserve: &keys::LIMITS_IN_FLIGHT_RESERVE,
            }
            .take(values, |total| Shares { of_an_app: (total / 4 * 3).max(1), ..Shares::of(total) })?,
            event_streams: SharesOf {
                total: &keys::LIMITS_EVENT_STREAMS,
                of_an_app: &keys::LIMITS_EVENT_STREAMS_OF_AN_APP,
                of_a_caller: &keys::LIMITS_EVENT_STREAMS_OF_A_CALLER,
                reserve: &keys::LIMITS_EVENT_STREAMS_RESERVE,
            }
            .take(values, Shares::of)?,
            exports: SharesOf {
                total: &keys::LIMITS_EXPORTS,
                of_an_app: &keys::LIMITS_EXPORTS_OF_AN_APP,
                of_a_caller: &keys::LIMITS_EXPORTS_OF_A_CALLER,
                reserve: &keys::LIMITS_EXPORTS_RESERVE,
            }
            .take(values, Shares::of)?,
            checkpoints: checkpoints(values)?,
            witnesses: values.take(&keys::WITNESSES)?,
            sessions_of_a_user: values.take(&keys::LIMITS_SESSIONS)?,
            mail_sender: values.take_given(&keys::MAIL_SENDER)?,
            sender_domains: values.take(&keys::MAIL_SENDER_DOMAINS)?,
            webhooks: webhooks::webhooks(values)?,
            webhook_networks: AllowedNetworks::new(values.take(&keys::ALLOWED_WEBHOOK_NETWORKS)?),
            mail: Some(mail(values, &data_dir)?),
            caches: Caches {
                most_aggregates: values.take(&keys::CACHE_AGGREGATES)?,
                aggregates: values.take(&keys::CACHE_AGGREGATES_MIB)?,
                data_keys: values.take(&keys::CACHE_DATA_KEYS_MIB)?,
                access_tokens: values.take(&keys::CACHE_ACCESS_TOKENS_MIB)?,
                events: values.take(&keys::CACHE_EVENTS_MIB)?,
            },
            storage_free: values.take(&keys::STORAGE_FREE_MIB)?,
            hashing_threads: values.take_given(&keys::PASSWORD_HASHING_THREADS)?,
            hashing_queue: values.take_given(&keys::PASSWORD_HASHING_QUEUE)?,
            imported_hash_cost: values.take(&keys::IMPORT_MAX_HASH_COST)?,
            imports_at_once: values.take(&keys::IMPORT_AT_ONCE)?,
            data_dir,
            names_data_dir: true,
        })
    }

    /// The allowed senders.
    pub fn senders(&self, public_url: &PublicUrl) -> Senders {
        let of_host = || Email::parse(&format!("no-reply@{}", public_url.host_str())).ok();
        // RFC 2606 section 2: a domain without an owner.
        let nobody = || Email::parse("no-reply@watchword.invalid").expect("an address");
        let own = self.mail_sender.clone().or_else(of_host).unwrap_or_else(nobody);
        Senders { own, domains: self.sender_domains.clone() }
    }

    /// Whether several processes can open the stores concurrently.
    pub fn shares_stores(&self) -> bool {
        self.databases.is_some()
    }

    /// Where the next master key is kept until the key store opens with it.
    pub fn next_master_key_file(&self) -> PathBuf {
        self.data_dir.join("master.key.new")
    }

    /// The file with the master key, unless the key itself is configured.
    pub fn master_key_file(&self) -> PathBuf {
        self.data_dir.join("master.key")
    }

    /// The file with the first platform key.
    pub fn admin_key_file(&self) -> PathBuf {
        self.data_dir.join("admin.key")
    }

    /// Where the platform key is, as text for people.
    pub fn where_admin_key_is(&self) -> String {
        let file = self.admin_key_file();
        if self.admin_key.is_some() {
            "the one of the configuration (admin_key, WATCHWORD_ADMIN_KEY)".to_owned()
        } else if file.exists() {
            format!("in {}", file.display())
        } else {
            format!(
                "no longer in {}; use your copy, or create another: watchword api-key create platform --name <name>",
                file.display()
            )
        }
    }

    /// The URL at which clients reach the service when it listens on `listening`.
    pub fn public_url(&self, listening: SocketAddr) -> PublicUrl {
        self.public_url.clone().unwrap_or_else(|| {
            let host = if listening.ip().is_unspecified() {
                format!("localhost:{}", listening.port())
            } else {
                listening.to_string()
            };
            PublicUrl::parse(&format!("http://{host}")).expect("an address and a port make a URL")
        })
    }
}

/// The configuration keys of one shared limit.
struct SharesOf {
    total: &'static Key<NonZeroUsize>,
    of_an_app: &'static OptionalKey<NonZeroUsize>,
    of_a_caller: &'static OptionalKey<NonZeroUsize>,
    reserve: &'static OptionalKey<usize>,
}

impl SharesOf {
    /// `default` computes the shares that the operator did not set.
    fn take(self, values: &mut Values, default: impl FnOnce(usize) -> Shares) -> Result<Shares, ConfigError> {
        let total = values.take(self.total)?.get();
        let default = default(total);
        Ok(Shares {
            total,
            of_an_app: values.take_given(self.of_an_app)?.map_or(default.of_an_app, NonZeroUsize::get),
            of_a_caller: values.take_given(self.of_a_caller)?.map_or(default.of_a_caller, NonZeroUsize::get),
            reserve: values.take_given(self.reserve)?.unwrap_or(default.reserve),
        })
    }
}

fn rest(values: &mut Values) -> Result<Rest, ConfigError> {
    let before = Discard {
        bytes: values.take(&keys::HTTP_UNREAD_BYTES)?,
        time: values.take(&keys::HTTP_UNREAD_TIME)?,
    };
    let after = Discard {
        bytes: values.take(&keys::HTTP_LINGER_BYTES)?,
        time: values.take(&keys::HTTP_LINGER_TIME)?,
    };
    Ok(Rest { before, after })
}

fn http(values: &mut Values, linger: Discard) -> Result<HttpSettings, ConfigError> {
    Ok(HttpSettings {
        head_time: values.take(&keys::HTTP_HEAD_TIME)?,
        idle_time: values.take(&keys::HTTP_IDLE_TIME)?,
        head_bytes: values.take(&keys::HTTP_HEAD_BYTES)?,
        linger,
        streams: values.take(&keys::HTTP2_REQUESTS)?,
        resets: values.take(&keys::HTTP2_RESETS)?.get(),
    })
}

fn limits(values: &mut Values) -> Result<RateSettings, ConfigError> {
    Ok(RateSettings {
        enabled: values.take(&keys::RATE_LIMITS)?,
        credentials: values.take(&keys::LIMITS_CREDENTIALS)?,
        mail: values.take(&keys::LIMITS_MAIL)?,
        mailbox: values.take(&keys::LIMITS_MAILBOX)?,
        mails: values.take(&keys::LIMITS_MAILS)?,
        known_mails: values.take(&keys::LIMITS_KNOWN_MAILS)?,
        invitations: values.take(&keys::LIMITS_INVITATIONS)?,
        server: values.take(&keys::LIMITS_SERVER)?,
        person: values.take(&keys::LIMITS_PERSON)?,
        general: values.take(&keys::LIMITS_GENERAL)?,
    })
}

impl Config {
    /// The origin for a journal that has none yet. An existing origin is kept.
    pub fn log_origin(&self, listening: SocketAddr) -> Result<LogOrigin, InvalidOrigin> {
        match &self.log_origin {
            Some(origin) => Ok(origin.clone()),
            None => LogOrigin::parse(self.public_url(listening).as_str()),
        }
    }
}

/// The section `nats` is validated even without a server.
fn nats(values: &mut Values) -> Result<Option<Nats>, ConfigError> {
    let url = values.take_given(&keys::NATS_URL)?.flatten();
    let credentials = values.take_given(&keys::NATS_CREDENTIALS)?.map(PathBuf::from);
    let relay = RelaySettings {
        replicas: values.take(&keys::NATS_REPLICAS)?.get(),
        in_memory: values.take(&keys::NATS_STORAGE)?,
        max_age: values.take(&keys::NATS_MAX_AGE)?,
        max_bytes: values.take(&keys::NATS_MAX_BYTES)?,
        duplicate_window: values.take(&keys::NATS_DUPLICATE_WINDOW)?,
        batch: values.take(&keys::NATS_BATCH)?,
        check_interval: values.take(&keys::NATS_CHECK_INTERVAL)?,
        rebuild_interval: values.take(&keys::NATS_REBUILD_INTERVAL)?,
    };
    Ok(url.map(|url| Nats { url, credentials, relay }))
}

/// The section `otlp` is validated even without a collector.
fn traces(values: &mut Values) -> Result<Option<TraceSettings>, ConfigError> {
    let endpoint = values.take_given(&keys::OTLP_ENDPOINT)?.flatten();
    let sampling = values.take(&keys::OTLP_SAMPLING)?;
    Ok(endpoint.map(|endpoint| TraceSettings { endpoint, sampling }))
}

fn mail(values: &mut Values, data_dir: &Path) -> Result<Mail, ConfigError> {
    let url = values.take_given(&keys::MAIL_URL)?;
    Ok(Mail {
        url: url.unwrap_or_else(|| MailUrl::Files(data_dir.join("outbox"))),
        policy: DeliveryPolicy {
            attempts: values.take(&keys::MAIL_ATTEMPTS)?,
            first_pause: values.take(&keys::MAIL_FIRST_PAUSE)?,
            longest_pause: values.take(&keys::MAIL_LONGEST_PAUSE)?,
        },
    })
}

fn checkpoints(values: &mut Values) -> Result<CheckpointSettings, ConfigError> {
    Ok(CheckpointSettings {
        interval: values.take(&keys::CHECKPOINT_INTERVAL)?,
        events: values.take(&keys::CHECKPOINT_EVENTS)?.get() as u64,
        key_overlap: values.take(&keys::CHECKPOINT_KEY_OVERLAP)?,
    })
}

impl fmt::Display for Argon2Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={},t={},p={}", self.memory_kib, self.passes, self.lanes)
    }
}

#[cfg(test)]
mod tests;
