//! An instance: the opened stores, and both services built on them, in one process.

mod clock;
mod health;
mod locate;
mod looking;
mod loss;
mod senders;
pub mod storage;
mod stores;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, bail};
use command_service::CommandService;
use command_service::locate::{JournalClaims, LocateUser};
use command_service::passwords::hashing::{PasswordHashing, PasswordHashingSettings};
use dispatcher::DispatchError;
use domain::app::App;
use domain::session::SessionEvent;
use domain::user::User;
use domain::{AppId, Email, Event, LogOrigin, Permission, UserId};
use effects::Effect;
use effects::relay::Relay;
use event_store::{Clock, InstanceKey, Repository, StoreError, SystemClock};
use http_kit::request::RequestLayer;
use http_kit::{AccessLog, Authenticator, Entrance, RateClass, RateLimits};
use projection_service::{ProjectionService, SharingSettings};
use schemas::{ActorKind, RecordedEvent, codec};
use secrecy::{ExposeSecret, SecretString};
use tokens::{AccessTokens, ApiKeyToken, DerivedTokens, PublicUrl};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use self::health::Health;
use self::locate::locate;
pub use self::looking::Looked;
pub use self::loss::{LostSigned, of_signed};
use self::storage::StorageWatch;
pub use self::stores::Stores;
use crate::config::Config;
use crate::init::hostname;
use crate::{bus, data_dir, journal_check, root};

/// The part of the work that an instance does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    All,
    /// The routes that change state, and the relay.
    Commands,
    /// The projectors and the routes that read.
    Projections,
}

impl Role {
    /// The name for operators and collectors.
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
    mailer: Option<Arc<Effect>>,
    webhooks: Option<Arc<Effect>>,
    routers: Routers,
    /// The path of the public URL.
    prefix: String,
}

impl Instance {
    /// Opens the stores and starts the services briefly, to be reached at `address`. The next server publishes their
    /// events to NATS and sends their mails.
    pub async fn open(config: &Config, address: SocketAddr) -> anyhow::Result<Self> {
        let stores = Box::pin(Stores::open(config)).await?;
        let config = Config { nats: None, mail: None, ..config.clone() };
        Box::pin(Self::start(&config, stores, address, Role::All)).await
    }

    /// Starts the services of a role. A journal without events gets its first apps, and the first platform key.
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
        let origin = stores.establish(&*clock, &config.log_origin(address)?).await?;
        let repository = stores.repository(config);
        let latest = stores.look_at_newest(&clock, &repository).await?;
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
        let nats = bus::configured(config.nats.as_ref()).await?;
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
            senders::begin(&**service.repository.journal()).await?;
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
                checkpoints: config.checkpoints,
                witnesses: config.witnesses.clone(),
            })
            .await?;
            services = services.merge(Arc::clone(&service).router());
            projections = Some(service);
        }
        // From here on nothing can fail and leave background tasks behind.
        let (mailer, webhooks) = senders::start(config, &stores, commands.as_deref(), &origin, &node);
        let publishes = nats.filter(|_| role != Role::Projections);
        let relay = publishes.map(|(nats, settings)| stores.relay(nats, &origin, settings));
        let edge = edge(config, &stores, &repository, &clock).below(public_url.prefix());
        let health = Health {
            storage: StorageWatch::start(config, &stores),
            latest,
            authenticator,
            journal: Arc::clone(&stores.journal),
            repository: Arc::clone(&repository),
            access_tokens,
            limits: Arc::clone(&limits),
            commands: commands.clone(),
            key_store: Arc::clone(&stores.key_store),
            read_models: stores.read_models.clone(),
            projections: projections.clone(),
            relay: relay.clone(),
            mailer: mailer.clone(),
            webhooks: webhooks.clone(),
        };
        // Credential routes have a narrower limit of their own inside this one; probes at the root have none.
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
            webhooks,
            routers,
            prefix,
        })
    }

    /// The address it is reached at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All routes, with the layer around requests.
    pub fn router(&self) -> Entrance {
        self.routers.public.clone()
    }

    /// The routes of the internal address, with the same layer.
    pub fn internal_router(&self) -> Entrance {
        self.routers.internal.clone()
    }

    /// The same below the path of the public URL, as clients see it.
    pub fn mounted(&self) -> Entrance {
        self.router().below(&self.prefix)
    }

    /// The API document of all routes.
    pub fn api(&self) -> &OpenApi {
        &self.routers.api
    }

    /// The instance's name in `/readyz`.
    pub fn public_id(&self) -> String {
        self.stores.key_store.instance_key().public_id()
    }

    /// Creates another platform key, whatever happened to earlier ones.
    pub async fn make_platform_key(&self, name: &str) -> anyhow::Result<SecretString> {
        let commands = self.commands.as_ref().context("this process takes no commands")?;
        commands.make_platform_key(name).await.map_err(|error| match error {
            DispatchError::Refused(refusal) => refusal.into(),
            other => other.into(),
        })
    }

    /// The user of this address in the app, by the journal's claim.
    pub async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError> {
        let claims = JournalClaims::new(Arc::clone(&self.repository), Arc::clone(&self.stores.lookup));
        claims.locate(app_id, email).await
    }

    /// The position of the newest event.
    pub async fn head(&self) -> Result<u64, StoreError> {
        self.stores.journal.head().await
    }

    /// A live platform key. Keys are derived, so the holder of the master key has them.
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
            "every platform key is revoked. Create one: watchword api-key create platform --name <name>",
        )?;
        let key_id = *key_id;
        Ok(SecretString::from(ApiKeyToken { app_id, key_id }.encode(&self.tokens)))
    }

    /// Pauses a projector, so that its read model stays as it is.
    pub async fn pause(&self, projector: &str) -> anyhow::Result<()> {
        match &self.projections {
            Some(projections) if projections.pause(projector).await => Ok(()),
            _ => bail!("there is no projector {projector}"),
        }
    }

    /// Resumes a paused projector.
    pub async fn resume(&self, projector: &str) -> anyhow::Result<()> {
        match &self.projections {
            Some(projections) if projections.resume(projector).await => Ok(()),
            _ => bail!("there is no projector {projector}"),
        }
    }

    /// Reads the whole journal and checks its consistency.
    pub async fn check_journal(&self) -> Result<journal_check::Report, StoreError> {
        journal_check::check(&self.repository, self.clock.now(), None, |_, _| {}).await
    }

    /// All users who may have a session: those who started one that was not revoked, according to the events. There is a claim
    /// for each, but anybody who can write to the store can remove one. `at` receives the progress.
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

    /// Ends the event streams: otherwise a stopping server would wait indefinitely for their readers.
    pub fn stream_end(&self) -> impl FnOnce() + Send + 'static {
        let projections = self.projections.clone();
        move || {
            if let Some(projections) = projections {
                projections.end_streams();
            }
        }
    }

    /// Stops the mailer, the sender of webhooks, the relay and the projectors, and closes the stores.
    pub async fn close(self) {
        if let Some(mailer) = &self.mailer {
            mailer.shutdown().await;
        }
        if let Some(webhooks) = &self.webhooks {
            webhooks.shutdown().await;
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
    public: Entrance,
    internal: Entrance,
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

/// What tokens are derived and recognized with, including a configured platform key. That may be one that this instance created,
/// as found in `admin.key`.
fn tokens(config: &Config, instance: &InstanceKey) -> anyhow::Result<DerivedTokens> {
    let tokens = DerivedTokens::new(instance);
    let Some(key) = &config.admin_key else { return Ok(tokens) };
    let text = key.expose_secret();
    if ApiKeyToken::decode(&tokens, text).is_some_and(|key| key.app_id.is_platform()) {
        return Ok(tokens);
    }
    if text.starts_with(API_KEY) {
        bail!(
            "admin_key (WATCHWORD_ADMIN_KEY) is an API key of another instance or of an app. Configure a platform key of this one, or a \
             secret of your own: openssl rand -base64 32"
        );
    }
    Ok(tokens.with_platform_key(text))
}

/// The prefix of API keys created by an instance.
const API_KEY: &str = "wwk_";

/// The host name as a hint for people, and a random part, because two processes on a host are two nodes.
fn node_name(clock: &dyn Clock) -> String {
    let id = clock.new_id().simple().to_string();
    format!("{}-{}", hostname(), &id[id.len() - 8..])
}

/// Creates the first apps and the first platform key, and writes that key where its owner finds it. A missing file is
/// recreated only while the instance is unused: later, its owner has removed it.
async fn bootstrap(config: &Config, commands: &CommandService) -> anyhow::Result<()> {
    let Some(key) = commands.bootstrap().await.context("cannot create the first apps and keys")? else {
        return Ok(());
    };
    let path = config.admin_key_file();
    // The operator who configured the key knows where it is.
    if (path.exists() && !data_dir::is_empty(&path)) || config.admin_key.is_some() {
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
        .limited_to(config.requests_in_flight, config.body_time)
        .answering_within(config.request_time)
        .discarding(config.rest)
        .compressing_from(config.compress_from)
}

/// The settings of the command service.
fn settings(config: &Config, public_url: &PublicUrl) -> command_service::Settings {
    command_service::Settings {
        lockout: config.lockout,
        device_ttl: config.device_ttl,
        sessions: config.sessions_of_a_user,
        breached_passwords: config.breached_passwords.clone(),
        imported_hash_cost: config.imported_hash_cost.into(),
        imports_at_once: config.imports_at_once,
        webhooks_of_an_app: config.webhooks.per_app,
        senders: config.senders(public_url),
        webhook_networks: config.webhook_networks.clone(),
        webhook_patience: config.webhooks.patience,
    }
}

fn start_hashing(config: &Config) -> anyhow::Result<PasswordHashing> {
    Ok(PasswordHashing::start(&PasswordHashingSettings {
        params: config.argon2.to_string(),
        threads: config.hashing_threads.map(NonZeroUsize::get),
        queue: config.hashing_queue.map(NonZeroUsize::get),
    })?)
}
