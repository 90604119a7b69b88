//! An instance: the stores opened, and both services built on them, in one process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, bail};
use async_trait::async_trait;
use axum::Router;
use command_service::CommandService;
use command_service::locate::{JournalClaims, LocateUser};
use command_service::password_hashing::{PasswordHashing, PasswordHashingSettings};
use domain::app::App;
use domain::{AppId, Email, Permission, StreamId, UserId};
use event_store::{
    Clock, Journal, KeyStore, LookupKey, MasterKey, Repository, Sealer, SqliteJournal, StoreError,
    SystemClock,
};
use http_kit::request::Edge;
use http_kit::token::{ApiKeyToken, DerivedTokens};
use http_kit::{AccessTokens, Authenticator, RateClass, RateLimits};
use projection_service::ProjectionService;
use read_models::ReadModels;
use schemas::ActorKind;
use secrecy::SecretString;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

use crate::config::Config;
use crate::data_dir::{self, State};
use crate::root;

/// The opened stores. Opening refuses what is foreign, damaged, in use or of another master key, and then touches
/// nothing.
pub struct Stores {
    journal: Arc<SqliteJournal>,
    key_store: Arc<KeyStore>,
    sealer: Arc<Sealer>,
    lookup: Arc<LookupKey>,
    master_key: Arc<MasterKey>,
    read_models: Arc<ReadModels>,
}

impl Stores {
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let state = data_dir::inspect(config)?;
        let master_key = match (data_dir::master_key(config)?, state) {
            (Some(key), _) => key,
            (None, State::Fresh) => {
                data_dir::create(&config.data_dir)?;
                let key = MasterKey::generate();
                data_dir::write_secret(&config.master_key_file(), &key.to_base64())?;
                key
            }
            (None, State::Present) => {
                bail!("the master key {} is missing", config.master_key_file().display())
            }
        };
        data_dir::create(&config.data_dir)?;
        let journal = SqliteJournal::open(&config.journal).await?;
        match Self::open_beside(config, &journal, master_key).await {
            Ok(open) => Ok(open.with(Arc::new(journal))),
            Err(refusal) => {
                // Closed well, it leaves no -wal and -shm file in a folder that was refused.
                journal.close().await;
                Err(refusal)
            }
        }
    }

    /// Opens what belongs to the journal.
    async fn open_beside(
        config: &Config,
        journal: &SqliteJournal,
        master_key: MasterKey,
    ) -> anyhow::Result<Beside> {
        data_dir::require_key_store(config, journal.head().await?)?;
        let key_store = Arc::new(KeyStore::open(&config.key_store, &master_key).await?);
        let sealer = Arc::new(Sealer::new(Arc::clone(&key_store)));
        let lookup = Arc::new(LookupKey::new(&master_key));
        let read_models =
            ReadModels::open(&config.read_models, Arc::clone(&sealer), Arc::clone(&lookup)).await?;
        let (master_key, read_models) = (Arc::new(master_key), Arc::new(read_models));
        Ok(Beside { key_store, sealer, lookup, master_key, read_models })
    }

    pub fn journal(&self) -> &SqliteJournal {
        &self.journal
    }

    /// Tidies up. What is acknowledged is durable without it.
    pub async fn close(self) {
        let Self { journal, key_store, sealer, read_models, .. } = self;
        read_models.close().await;
        drop((key_store, sealer, read_models));
        if let Ok(journal) = Arc::try_unwrap(journal) {
            journal.close().await;
        }
    }
}

/// The stores but for the journal.
struct Beside {
    key_store: Arc<KeyStore>,
    sealer: Arc<Sealer>,
    lookup: Arc<LookupKey>,
    master_key: Arc<MasterKey>,
    read_models: Arc<ReadModels>,
}

impl Beside {
    fn with(self, journal: Arc<SqliteJournal>) -> Stores {
        let Self { key_store, sealer, lookup, master_key, read_models } = self;
        Stores { journal, key_store, sealer, lookup, master_key, read_models }
    }
}

/// A running instance.
pub struct Instance {
    address: SocketAddr,
    stores: Stores,
    repository: Arc<Repository>,
    clock: Arc<dyn Clock>,
    tokens: DerivedTokens,
    projections: Arc<ProjectionService>,
    health: Arc<Health>,
    router: Router,
    api: OpenApi,
}

impl Instance {
    /// Opens the stores and starts the services on them, to be reached at `address`.
    pub async fn open(config: &Config, address: SocketAddr) -> anyhow::Result<Self> {
        let stores = Stores::open(config).await?;
        Self::start(config, stores, address).await
    }

    /// Starts the services. A journal without events gets its first apps, and the platform's first key.
    pub async fn start(config: &Config, stores: Stores, address: SocketAddr) -> anyhow::Result<Self> {
        crate::metrics::start();
        let public_url = config.public_url(address).as_str().trim_end_matches('/').to_owned();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let journal: Arc<dyn Journal> = Arc::clone(&stores.journal) as Arc<dyn Journal>;
        let repository = Arc::new(Repository::new(
            Arc::clone(&journal),
            Arc::clone(&stores.sealer),
            config.cached_aggregates.get(),
        ));
        let tokens = DerivedTokens::new(&stores.master_key);
        let access_tokens = Arc::new(AccessTokens::new(&public_url));
        let authenticator = Arc::new(Authenticator::new(
            Arc::clone(&repository),
            Arc::clone(&access_tokens),
            tokens.clone(),
            Arc::clone(&clock),
        ));
        let limits = Arc::new(RateLimits::new(&config.limits));
        let locate = Arc::new(LocateByModel {
            models: Arc::clone(&stores.read_models),
            claims: JournalClaims::new(Arc::clone(&journal), Arc::clone(&stores.lookup)),
        });
        let passwords = PasswordHashing::start(&PasswordHashingSettings {
            params: config.argon2.to_string(),
            threads: config.hashing_threads.map(NonZeroUsize::get),
            queue: config.hashing_queue.map(NonZeroUsize::get),
        })?;
        let commands = CommandService::start(command_service::Parts {
            repository: Arc::clone(&repository),
            clock: Arc::clone(&clock),
            key_store: Arc::clone(&stores.key_store),
            lookup: Arc::clone(&stores.lookup),
            tokens: tokens.clone(),
            access_tokens,
            authenticator: Arc::clone(&authenticator),
            limits: Arc::clone(&limits),
            locate,
            passwords,
            settings: command_service::Settings { lockout: config.lockout },
        });
        bootstrap(config, &commands).await?;
        let projections = ProjectionService::start(projection_service::Parts {
            repository: Arc::clone(&repository),
            models: Arc::clone(&stores.read_models),
            authenticator,
            clock: Arc::clone(&clock),
        })
        .await?;
        let health = Arc::new(Health { journal, projections: Arc::clone(&projections) });
        let services = commands.router().merge(Arc::clone(&projections).router());
        // Routes of credentials have a narrower limit of their own inside this one; probes at the root have none.
        let services = services.layer(limits.layer(RateClass::General));
        let (router, api) = root::router(Arc::clone(&health), services);
        let edge = Edge::new(
            Arc::clone(&repository),
            Arc::clone(&clock),
            &stores.master_key,
            config.trusted_proxies.clone(),
        );
        let router = http_kit::around(router, Arc::new(edge));
        Ok(Self { address, stores, repository, clock, tokens, projections, health, router, api })
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All routes, with the layer around requests.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The API's document of all routes.
    pub fn api(&self) -> &OpenApi {
        &self.api
    }

    /// The position of the newest event.
    pub async fn head(&self) -> Result<u64, StoreError> {
        self.stores.journal.head().await
    }

    /// A key of the platform that is live. Keys are derived, so whoever has the master key has them.
    pub async fn platform_key(&self) -> anyhow::Result<SecretString> {
        let app_id = AppId::platform();
        let platform = self.repository.load::<App>(&app_id).await?;
        let now = self.clock.now();
        let key = platform
            .state
            .api_keys
            .iter()
            .find(|(_, key)| key.is_live(now) && key.permissions.contains(&Permission::Platform));
        let (key_id, _) = key.context("every platform key is revoked, so nothing can be changed any more")?;
        let key_id = *key_id;
        Ok(SecretString::from(ApiKeyToken { app_id, key_id }.encode(&self.tokens)))
    }

    /// Stops a projector, so that its read model stays as it is.
    pub async fn pause(&self, projector: &str) -> anyhow::Result<()> {
        if self.projections.pause(projector).await {
            Ok(())
        } else {
            bail!("there is no projector {projector}")
        }
    }

    /// Lets a stopped projector go on.
    pub fn resume(&self, projector: &str) -> anyhow::Result<()> {
        if self.projections.resume(projector) { Ok(()) } else { bail!("there is no projector {projector}") }
    }

    /// Reads the whole journal and looks for gaps.
    pub async fn check_journal(&self) -> Result<JournalReport, StoreError> {
        check_journal(&*self.stores.journal).await
    }

    /// What ends the streams of events: a server that stops would wait for their readers for ever.
    pub fn stream_end(&self) -> impl FnOnce() + Send + 'static {
        let projections = Arc::clone(&self.projections);
        move || projections.end_streams()
    }

    /// Ends the projectors and closes the stores.
    pub async fn close(self) {
        let Self { stores, repository, projections, health, router, .. } = self;
        projections.shutdown().await;
        drop((repository, projections, health, router));
        stores.close().await;
    }
}

/// Makes the first apps and the first platform key, and writes that key where its owner finds it. A file that is gone
/// is made again only while nobody has used the instance: later, its owner has taken it away.
async fn bootstrap(config: &Config, commands: &CommandService) -> anyhow::Result<()> {
    let Some(key) = commands.bootstrap().await.context("the first apps and keys cannot be made")? else {
        return Ok(());
    };
    let path = config.admin_key_file();
    let first = commands.repository.journal().read_all(0, 50).await?;
    let unused = first.iter().all(|event| event.metadata.actor.kind == ActorKind::System);
    if unused && !path.exists() {
        data_dir::write_secret(&path, &key)?;
    }
    Ok(())
}

/// What a look through the whole journal found.
#[derive(Debug, Default)]
pub struct JournalReport {
    pub events: u64,
    pub streams: usize,
    /// The first few things that are not as they should be.
    pub faults: Vec<String>,
}

const FAULTS: usize = 10;

async fn check_journal(journal: &dyn Journal) -> Result<JournalReport, StoreError> {
    let mut report = JournalReport::default();
    let mut versions: HashMap<StreamId, u64> = HashMap::new();
    let mut after = 0;
    loop {
        let events = journal.read_all(after, 1000).await?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            let mut fault = |text: String| {
                if report.faults.len() < FAULTS {
                    report.faults.push(text);
                }
            };
            if event.position != after + 1 {
                fault(format!("event {} follows event {after}", event.position));
            }
            after = event.position;
            let version = versions.entry(event.stream.clone()).or_default();
            if event.version != *version + 1 {
                fault(format!(
                    "{} has version {} after {version}, at event {after}",
                    event.stream, event.version
                ));
            }
            *version = event.version;
            report.events += 1;
        }
    }
    report.streams = versions.len();
    let head = journal.head().await?;
    if head != after {
        report.faults.push(format!("the journal says its head is {head}, but its last event is {after}"));
    }
    Ok(report)
}

/// Finds users by the read model, which takes no part of the writer's time, or else by the journal's claims.
struct LocateByModel {
    models: Arc<ReadModels>,
    claims: JournalClaims,
}

#[async_trait]
impl LocateUser for LocateByModel {
    async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError> {
        match self.models.login_checks().find(app_id, email).await {
            Ok(Some(user)) => Ok(Some(user)),
            Ok(None) => self.claims.locate(app_id, email).await,
            Err(error) => {
                tracing::warn!(%error, "the login_checks read model cannot be read");
                self.claims.locate(app_id, email).await
            }
        }
    }
}

/// What readiness rests on.
pub struct Health {
    pub journal: Arc<dyn Journal>,
    projections: Arc<ProjectionService>,
}

impl Health {
    /// Whether the service can do its work, and each check.
    pub async fn check(&self) -> (bool, Value) {
        let read = async {
            let head = self.journal.head().await?;
            let newest = self.journal.read_positions(&[head]).await?;
            if head > 0 && newest.is_empty() {
                return Err(StoreError::Damaged("the newest event is missing".to_owned()));
            }
            Ok(head)
        };
        let (journal_works, journal) = match read.await {
            Ok(head) => (true, json!({ "ok": true, "head": head })),
            Err(error) => {
                tracing::error!(%error, "the journal cannot be read");
                (false, json!({ "ok": false, "detail": "the journal cannot be read; the log says why" }))
            }
        };
        let projectors = self.projections.status();
        let models_work = projectors.iter().all(|projector| projector.state != "failed");
        let checks = json!({
            "journal": journal,
            "read_models": { "ok": models_work },
            "projectors": projectors,
        });
        (journal_works && models_work, checks)
    }
}
