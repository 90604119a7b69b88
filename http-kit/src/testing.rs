//! A small world for the tests of this crate: a real journal in a temporary directory, two apps, users and sessions.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::app::{
    ApiKeyIssued, AppCreated, AppDisabled, AppEvent, SigningKeyActivated, SigningKeyCreated,
    SigningKeyRetired,
};
use domain::session::{LoginMethod, RevocationReason, SessionEvent, SessionRevoked, SessionStarted};
use domain::user::{RegistrationMethod, RoleGranted, UserBanned, UserEvent, UserRegistered};
use domain::{
    ApiKeyId, AppId, AppSettings, Event, Permission, Personal, Role, SessionId, StreamId, Timestamp, UserId,
};
use event_store::contract::Nodes;
use event_store::{
    Append, Clock, FixedClock, Journal, KeyStore, MasterKey, Repository, Sealer, SqliteJournal, Write,
};
use jiff::SignedDuration;
use schemas::envelope::{Actor, Metadata};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::auth::Authenticator;
use crate::request::RequestLayer;
use tokens::testing::{BASE, Signer};
use tokens::{AccessTokens, ApiKeyToken, DerivedTokens, PublicUrl};

pub struct World {
    pub repository: Arc<Repository>,
    pub clock: Arc<FixedClock>,
    pub access_tokens: Arc<AccessTokens>,
    pub tokens: DerivedTokens,
    pub authenticator: Arc<Authenticator>,
    pub keys: Arc<KeyStore>,
    _directory: tempfile::TempDir,
}

impl World {
    /// An empty world.
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = KeyStore::open(&directory.path().join("keys.db"), &MasterKey::generate())
            .await
            .expect("a key store");
        let keys = Arc::new(keys);
        let path = directory.path().join("journal.db");
        let journal = SqliteJournal::open(&path, &keys.macs()).await.expect("a journal");
        let sealer = Arc::new(Sealer::new(Arc::clone(&keys)));
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let repository = Arc::new(Repository::new(journal, sealer, 100));
        let clock = Arc::new(FixedClock::new(Timestamp::from_second(1_800_000_000).expect("in range")));
        let access_tokens = Arc::new(AccessTokens::new(PublicUrl::parse(BASE).expect("valid")));
        let tokens = DerivedTokens::new(keys.instance_key());
        let authenticator = Arc::new(Authenticator::new(
            Arc::clone(&repository),
            Arc::clone(&access_tokens),
            tokens.clone(),
            Arc::clone(&clock) as Arc<dyn Clock>,
        ));
        Self { repository, clock, access_tokens, tokens, authenticator, keys, _directory: directory }
    }

    /// Another node's authenticator: the same stores, with a separate cache.
    pub fn other_node(&self) -> (Authenticator, Arc<Nodes>) {
        let journal = Arc::new(Nodes::new(vec![Arc::clone(self.repository.journal())]));
        let sealer = Arc::clone(self.repository.sealer());
        let repository = Arc::new(Repository::new(Arc::clone(&journal) as Arc<dyn Journal>, sealer, 100));
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let access_tokens = Arc::clone(&self.access_tokens);
        (Authenticator::new(repository, access_tokens, self.tokens.clone(), clock), journal)
    }

    pub fn edge(&self, trusted: &[&str]) -> Arc<RequestLayer> {
        let trusted = trusted.iter().map(|net| net.parse().expect("a network")).collect();
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Arc::new(RequestLayer::new(Arc::clone(&self.repository), clock, self.keys.instance_key(), trusted))
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub async fn write(&self, stream: StreamId, events: Vec<Event>) {
        let expected = self.repository.journal().read_stream(&stream, 0).await.expect("reads").len() as u64;
        let mut new = Vec::new();
        for event in &events {
            new.push(self.repository.encode(event, self.clock.new_id()).await.expect("encodes"));
        }
        let metadata = Metadata {
            app_id: AppId::default_app(),
            actor: Actor::system(),
            correlation_id: Uuid::nil(),
            causation_id: None,
            request_id: None,
            traceparent: None,
        };
        let append = Append {
            writes: vec![Write { stream: stream.clone(), expected, events: new }],
            guards: vec![],
            taken: vec![],
            released: vec![],
            idempotency: None,
            metadata,
            at: self.now(),
        };
        self.repository.journal().append(append).await.expect("appends");
        self.repository.evict(&stream);
    }

    /// An app whose key is the signer's.
    pub async fn app(&self, id: &AppId, signer: &Signer, settings: AppSettings) {
        let created = AppCreated { app_id: id.clone(), name: "App".to_owned(), settings, at: self.now() };
        let kid = signer.public.kid.clone();
        let events = [
            AppEvent::AppCreated(created),
            AppEvent::SigningKeyCreated(SigningKeyCreated { public: signer.public.clone(), at: None }),
            AppEvent::SigningKeyActivated(SigningKeyActivated { kid, at: None, signs_from: None }),
        ];
        self.write(StreamId::app(id), events.into_iter().map(Event::from).collect()).await;
    }

    pub async fn disable(&self, id: &AppId) {
        let event = AppEvent::AppDisabled(AppDisabled { at: self.now() });
        self.write(StreamId::app(id), vec![event.into()]).await;
    }

    pub async fn retire(&self, id: &AppId, kid: &str) {
        let event = AppEvent::SigningKeyRetired(SigningKeyRetired { kid: kid.to_owned() });
        self.write(StreamId::app(id), vec![event.into()]).await;
    }

    /// An active API key.
    pub async fn api_key(&self, id: &AppId, permissions: &[Permission]) -> String {
        let key_id = ApiKeyId(self.clock.new_id());
        let permissions: BTreeSet<_> = permissions.iter().copied().collect();
        let name = "key".to_owned();
        let issued = ApiKeyIssued { key_id, name, permissions, expires_at: None, at: self.now() };
        self.write(StreamId::app(id), vec![AppEvent::ApiKeyIssued(issued).into()]).await;
        ApiKeyToken { app_id: id.clone(), key_id }.encode(&self.tokens)
    }

    /// A user with an active session, and their claims.
    pub async fn user(&self, app_id: &AppId) -> (UserId, SessionId, Value) {
        let user_id = UserId(self.clock.new_id());
        let session_id = SessionId(self.clock.new_id());
        let at = self.now();
        let registered = UserRegistered {
            user_id,
            app_id: app_id.clone(),
            method: RegistrationMethod::Password,
            at,
            personal: Personal::default(),
        };
        self.write(StreamId::user(user_id), vec![UserEvent::UserRegistered(registered).into()]).await;
        let started = SessionStarted {
            session_id,
            user_id,
            app_id: app_id.clone(),
            method: LoginMethod::Password,
            epoch: 0,
            expires_at: at + SignedDuration::from_hours(24),
            idle_expires_at: at + SignedDuration::from_hours(24),
            at,
            personal: Personal::default(),
        };
        self.write(StreamId::session(session_id), vec![SessionEvent::SessionStarted(started).into()]).await;
        let now = at.as_second();
        let claims = json!({
            "iss": self.access_tokens.issuer(app_id), "sub": user_id, "aud": app_id, "client_id": app_id,
            "exp": now + 1800, "iat": now, "jti": "1", "sid": session_id, "roles": [], "email_verified": false,
        });
        (user_id, session_id, claims)
    }

    pub async fn make_admin(&self, user_id: UserId) {
        let event = UserEvent::RoleGranted(RoleGranted {
            user_id,
            role: Role::admin(),
            access_ended: false,
            admin_role_changes: None,
            at: self.now(),
        });
        self.write(StreamId::user(user_id), vec![event.into()]).await;
    }

    pub async fn ban(&self, user_id: UserId) {
        let event = UserEvent::UserBanned(UserBanned {
            user_id,
            access_ended: true,
            at: self.now(),
            personal: Personal::default(),
        });
        self.write(StreamId::user(user_id), vec![event.into()]).await;
    }

    pub async fn revoke(&self, user_id: UserId, session_id: SessionId) {
        let reason = RevocationReason::User;
        let event =
            SessionEvent::SessionRevoked(SessionRevoked { session_id, user_id, reason, at: self.now() });
        self.write(StreamId::session(session_id), vec![event.into()]).await;
    }
}
