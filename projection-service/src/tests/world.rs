//! Stores in a temporary directory, an app with two API keys, and the platform with one.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use domain::app::{ApiKeyIssued, AppCreated, AppEvent};
use domain::session::{LoginMethod, RevocationReason, SessionEvent, SessionRevoked, SessionStarted};
use domain::user::{RegistrationMethod, UserEvent, UserRegistered};
use domain::{
    ApiKeyId, AppId, AppSettings, Email, Event, LogOrigin, Permission, Personal, SessionId, StreamId,
    Timestamp, UserId,
};
use event_store::{
    Append, Clock, FixedClock, Journal, KeyStore, Location, LookupKey, MasterKey, Repository, Sealer,
    SqliteJournal, Write,
};
use http::{Request, Response};
use http_kit::places::Shares;
use http_kit::{
    AccessLog, Authenticator, ConsistencyToken, ConsistencyTokens, Entrance, RequestLayer, around,
};
use read_models::{Projector, ReadModels};
use schemas::envelope::{Actor, Metadata};
use serde_json::Value;
use tokens::{AccessTokens, ApiKeyToken, DerivedTokens};
use tower::ServiceExt;
use uuid::Uuid;

use crate::{CheckpointSettings, Parts, ProjectionService, SharingSettings};

pub(super) struct World {
    _directory: tempfile::TempDir,
    pub journal: Arc<dyn Journal>,
    pub repository: Arc<Repository>,
    pub sealer: Arc<Sealer>,
    pub lookup: Arc<LookupKey>,
    authenticator: Arc<Authenticator>,
    access_log: Arc<AccessLog>,
    pub models: Arc<ReadModels>,
    pub clock: Arc<FixedClock>,
    pub service: Arc<ProjectionService>,
    router: Entrance,
    tokens: DerivedTokens,
    positions: ConsistencyTokens,
}

pub(super) fn at() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("in range")
}

pub(super) fn origin() -> LogOrigin {
    LogOrigin::parse("https://login.example.com").expect("valid")
}

pub(super) fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

pub(super) fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(0x5e55_0000 + n))
}

pub(super) fn acme() -> AppId {
    AppId::parse("acme").expect("valid")
}

/// The keys: of the platform, of acme with all permissions, of acme for the audit log only, of another app.
const EVENT_STREAMS: Shares = Shares { total: 4, of_an_app: 4, of_a_caller: 4, reserve: 0 };
pub(super) const PLATFORM: u128 = 1;
pub(super) const FULL: u128 = 2;
pub(super) const AUDITOR: u128 = 3;
pub(super) const STRANGER: u128 = 4;

impl World {
    pub async fn new() -> Self {
        Self::with(ReadModels::projectors).await
    }

    pub async fn with(projectors: impl FnOnce(&ReadModels) -> Vec<Arc<dyn Projector>>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let keys = KeyStore::open(&path("keys.db"), &MasterKey::generate()).await.expect("opens");
        let tokens = DerivedTokens::new(keys.instance_key());
        let positions = ConsistencyTokens::new(keys.instance_key());
        let lookup = Arc::new(LookupKey::new(keys.instance_key()));
        let macs = keys.macs();
        let keys = Arc::new(keys);
        let sealer = Arc::new(Sealer::new(keys.clone()));
        let journal: Arc<dyn Journal> =
            Arc::new(SqliteJournal::open(&path("journal.db"), &macs).await.expect("opens"));
        let location = Location::File(path("read-models.db"));
        let models = ReadModels::open(&location, sealer.clone(), lookup.clone()).await.expect("opens");
        let models = Arc::new(models);
        let repository = Arc::new(Repository::new(journal.clone(), sealer.clone(), 100));
        let clock = Arc::new(FixedClock::new(at()));
        let authenticator = Arc::new(Authenticator::new(
            repository.clone(),
            Arc::new(AccessTokens::new(tokens::PublicUrl::parse("http://localhost").expect("valid"))),
            tokens.clone(),
            clock.clone() as Arc<dyn Clock>,
        ));
        let access_log = Arc::new(AccessLog::new(repository.clone(), clock.clone()));
        let parts = Parts {
            repository: repository.clone(),
            models: models.clone(),
            authenticator: authenticator.clone(),
            access_log: access_log.clone(),
            clock: clock.clone(),
            origin: origin(),
            bus: None,
            sharing: SharingSettings { node: "only".to_owned(), lease: SharingSettings::LEASE },
            event_streams: EVENT_STREAMS,
            exports: EVENT_STREAMS,
            window_bytes: 1 << 20,
            checkpoints: CheckpointSettings::default(),
            witnesses: vec![],
        };
        let projectors = projectors(&models);
        let service = ProjectionService::start_with(parts, projectors).await.expect("starts");
        let edge = RequestLayer::new(repository.clone(), clock.clone(), keys.instance_key(), vec![]);
        let (router, _) = service.clone().router().split_for_parts();
        let world = Self {
            _directory: directory,
            journal,
            repository,
            sealer,
            lookup,
            authenticator,
            access_log,
            models,
            clock,
            service,
            router: around(router, Arc::new(edge)),
            tokens,
            positions,
        };
        world.keys().await;
        world
    }

    /// The parts of another node, with these read models.
    pub fn parts(&self, models: Arc<ReadModels>, sharing: SharingSettings) -> Parts {
        Parts {
            repository: self.repository.clone(),
            models,
            authenticator: self.authenticator.clone(),
            access_log: self.access_log.clone(),
            clock: self.clock.clone(),
            origin: origin(),
            bus: None,
            sharing,
            event_streams: EVENT_STREAMS,
            exports: EVENT_STREAMS,
            window_bytes: 1 << 20,
            checkpoints: CheckpointSettings::default(),
            witnesses: vec![],
        }
    }

    async fn keys(&self) {
        let other = AppId::parse("other").expect("valid");
        let keys = [
            (AppId::platform(), PLATFORM, BTreeSet::from([Permission::Platform])),
            (acme(), FULL, BTreeSet::from(Permission::OF_AN_APP)),
            (acme(), AUDITOR, BTreeSet::from([Permission::AuditRead])),
            (other, STRANGER, BTreeSet::from(Permission::OF_AN_APP)),
        ];
        let mut known = BTreeSet::new();
        for (app_id, key, permissions) in keys {
            let mut events = Vec::new();
            if known.insert(app_id.clone()) {
                events.push(Event::App(AppEvent::AppCreated(AppCreated {
                    app_id: app_id.clone(),
                    name: "An app".to_owned(),
                    settings: AppSettings::default(),
                    at: at(),
                })));
            }
            events.push(Event::App(AppEvent::ApiKeyIssued(ApiKeyIssued {
                key_id: ApiKeyId(Uuid::from_u128(key)),
                name: "A key".to_owned(),
                permissions,
                expires_at: None,
                at: at(),
            })));
            self.append(&app_id, StreamId::app(&app_id), events).await;
        }
    }

    /// Appends events and returns the position of the last one.
    pub async fn append(&self, app_id: &AppId, stream: StreamId, events: Vec<Event>) -> u64 {
        let expected = self.journal.read_stream(&stream, 0).await.expect("reads").len() as u64;
        let mut new = Vec::new();
        for event in events {
            new.push(self.repository.encode(&event, self.clock.new_id()).await.expect("encodes"));
        }
        let append = Append {
            writes: vec![Write { stream: stream.clone(), expected, events: new }],
            guards: vec![],
            taken: vec![],
            released: vec![],
            idempotency: None,
            metadata: Metadata {
                app_id: app_id.clone(),
                actor: Actor::system(),
                correlation_id: self.clock.new_id(),
                causation_id: None,
                request_id: None,
                traceparent: None,
            },
            at: at(),
        };
        let appended = self.journal.append(append).await.expect("appends");
        self.repository.evict(&stream);
        appended.last
    }

    pub async fn register(&self, n: u128, email: &str, name: &str) -> u64 {
        let event = Event::User(UserEvent::UserRegistered(UserRegistered {
            user_id: user(n),
            app_id: acme(),
            method: RegistrationMethod::Password,
            at: at(),
            personal: Personal {
                email: Some(Email::parse(email).expect("valid")),
                name: Some(name.to_owned()),
                password_hash: Some(domain::password::PasswordHash("$argon2id$secret".to_owned())),
                ..Personal::default()
            },
        }));
        self.append(&acme(), StreamId::user(user(n)), vec![event]).await
    }

    pub async fn log_in(&self, n: u128, owner: u128) -> u64 {
        let hour = jiff::SignedDuration::from_hours(1);
        let event = Event::Session(SessionEvent::SessionStarted(SessionStarted {
            session_id: session(n),
            user_id: user(owner),
            app_id: acme(),
            method: LoginMethod::Password,
            epoch: 0,
            expires_at: at() + hour,
            idle_expires_at: at() + hour,
            at: at(),
            personal: Personal { ip: Some("203.0.113.77".to_owned()), ..Personal::default() },
        }));
        self.append(&acme(), StreamId::session(session(n)), vec![event]).await
    }

    pub async fn log_out(&self, n: u128, owner: u128) -> u64 {
        let event = Event::Session(SessionEvent::SessionRevoked(SessionRevoked {
            session_id: session(n),
            user_id: user(owner),
            reason: RevocationReason::Logout,
            at: at(),
        }));
        self.append(&acme(), StreamId::session(session(n)), vec![event]).await
    }

    pub fn key(&self, key: u128) -> String {
        let app_id = match key {
            PLATFORM => AppId::platform(),
            STRANGER => AppId::parse("other").expect("valid"),
            _ => acme(),
        };
        ApiKeyToken { app_id, key_id: ApiKeyId(Uuid::from_u128(key)) }.encode(&self.tokens)
    }

    /// Sends a GET. The answer must not be older than the position `after`.
    pub async fn send(&self, key: u128, path: &str, accept: &str, after: Option<u64>) -> Response<Body> {
        let mut request = Request::get(path)
            .header("authorization", format!("Bearer {}", self.key(key)))
            .header("accept", accept);
        if let Some(position) = after {
            let text = self.positions.seal(ConsistencyToken(position));
            request = request.header("consistency-token", text);
        }
        let request = request.body(Body::empty()).expect("a request");
        self.router.clone().oneshot(request).await.expect("answers")
    }

    pub async fn get(&self, key: u128, path: &str, after: Option<u64>) -> (u16, Value) {
        let response = self.send(key, path, "application/json", after).await;
        let status = response.status().as_u16();
        (status, serde_json::from_str(&text(response).await).expect("JSON"))
    }
}

pub(super) async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("arrives");
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
