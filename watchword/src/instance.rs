//! An instance: the stores opened, and both services built on them, in one process.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use axum::Router;
use command_service::CommandService;
use command_service::locate::{JournalClaims, LocateUser};
use command_service::passwords::hashing::{PasswordHashing, PasswordHashingSettings};
use dispatcher::DispatchError;
use domain::app::App;
use domain::session::SessionEvent;
use domain::user::User;
use domain::{AppId, Email, Event, LogOrigin, Permission, UserId};
use effects::mailer::{
    self, MailTransport, MailUrl, Mailer, MailerParts, MailerSettings, MailerStatus, Patience,
};
use effects::relay::{Relay, RelaySettings, RelayStatus};
use event_store::{
    Clock, InstanceKey, Journal, JournalLock, JournalMark, KeyStore, LookupKey, MasterKey, MessageKey,
    Repository, Sealer, SqliteJournal, StoreError, SystemClock,
};
use http_kit::request::RequestLayer;
use http_kit::{AccessLog, Authenticator, RateClass, RateLimits};
use projection_service::bus::Bus;
use projection_service::{BusStatus, ProjectionService, ProjectionStatus, SharingSettings};
use read_models::ReadModels;
use schemas::{ActorKind, RecordedEvent, codec};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokens::{AccessTokens, ApiKeyToken, DerivedTokens, PublicUrl};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::bus;
use crate::commands::rotate_master_key;
use crate::config::Config;
use crate::data_dir::{self, State};
use crate::init::hostname;
use crate::waiting::Part;
use crate::{journal_check, root};

/// The opened stores. Opening refuses what is foreign, damaged, in use or of another master key, and then touches
/// nothing.
pub struct Stores {
    journal: Arc<dyn Journal>,
    key_store: Arc<KeyStore>,
    sealer: Arc<Sealer>,
    lookup: Arc<LookupKey>,
    /// None: they are other processes'.
    read_models: Option<Arc<ReadModels>>,
}

impl Stores {
    /// Opens the journal and the keys: what a role needs that has no projectors.
    pub async fn open_truth(config: &Config) -> anyhow::Result<Self> {
        let state = data_dir::inspect(config)?;
        data_dir::require_own_secrets(config)?;
        let found = data_dir::master_key(config)?;
        if let Some(databases) = &config.databases {
            let master_key = found.context("the configuration has a master key")?;
            let (journal, key_store) = Box::pin(databases.open(&master_key)).await?;
            data_dir::create(&config.data_dir)?;
            return Ok(Self::new(journal, key_store));
        }
        if found.is_none() && state == State::Present {
            bail!("the master key {} is missing", config.master_key_file().display());
        }
        let is_new = found.is_none();
        let lock = JournalLock::take(&config.journal)?;
        let (master_key, rotated) = match found {
            Some(found) => rotate_master_key::opening(config, found).await?,
            None => (MasterKey::generate(), false),
        };
        look(config, &lock, &master_key).await?;
        // Nothing was touched so far.
        data_dir::create(&config.data_dir)?;
        if is_new {
            data_dir::write_secret(&config.master_key_file(), &master_key.to_base64())?;
        }
        if rotated {
            rotate_master_key::finish(config)?;
        }
        let lock = lock.make().await?;
        let key_store = KeyStore::open(&config.key_store, &master_key).await?;
        let journal = match SqliteJournal::open_locked(lock, &key_store.macs()).await {
            Ok(journal) => Arc::new(journal),
            Err(refusal) => {
                key_store.close().await;
                return Err(refusal.into());
            }
        };
        fail::fail_point!("before-mark", |_| std::process::abort());
        // Every event has its MAC now.
        if let Err(refusal) = key_store.mark(&master_key, &JournalMark::default()).await {
            journal.close().await;
            key_store.close().await;
            return Err(refusal).context("the key store cannot say that the journal's events carry MACs");
        }
        Ok(Self::new(journal, Arc::new(key_store)))
    }

    /// Opens the read models as well.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let mut stores = Self::open_truth(config).await?;
        let (sealer, lookup) = (Arc::clone(&stores.sealer), Arc::clone(&stores.lookup));
        match ReadModels::open(&config.read_models, sealer, lookup).await {
            Ok(read_models) => {
                stores.read_models = Some(Arc::new(read_models));
                Ok(stores)
            }
            Err(refusal) => {
                stores.close().await;
                Err(anyhow::Error::new(refusal).context(Part::ReadModels))
            }
        }
    }

    fn new(journal: Arc<dyn Journal>, key_store: Arc<KeyStore>) -> Self {
        Self {
            sealer: Arc::new(Sealer::new(Arc::clone(&key_store))),
            lookup: Arc::new(LookupKey::new(key_store.instance_key())),
            journal,
            key_store,
            read_models: None,
        }
    }

    pub fn journal(&self) -> &dyn Journal {
        &*self.journal
    }

    pub fn shared_journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// What marks the messages of this instance on the bus.
    pub fn message_key(&self) -> MessageKey {
        MessageKey::new(self.key_store.instance_key())
    }

    /// Begins to publish the journal.
    fn relay(&self, nats: async_nats::Client, origin: &LogOrigin, settings: RelaySettings) -> Arc<Relay> {
        Arc::new(Relay::start(nats, Arc::clone(&self.journal), origin.clone(), self.message_key(), settings))
    }

    /// What loads aggregates, within the memory that the configuration gives to it and to the keys of persons.
    pub fn repository(&self, config: &Config) -> Arc<Repository> {
        self.key_store.limit_cache(config.caches.data_keys);
        Arc::new(Repository::bounded(
            Arc::clone(&self.journal),
            Arc::clone(&self.sealer),
            config.caches.most_aggregates.get(),
            config.caches.aggregates,
        ))
    }

    /// The way that events come to a node of projections at this address.
    fn bus(&self, nats: &async_nats::Client, address: SocketAddr) -> Bus {
        Bus { nats: nats.clone(), consumer: bus::consumer_name(address), key: self.message_key() }
    }

    /// Tidies up: only the stores themselves stay in the folder, nothing beside them. What is acknowledged is durable
    /// without it.
    pub async fn close(&self) {
        if let Some(read_models) = &self.read_models {
            read_models.close().await;
        }
        self.key_store.close().await;
        self.journal.close().await;
    }
}

/// Looks at all that is there, and changes nothing.
async fn look(config: &Config, lock: &JournalLock, master_key: &MasterKey) -> anyhow::Result<()> {
    let head = lock.head().await?;
    data_dir::require_key_store(config, head.unwrap_or_default())?;
    if config.key_store.exists() {
        let key_store = KeyStore::look(&config.key_store, master_key).await?;
        let macs = key_store.macs();
        key_store.close().await;
        if head.is_some() {
            SqliteJournal::look(lock, &macs).await?.close().await;
        }
    }
    if config.read_models.file().is_none_or(Path::exists) {
        ReadModels::look(&config.read_models).await.context(Part::ReadModels)?;
    }
    Ok(())
}

/// Which part of the work an instance does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    All,
    /// The routes that change something, and the relay.
    Commands,
    /// The projectors and the routes that read.
    Projections,
}

impl Role {
    /// As operators and collectors know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Commands => "commands",
            Self::Projections => "projections",
        }
    }
}

/// A running instance.
pub struct Instance {
    address: SocketAddr,
    stores: Arc<Stores>,
    repository: Arc<Repository>,
    clock: Arc<dyn Clock>,
    tokens: DerivedTokens,
    projections: Option<Arc<ProjectionService>>,
    commands: Option<Arc<CommandService>>,
    relay: Option<Arc<Relay>>,
    mailer: Option<Arc<Mailer>>,
    routers: Routers,
    /// The path of the public URL.
    prefix: String,
}

impl Instance {
    /// Opens the stores and starts the services on them for a short while, to be reached at `address`. What they write
    /// is published to NATS by the next server, which also sends the mails.
    pub async fn open(config: &Config, address: SocketAddr) -> anyhow::Result<Self> {
        let stores = Box::pin(Stores::open(config)).await?;
        let config = Config { nats: None, mail: None, ..config.clone() };
        Box::pin(Self::start(&config, stores, address, Role::All)).await
    }

    /// Starts the services of a role. A journal without events gets its first apps, and the platform's first key.
    pub async fn start(
        config: &Config,
        stores: Stores,
        address: SocketAddr,
        role: Role,
    ) -> anyhow::Result<Self> {
        let stores = Arc::new(stores);
        match Self::assemble(config, Arc::clone(&stores), address, role).await {
            Ok(instance) => Ok(instance),
            Err(error) => {
                stores.close().await;
                Err(error)
            }
        }
    }

    async fn assemble(
        config: &Config,
        stores: Arc<Stores>,
        address: SocketAddr,
        role: Role,
    ) -> anyhow::Result<Self> {
        crate::metrics::start();
        let public_url = config.public_url(address);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let journal = Arc::clone(&stores.journal);
        // Before anything else is written: it is the first event of a journal.
        let origin = event_store::origin::establish(&*journal, &*clock, &config.log_origin(address)?).await?;
        let repository = stores.repository(config);
        let tokens = tokens(config, stores.key_store.instance_key())?;
        let access_tokens = Arc::new(AccessTokens::new(public_url.clone()).with_leeway(config.clock_leeway));
        access_tokens.limit_cache(config.caches.access_tokens);
        let authenticator = Arc::new(Authenticator::new(
            Arc::clone(&repository),
            Arc::clone(&access_tokens),
            tokens.clone(),
            Arc::clone(&clock),
        ));
        let limits = Arc::new(RateLimits::new(&config.limits));
        let nats = match &config.nats {
            Some(nats) => Some((bus::connect(nats).await?, nats.relay.clone())),
            None => None,
        };
        let node = config.projections_node.clone().unwrap_or_else(|| node_name(&*clock));
        let mut services = OpenApiRouter::new();
        let mut commands = None;
        if role != Role::Projections {
            let service = CommandService::start(command_service::Parts {
                repository: Arc::clone(&repository),
                clock: Arc::clone(&clock),
                key_store: Arc::clone(&stores.key_store),
                lookup: Arc::clone(&stores.lookup),
                tokens: tokens.clone(),
                access_tokens: Arc::clone(&access_tokens),
                authenticator: Arc::clone(&authenticator),
                limits: Arc::clone(&limits),
                locate: locate(&stores, &repository),
                passwords: start_hashing(config)?,
                settings: settings(config, &public_url),
            });
            bootstrap(config, &service).await?;
            mailer::begin(&**service.repository.journal()).await?;
            services = services.merge(Arc::clone(&service).router());
            commands = Some(service);
        }
        let mut projections = None;
        if let Some(models) = &stores.read_models {
            // In one process the journal itself is the nearest feed.
            let nats = nats.as_ref().filter(|_| role == Role::Projections);
            let service = ProjectionService::start(projection_service::Parts {
                repository: Arc::clone(&repository),
                models: Arc::clone(models),
                authenticator: Arc::clone(&authenticator),
                access_log: Arc::new(AccessLog::new(Arc::clone(&repository), Arc::clone(&clock))),
                clock: Arc::clone(&clock),
                origin: origin.clone(),
                bus: nats.map(|(nats, _)| stores.bus(nats, address)),
                sharing: SharingSettings { node: node.clone(), lease: config.projections_lease },
                event_streams: config.event_streams,
                exports: config.exports,
                window_bytes: usize::try_from(config.caches.events).unwrap_or(usize::MAX),
            })
            .await?;
            services = services.merge(Arc::clone(&service).router());
            projections = Some(service);
        }
        // Nothing from here on can fail, and leave behind what has begun.
        let mailer = commands.as_ref().and_then(|service| start_mailer(config, service, &public_url, &node));
        let publishes = nats.filter(|_| role != Role::Projections);
        let relay = publishes.map(|(nats, settings)| stores.relay(nats, &origin, settings));
        let edge = edge(config, &stores, &repository, &clock).below(public_url.prefix());
        let health = Health {
            authenticator,
            journal,
            repository: Arc::clone(&repository),
            access_tokens,
            limits: Arc::clone(&limits),
            commands: commands.clone(),
            key_store: Arc::clone(&stores.key_store),
            read_models: stores.read_models.clone(),
            projections: projections.clone(),
            relay: relay.clone(),
            mailer: mailer.clone(),
        };
        // Routes of credentials have a narrower limit of their own inside this one; probes at the root have none.
        let services = services.layer(limits.layer(RateClass::General).by_key(tokens.clone()));
        let routers = Routers::new(health, services, edge, origin, &public_url);
        let prefix = public_url.prefix().to_owned();
        Ok(Self {
            address,
            stores,
            repository,
            clock,
            tokens,
            projections,
            commands,
            relay,
            mailer,
            routers,
            prefix,
        })
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All routes, with the layer around requests.
    pub fn router(&self) -> Router {
        self.routers.public.clone()
    }

    /// The routes of the internal address, with the same layer.
    pub fn internal_router(&self) -> Router {
        self.routers.internal.clone()
    }

    /// The same below the path of the public URL, as clients see it.
    pub fn mounted(&self) -> Router {
        http_kit::mounted(self.router(), &self.prefix)
    }

    /// The API's document of all routes.
    pub fn api(&self) -> &OpenApi {
        &self.routers.api
    }

    /// As `/readyz` names the instance.
    pub fn public_id(&self) -> String {
        self.stores.key_store.instance_key().public_id()
    }

    /// Makes another key of the platform, whatever became of those before.
    pub async fn make_platform_key(&self, name: &str) -> anyhow::Result<SecretString> {
        let commands = self.commands.as_ref().context("this process takes no commands")?;
        commands.make_platform_key(name).await.map_err(|error| match error {
            DispatchError::Refused(refusal) => refusal.into(),
            other => other.into(),
        })
    }

    /// Who has this address in the app, by the journal's claim.
    pub async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError> {
        let claims = JournalClaims::new(Arc::clone(&self.repository), Arc::clone(&self.stores.lookup));
        claims.locate(app_id, email).await
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
        let (key_id, _) = key.context(
            "every platform key is revoked. Make one: watchword api-key create platform --name <name>",
        )?;
        let key_id = *key_id;
        Ok(SecretString::from(ApiKeyToken { app_id, key_id }.encode(&self.tokens)))
    }

    /// Stops a projector, so that its read model stays as it is.
    pub async fn pause(&self, projector: &str) -> anyhow::Result<()> {
        match &self.projections {
            Some(projections) if projections.pause(projector).await => Ok(()),
            _ => bail!("there is no projector {projector}"),
        }
    }

    /// Lets a stopped projector go on.
    pub async fn resume(&self, projector: &str) -> anyhow::Result<()> {
        match &self.projections {
            Some(projections) if projections.resume(projector).await => Ok(()),
            _ => bail!("there is no projector {projector}"),
        }
    }

    /// Reads the whole journal, and looks for what must not be.
    pub async fn check_journal(&self) -> Result<journal_check::Report, StoreError> {
        journal_check::check(&self.repository, self.clock.now(), |_, _| {}).await
    }

    /// Everybody who may have a session: who began one that was not revoked, as the events say. A claim for each is kept, too,
    /// but whoever can write to the store can take one away. `at` hears how far it has come.
    pub async fn users_with_sessions(
        &self,
        mut at: impl FnMut(u64),
    ) -> anyhow::Result<BTreeSet<(AppId, UserId)>> {
        let mut sessions = HashMap::new();
        let mut after = 0;
        loop {
            let events = self.stores.journal.read_all(after, 1000).await?;
            let Some(last) = events.last() else { break };
            after = last.position;
            for recorded in events.iter().filter(|it| it.stream.aggregate() == "session") {
                let RecordedEvent { stream, name, schema_version, data, .. } = recorded;
                match codec::decode(stream, name, *schema_version, data, None)? {
                    Event::Session(SessionEvent::SessionStarted(event)) => {
                        sessions.insert(stream.clone(), (event.app_id, event.user_id));
                    }
                    Event::Session(SessionEvent::SessionRevoked(_)) => drop(sessions.remove(stream)),
                    _ => {}
                }
            }
            at(after);
        }
        let mut users = BTreeSet::new();
        for (app_id, user_id) in sessions.into_values() {
            if !self.repository.load::<User>(&user_id).await?.state.erased {
                users.insert((app_id, user_id));
            }
        }
        Ok(users)
    }

    /// What ends the streams of events: a server that stops would wait for their readers for ever.
    pub fn stream_end(&self) -> impl FnOnce() + Send + 'static {
        let projections = self.projections.clone();
        move || {
            if let Some(projections) = projections {
                projections.end_streams();
            }
        }
    }

    /// Ends the mailer, the relay and the projectors, and closes the stores.
    pub async fn close(self) {
        if let Some(mailer) = &self.mailer {
            mailer.shutdown().await;
        }
        if let Some(relay) = &self.relay {
            relay.shutdown().await;
        }
        if let Some(projections) = &self.projections {
            projections.shutdown().await;
        }
        self.stores.close().await;
    }
}

/// The routes of both addresses, with the layer around requests.
struct Routers {
    public: Router,
    internal: Router,
    api: OpenApi,
}

impl Routers {
    fn new(
        health: Health,
        services: OpenApiRouter,
        edge: RequestLayer,
        origin: LogOrigin,
        public_url: &PublicUrl,
    ) -> Self {
        let (health, edge) = (Arc::new(health), Arc::new(edge));
        let (public, api) = root::router(Arc::clone(&health), services, origin, public_url);
        let public = http_kit::around(public, Arc::clone(&edge));
        Self { public, internal: http_kit::around(root::internal(health), edge), api }
    }
}

/// What tokens are made and read with, a platform key of the configuration included. That may be one that this instance made, as
/// it lay in `admin.key`.
fn tokens(config: &Config, instance: &InstanceKey) -> anyhow::Result<DerivedTokens> {
    let tokens = DerivedTokens::new(instance);
    let Some(key) = &config.admin_key else { return Ok(tokens) };
    let text = key.expose_secret();
    if ApiKeyToken::decode(&tokens, text).is_some_and(|key| key.app_id.is_platform()) {
        return Ok(tokens);
    }
    if text.starts_with(API_KEY) {
        bail!(
            "admin_key (WATCHWORD_ADMIN_KEY) is an API key of another instance or of an app. Bring a platform key of this one, or a \
             secret of your own: openssl rand -base64 32"
        );
    }
    Ok(tokens.with_platform_key(text))
}

/// What API keys that were made by an instance begin with.
const API_KEY: &str = "wwk_";

/// The host, which tells people where to look, and a random part, as two processes of a host are two nodes.
fn node_name(clock: &dyn Clock) -> String {
    let id = clock.new_id().simple().to_string();
    format!("{}-{}", hostname(), &id[id.len() - 8..])
}

/// Makes the first apps and the first platform key, and writes that key where its owner finds it. A file that is gone
/// is made again only while nobody has used the instance: later, its owner has taken it away.
async fn bootstrap(config: &Config, commands: &CommandService) -> anyhow::Result<()> {
    let Some(key) = commands.bootstrap().await.context("the first apps and keys cannot be made")? else {
        return Ok(());
    };
    let path = config.admin_key_file();
    // Whoever brings the key knows where it is.
    if path.exists() || config.admin_key.is_some() {
        return Ok(());
    }
    let first = commands.repository.journal().read_all(0, 50).await?;
    if first.iter().all(|event| event.metadata.actor.kind == ActorKind::System) {
        data_dir::write_secret(&path, &key)?;
    }
    Ok(())
}

/// The layer around requests.
fn edge(
    config: &Config,
    stores: &Stores,
    repository: &Arc<Repository>,
    clock: &Arc<dyn Clock>,
) -> RequestLayer {
    let proxies = config.trusted_proxies.clone();
    RequestLayer::new(Arc::clone(repository), Arc::clone(clock), stores.key_store.instance_key(), proxies)
        .limited_to(config.requests_in_flight)
}

/// What of the configuration commands go by.
fn settings(config: &Config, public_url: &PublicUrl) -> command_service::Settings {
    command_service::Settings {
        lockout: config.lockout,
        device_ttl: config.device_ttl,
        sessions: config.sessions_of_a_user,
        breached_passwords: config.breached_passwords.clone(),
        senders: config.senders(public_url),
    }
}

fn start_hashing(config: &Config) -> anyhow::Result<PasswordHashing> {
    Ok(PasswordHashing::start(&PasswordHashingSettings {
        params: config.argon2.to_string(),
        threads: config.hashing_threads.map(NonZeroUsize::get),
        queue: config.hashing_queue.map(NonZeroUsize::get),
    })?)
}

/// Sends what the commands of this process and others ask for, behind where [`mailer::begin`] saw to it that somebody does.
fn start_mailer(
    config: &Config,
    commands: &CommandService,
    public_url: &PublicUrl,
    node: &str,
) -> Option<Arc<Mailer>> {
    let mail = config.mail.as_ref()?;
    if let MailUrl::Files(folder) = &mail.url {
        let folder = folder.display();
        tracing::warn!("no mail is sent: each is written to {folder} until mail_url names a mail server");
    }
    let post = MailTransport::new(mail.url.clone(), public_url.host_str(), Patience::default());
    if let Some(server) = post.server() {
        let _ = commands.mail_server.set(server);
    }
    Some(Arc::new(Mailer::start(MailerParts {
        repository: Arc::clone(&commands.repository),
        dispatcher: commands.dispatcher.clone(),
        clock: Arc::clone(&commands.clock),
        tokens: commands.tokens.clone(),
        access_tokens: Arc::clone(&commands.access_tokens),
        post,
        settings: MailerSettings {
            node: node.to_owned(),
            lease: MailerSettings::LEASE,
            policy: mail.policy,
            senders: config.senders(public_url),
        },
    })))
}

/// By the read models, unless they are other processes'.
fn locate(stores: &Stores, repository: &Arc<Repository>) -> Arc<dyn LocateUser> {
    let claims = JournalClaims::new(Arc::clone(repository), Arc::clone(&stores.lookup));
    match &stores.read_models {
        Some(models) => {
            let (models, repository) = (Arc::clone(models), Arc::clone(repository));
            Arc::new(LocateByModel { models, repository, claims })
        }
        None => Arc::new(claims),
    }
}

/// How long the read model may take. Its connections are those of the lists, too: a costly search must not hold up
/// logins, and the claims answer without it.
const MODEL_TIME: Duration = Duration::from_millis(50);

/// Finds users by the read model, so that logins leave the journal's readers to the commands. A row can be behind, so
/// one counts only if its user has the address; whatever else happens, the journal's claim decides.
struct LocateByModel {
    models: Arc<ReadModels>,
    repository: Arc<Repository>,
    claims: JournalClaims,
}

#[async_trait]
impl LocateUser for LocateByModel {
    async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError> {
        let found = tokio::time::timeout(MODEL_TIME, self.models.login_checks().find(app_id, email)).await;
        let found = found.unwrap_or(Ok(None)).unwrap_or_else(|error| {
            tracing::warn!(%error, "the login_checks read model cannot be read");
            None
        });
        if let Some(user_id) = found {
            let user = self.repository.load::<User>(&user_id).await?;
            if user.state.is_of(app_id) && user.state.email.as_ref() == Some(email) {
                return Ok(Some(user_id));
            }
        }
        self.claims.locate(app_id, email).await
    }
}

/// What readiness rests on, and what metrics tell of.
pub struct Health {
    pub authenticator: Arc<Authenticator>,
    journal: Arc<dyn Journal>,
    repository: Arc<Repository>,
    access_tokens: Arc<AccessTokens>,
    limits: Arc<RateLimits>,
    commands: Option<Arc<CommandService>>,
    key_store: Arc<KeyStore>,
    read_models: Option<Arc<ReadModels>>,
    projections: Option<Arc<ProjectionService>>,
    relay: Option<Arc<Relay>>,
    mailer: Option<Arc<Mailer>>,
}

impl Health {
    /// Names the instance, so that two can be told apart.
    pub fn instance(&self) -> String {
        self.key_store.instance_key().public_id()
    }

    /// Whether the service can do its work, and each check with how far it has come.
    pub async fn check(&self) -> (bool, Value) {
        let read_models = async {
            match &self.read_models {
                Some(read_models) => Some(read_models.check().await),
                None => None,
            }
        };
        let (journal, key_store, read_models) =
            tokio::join!(self.read_journal(), self.key_store.check(), read_models);
        let mut ready = true;
        let mut judge = |store: &'static str, read: Result<Value, StoreError>| match read {
            Ok(details) => details,
            Err(error) => {
                tracing::error!(store, %error, "not ready: a store cannot be read");
                ready = false;
                json!({ "ok": false, "detail": "it cannot be read; the log says why" })
            }
        };
        let ok = |()| json!({ "ok": true });
        let damaged = self.key_store.macs().damage();
        let is_whole = damaged.is_empty();
        let mut checks = json!({
            "journal": judge("journal", journal.map(|head| json!({ "ok": is_whole, "head": head }))),
            "key_store": judge("key store", key_store.map(ok)),
        });
        // What rests on these events is refused, and everything else goes on.
        if !is_whole {
            let positions: Vec<u64> = damaged.iter().map(|(position, _)| *position).collect();
            checks["journal"]["damaged"] = positions.into();
            checks["journal"]["detail"] =
                "these events are not as this instance wrote them; the log and `watchword doctor` say why"
                    .into();
        }
        if let Some(read_models) = read_models {
            checks["read_models"] = judge("read models", read_models.map(ok));
        }
        if let Some(projections) = &self.projections {
            let projectors: Vec<Value> = projections.status().iter().map(projector).collect();
            ready &= projectors.iter().all(|projector| projector["ok"] == true);
            checks["projectors"] = projectors.into();
        }
        if let Some(bus) = self.projections.as_ref().and_then(|projections| projections.bus_status()) {
            checks["bus"] = bus_check(&bus);
        }
        // Events that are not published yet keep nobody from logging in: it is told, and the service stays ready.
        if let Some(relay) = &self.relay {
            checks["relay"] = relay_check(&relay.status());
        }
        if let Some(mailer) = &self.mailer {
            checks["mailer"] = mailer_check(&mailer.status());
        }
        (ready, checks)
    }

    /// Tells metrics what there is at this moment. It asks no store, so that it answers when none does.
    pub fn measure(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53 events")]
        metrics::gauge!("journal_head").set(*self.journal.watch_head().borrow() as f64);
        self.journal.measure();
        self.repository.measure();
        self.key_store.measure();
        if let Some(read_models) = &self.read_models {
            read_models.measure();
        }
        self.access_tokens.measure();
        self.limits.measure();
        if let Some(commands) = &self.commands {
            commands.measure();
        }
    }

    /// Reads the newest event, and answers with its position.
    async fn read_journal(&self) -> Result<u64, StoreError> {
        let head = self.journal.head().await?;
        match self.journal.read_positions(&[head]).await {
            Ok(events) if head > 0 && events.is_empty() => {
                Err(StoreError::Damaged("the newest event is missing".to_owned()))
            }
            // It is told apart from a journal that cannot be read.
            Err(StoreError::Damaged(_)) if !self.key_store.macs().damage().is_empty() => Ok(head),
            Err(error) => Err(error),
            Ok(_) => Ok(head),
        }
    }
}

/// One that lags or was paused is no reason to send requests elsewhere: no decision rests on it.
fn projector(status: &ProjectionStatus) -> Value {
    let mut check = json!({
        "name": status.name,
        "ok": status.state != "failed",
        "state": status.state,
        "position": status.position,
        "lag": status.lag,
    });
    if let Some(position) = status.failed_position {
        check["failed_position"] = position.into();
        check["detail"] = format!(
            "it cannot get past event {position}; the log, GET /v1/projections and `watchword doctor` say why"
        )
        .into();
    }
    check
}

/// What is not believed is read from the journal: it keeps nobody from anything, but somebody should know.
fn bus_check(status: &BusStatus) -> Value {
    let BusStatus { forged, unmarked, unreadable, last_refused, error } = status;
    let mut check = json!({
        "ok": *forged == 0 && error.is_none(),
        "state": if error.is_none() { "following" } else { "away" },
        "forged": forged, "unmarked": unmarked, "unreadable": unreadable, "last_refused": last_refused,
    });
    if *forged > 0 {
        check["detail"] =
            "messages of the stream are not this instance's, and were not believed: find out who can write \
            to it, see «When the stream is wrong» in deploy/README.md"
                .into();
    } else if error.is_some() {
        check["detail"] = "events come from the journal, not from NATS; the log says why".into();
    }
    check
}

/// One that stands still keeps nobody from logging in.
fn relay_check(status: &RelayStatus) -> Value {
    let RelayStatus { state, position, lag, error } = status;
    let mut check = json!({ "ok": error.is_none(), "state": state, "position": position, "lag": lag });
    if let Some(error) = error {
        check["detail"] = format!("events are not published for now: {error}").into();
    }
    check
}

/// Mails that wait or were given up keep nobody from logging in with a password.
fn mailer_check(status: &MailerStatus) -> Value {
    let MailerStatus { state, position, waiting, failed, error } = status;
    let mut check = json!({
        "ok": error.is_none(), "state": state, "position": position, "waiting": waiting, "failed": failed,
    });
    if error.is_some() {
        check["detail"] = "no mail is sent for now; the log says why".into();
    }
    check
}
