//! Configuration: `watchword.toml`, each key overridden by an environment variable.
//!
//! Every key is in [`KEYS`]. A key that is not, a value that is not one, and a file with a secret that others can
//! read are errors which name it and say what to do.

mod keys;
mod parse;
mod stores;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::journal::InvalidOrigin;
use domain::lockout::LockoutPolicy;
use domain::{Email, LogOrigin};
use effects::mailer::{DeliveryPolicy, InvalidMailUrl, MailUrl};
use effects::relay::RelaySettings;
use effects::senders::{InvalidSenderDomain, SenderDomains, Senders};
use event_store::location::Location;
use http_kit::limits::RateSettings;
use http_kit::places::Shares;
use ipnet::IpNet;
use projection_service::SharingSettings;
use secrecy::SecretString;
use tokens::PublicUrl;
use url::Url;

pub use self::keys::{FROM_FILES, KEYS, file_variable, variable};
use self::parse::{
    POSITIVE, admin_key, argon2_cost, batch, collector, list_url, location, log_directives, log_format,
    networks, non_empty, on_or_off, parsed, positive, public_url, rate, share, storage,
};
use self::stores::{journal_and_keys, role, with_role};
use self::values::Values;
pub use self::values::{ConfigError, refuse_world_readable};
use crate::bus;
use crate::databases::Databases;
use crate::traces::TraceSettings;

/// The configuration file, unless another one is named.
const DEFAULT_FILE: &str = "watchword.toml";

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
    /// For metrics and readiness without a key; none unless it is given.
    pub internal_listen: Option<SocketAddr>,
    /// None: made from the address listened on.
    pub public_url: Option<PublicUrl>,
    /// None: the public URL at the first start.
    pub log_origin: Option<LogOrigin>,
    pub data_dir: PathBuf,
    /// Whether somebody named it, or it is the one that holds where nobody did.
    pub names_data_dir: bool,
    /// In PostgreSQL; None: in the files named here.
    pub databases: Option<Databases>,
    pub journal: PathBuf,
    pub read_models: Location,
    /// None: made at each start.
    pub projections_node: Option<String>,
    pub projections_lease: Duration,
    pub key_store: PathBuf,
    pub master_key: Option<SecretString>,
    /// A platform key that was made elsewhere. None: the first start makes one.
    pub admin_key: Option<SecretString>,
    pub log: String,
    pub log_format: LogFormat,
    pub trusted_proxies: Vec<IpNet>,
    pub argon2: Argon2Cost,
    pub shutdown_timeout: Duration,
    pub limits: RateSettings,
    pub lockout: LockoutPolicy,
    /// Seconds that a device which was in an account is counted apart from strangers.
    pub device_ttl: u32,
    /// Seconds that another node's clock may be ahead.
    pub clock_leeway: u32,
    /// None: no such list is asked.
    pub breached_passwords: Option<Url>,
    /// None: there is no bus.
    pub nats: Option<Nats>,
    /// None: there are no traces.
    pub traces: Option<TraceSettings>,
    /// At a time; more are told 503. A caller is an address here.
    pub requests_in_flight: Shares,
    pub event_streams: Shares,
    pub exports: Shares,
    pub sessions_of_a_user: NonZeroUsize,
    /// None: mails wait for a process that sends them.
    pub mail: Option<Mail>,
    /// Whom mails come from. None: made from the public URL.
    pub mail_sender: Option<Email>,
    pub sender_domains: SenderDomains,
    pub caches: Caches,
    pub hashing_threads: Option<NonZeroUsize>,
    pub hashing_queue: Option<NonZeroUsize>,
}

/// What is kept in memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Caches {
    /// How many aggregates, whatever they take.
    pub most_aggregates: NonZeroUsize,
    pub aggregates: u64,
    pub data_keys: u64,
    pub access_tokens: u64,
    /// Decoded events, for projectors that come a little later.
    pub events: u64,
}

/// The sending of mails.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Where they go.
    pub url: MailUrl,
    pub policy: DeliveryPolicy,
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
    ///
    /// `data_dir` is the folder that the command line names.
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

    /// The form of the log that is asked for, even where the rest of the configuration cannot be read.
    pub fn log_format_asked(file: Option<&Path>) -> LogFormat {
        let by_variable = std::env::var(variable("log_format")).ok().filter(|value| !value.is_empty());
        let by_file = || {
            let text = std::fs::read_to_string(file.unwrap_or(Path::new(DEFAULT_FILE))).ok()?;
            Some(text.parse::<toml::Table>().ok()?.get("log_format")?.as_str()?.to_owned())
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
        let data_dir =
            PathBuf::from(values.take("data_dir", non_empty)?.unwrap_or_else(|| "./data".to_owned()));
        let master_key = values.take("master_key", |text| non_empty(text).map(SecretString::from))?;
        let admin_key = values.take("admin_key", admin_key)?;
        let (databases, journal, key_store) = journal_and_keys(values, &data_dir, master_key.is_some())?;
        let limits = RateSettings::default();
        let limits = RateSettings {
            enabled: values.take("rate_limits", on_or_off)?.unwrap_or(limits.enabled),
            credentials: values.take("limits.credentials", rate)?.unwrap_or(limits.credentials),
            mail: values.take("limits.mail", rate)?.unwrap_or(limits.mail),
            mailbox: values.take("limits.mailbox", rate)?.unwrap_or(limits.mailbox),
            mails: values.take("limits.mails", rate)?.unwrap_or(limits.mails),
            known_mails: values.take("limits.known_mails", rate)?.unwrap_or(limits.known_mails),
            server: values.take("limits.server", rate)?.unwrap_or(limits.server),
            person: values.take("limits.person", rate)?.unwrap_or(limits.person),
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
        let device_ttl = number(values, "lockout.device_ttl", 180 * 86_400)?;
        let clock_leeway = values.take("clock_leeway", parsed("a number of seconds"))?;
        Ok(Self {
            file: None,
            listen: values
                .take("listen", parsed("an address and a port such as 127.0.0.1:8080"))?
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            internal_listen: values
                .take("internal_listen", parsed("an address and a port such as 127.0.0.1:9090"))?,
            public_url: values.take("public_url", public_url)?,
            log_origin: values
                .take("log_origin", |text| LogOrigin::parse(text).map_err(|error| error.to_string()))?,
            read_models: match (values.take("read_models_url", location)?, &databases) {
                (Some(location), _) => with_role(location, &role(values)?),
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
            admin_key,
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
            device_ttl,
            clock_leeway: clock_leeway.unwrap_or(60),
            breached_passwords: values.take("breached_passwords_url", list_url)?.flatten(),
            nats: nats(values)?,
            traces: traces(values)?,
            requests_in_flight: shares(values, "limits.in_flight", 4096, "of_an_address", |total| Shares {
                of_an_app: (total / 4 * 3).max(1),
                of_a_caller: (total / 4).max(1),
                ..Shares::of(total)
            })?,
            event_streams: shares(values, "limits.event_streams", 256, "of_a_caller", Shares::of)?,
            exports: shares(values, "limits.exports", 32, "of_a_caller", Shares::of)?,
            sessions_of_a_user: values
                .take("limits.sessions", parsed(POSITIVE))?
                .unwrap_or(const { positive(1000) }),
            mail_sender: values.take("mail.sender", |text| {
                Email::parse(text).map_err(|_| "it is no address such as no-reply@example.com".to_owned())
            })?,
            sender_domains: values
                .take("mail.sender_domains", |text| {
                    text.parse().map_err(|error: InvalidSenderDomain| error.to_string())
                })?
                .unwrap_or_default(),
            mail: Some(mail(values, &data_dir)?),
            caches: caches(values)?,
            hashing_threads: values.take("password_hashing.threads", parsed(POSITIVE))?,
            hashing_queue: values.take("password_hashing.queue", parsed(POSITIVE))?,
            data_dir,
            names_data_dir: true,
        })
    }

    /// Whom mails may come from.
    pub fn senders(&self, public_url: &PublicUrl) -> Senders {
        let of_host = || Email::parse(&format!("no-reply@{}", public_url.host_str())).ok();
        // RFC 2606 section 2: nobody's domain.
        let nobody = || Email::parse("no-reply@watchword.invalid").expect("an address");
        let own = self.mail_sender.clone().or_else(of_host).unwrap_or_else(nobody);
        Senders { own, domains: self.sender_domains.clone() }
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

    /// Where the platform key is, for people.
    pub fn where_admin_key_is(&self) -> String {
        let file = self.admin_key_file();
        if self.admin_key.is_some() {
            "the one of the configuration (admin_key, WATCHWORD_ADMIN_KEY)".to_owned()
        } else if file.exists() {
            format!("in {}", file.display())
        } else {
            format!(
                "not in {} any more; use the copy you keep, or make another: watchword api-key create platform --name <name>",
                file.display()
            )
        }
    }

    /// Where clients reach the service when it listens on `listening`.
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

/// How many there may be at a time (`total`, unless the operator says otherwise), and whose share is how large.
fn shares(
    values: &mut Values,
    key: &str,
    total: usize,
    of_a_caller: &str,
    default: impl Fn(usize) -> Shares,
) -> Result<Shares, ConfigError> {
    let number = |values: &mut Values, key: &str, default: usize| {
        Ok::<_, ConfigError>(values.take(key, parsed(POSITIVE))?.map_or(default, NonZeroUsize::get))
    };
    let total = number(values, key, total)?;
    let default = default(total);
    let reserve = values.take(&format!("{key}_reserve"), parsed("a whole number"))?;
    Ok(Shares {
        total,
        of_an_app: number(values, &format!("{key}_of_an_app"), default.of_an_app)?,
        of_a_caller: number(values, &format!("{key}_{of_a_caller}"), default.of_a_caller)?,
        reserve: reserve.unwrap_or(default.reserve),
    })
}

fn caches(values: &mut Values) -> Result<Caches, ConfigError> {
    let mib = |values: &mut Values, key: &str, default: u32| {
        let mib: Option<NonZeroU32> = values.take(key, parsed(POSITIVE))?;
        Ok::<_, ConfigError>(u64::from(mib.map_or(default, NonZeroU32::get)) << 20)
    };
    Ok(Caches {
        most_aggregates: values.take("cache.aggregates", parsed(POSITIVE))?.unwrap_or(positive(100_000)),
        aggregates: mib(values, "cache.aggregates_mib", 32)?,
        data_keys: mib(values, "cache.data_keys_mib", 8)?,
        access_tokens: mib(values, "cache.access_tokens_mib", 8)?,
        events: mib(values, "cache.events_mib", 8)?,
    })
}

impl Config {
    /// What a journal that has no origin yet gets as its own. One that has keeps it, whatever this is.
    pub fn log_origin(&self, listening: SocketAddr) -> Result<LogOrigin, InvalidOrigin> {
        match &self.log_origin {
            Some(origin) => Ok(origin.clone()),
            None => LogOrigin::parse(self.public_url(listening).as_str()),
        }
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
        rebuild_interval: number(values, "nats.rebuild_interval")?.map(Duration::from_secs),
    };
    Ok(url.flatten().map(|url| Nats { url, credentials, relay }))
}

/// The section `otlp` is checked even where no collector is given.
fn traces(values: &mut Values) -> Result<Option<TraceSettings>, ConfigError> {
    let endpoint = values.take("otlp_endpoint", collector)?.flatten();
    let sampling = values.take("otlp.sampling", share)?.unwrap_or(1.0);
    Ok(endpoint.map(|endpoint| TraceSettings { endpoint, sampling }))
}

fn mail(values: &mut Values, data_dir: &Path) -> Result<Mail, ConfigError> {
    let url =
        values.take("mail_url", |text| text.parse().map_err(|error: InvalidMailUrl| error.to_string()))?;
    let default = DeliveryPolicy::default();
    let number = |values: &mut Values, key: &str, default: u32| {
        Ok::<_, ConfigError>(values.take(key, parsed(POSITIVE))?.map_or(default, NonZeroU32::get))
    };
    Ok(Mail {
        url: url.unwrap_or_else(|| MailUrl::Files(data_dir.join("outbox"))),
        policy: DeliveryPolicy {
            attempts: number(values, "mail.attempts", default.attempts)?,
            first_pause: number(values, "mail.first_pause", default.first_pause)?,
            longest_pause: number(values, "mail.longest_pause", default.longest_pause)?,
        },
    })
}

impl fmt::Display for Argon2Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={},t={},p={}", self.memory_kib, self.passes, self.lanes)
    }
}

#[cfg(test)]
mod tests;
