//! The flows in process: the real router over a temporary journal.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use domain::lockout::LockoutPolicy;
use domain::session::SessionEvent;
use domain::user::{Client, User, UserCommand};
use domain::{AppId, Email, Event, LogOrigin, Timestamp, UserId};
use event_store::{
    Clock, FixedClock, Journal, KeyStore, LookupKey, MasterKey, Repository, Sealer, SqliteJournal,
};
use http_kit::auth::Authenticator;
use http_kit::limits::{Rate, RateLimits, RateSettings};
use http_kit::{Entrance, RequestLayer, around};
use jiff::SignedDuration;
use schemas::envelope::Actor;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokens::{AccessTokens, DerivedTokens};
use tower::ServiceExt;

use crate::locate::JournalClaims;
use crate::passwords::hashing::{PasswordHashing, PasswordHashingSettings};
use crate::{CommandService, Parts, Settings};
use dispatcher::{Context, Reads};

mod admin;
mod cookies;
mod imported_hashes;
mod login;
mod magic_link;
mod mailbox;
mod org_roles;
mod org_tokens;
mod organization_keys;
mod organizations;
mod page;
mod rights;
mod round_trips;
mod sessions;
mod strangers;
mod values;

const PASSWORD: &str = "correct horse battery";
/// The maximum number of sessions per user here.
const SESSIONS: NonZeroUsize = NonZeroUsize::new(50).expect("not zero");

struct World {
    _dir: Option<TempDir>,
    journal: Arc<dyn Journal>,
    clock: Arc<FixedClock>,
    service: Arc<CommandService>,
    router: Entrance,
    key: SecretString,
}

/// A service, with the layer around requests.
fn node(
    journal: Arc<dyn Journal>,
    keys: &Arc<KeyStore>,
    clock: Arc<FixedClock>,
    params: &str,
    limits: &RateSettings,
) -> (Arc<CommandService>, Entrance) {
    let repository = Arc::new(Repository::new(journal, Arc::new(Sealer::new(keys.clone())), 1000));
    let access_tokens =
        Arc::new(AccessTokens::new(tokens::PublicUrl::parse("https://auth.example").expect("valid")));
    let tokens = DerivedTokens::new(keys.instance_key());
    let authenticator = Arc::new(Authenticator::new(
        repository.clone(),
        access_tokens.clone(),
        tokens.clone(),
        clock.clone(),
    ));
    let lookup = Arc::new(LookupKey::new(keys.instance_key()));
    let hashing = PasswordHashingSettings { params: params.to_owned(), threads: Some(2), queue: None };
    let service = CommandService::start(Parts {
        repository: repository.clone(),
        clock: clock.clone(),
        key_store: keys.clone(),
        lookup: lookup.clone(),
        tokens,
        access_tokens,
        authenticator,
        limits: Arc::new(RateLimits::new(limits)),
        locate: Arc::new(JournalClaims::new(repository.clone(), lookup)),
        passwords: PasswordHashing::start(&hashing).expect("valid"),
        settings: Settings {
            lockout: LockoutPolicy::default(),
            device_ttl: 1_000_000,
            sessions: SESSIONS,
            breached_passwords: None,
            imported_hash_cost: 2_097_152,
            imports_at_once: NonZeroUsize::new(2).expect("not zero"),
            webhooks_of_an_app: NonZeroUsize::new(50).expect("not zero"),
            senders: effects::senders::Senders {
                own: Email::parse("no-reply@auth.example").expect("valid"),
                domains: effects::senders::SenderDomains::default(),
            },
            webhook_networks: effects::outbound::AllowedNetworks::default(),
            webhook_patience: std::time::Duration::from_secs(1),
        },
    });
    let edge = RequestLayer::new(repository, clock, keys.instance_key(), vec![]);
    let (router, _) = service.clone().router().split_for_parts();
    (service, around(router, Arc::new(edge)))
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
    /// The raw body.
    page: String,
}

impl Answer {
    fn text(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("{member} in {}", self.body)).to_owned()
    }

    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl World {
    async fn start() -> Self {
        Self::with_params("m=64,t=1,p=1").await
    }

    async fn with_params(params: &str) -> Self {
        Self::with(params, RateSettings { enabled: false, ..RateSettings::default() }).await
    }

    async fn with(params: &str, limits: RateSettings) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(FixedClock::new(Timestamp::from_second(1_800_000_000).expect("in range")));
        let keys = KeyStore::open(&dir.path().join("keys.db"), &MasterKey::generate()).await.expect("opens");
        let journal = SqliteJournal::open(&dir.path().join("journal.db"), &keys.macs()).await.expect("opens");
        let (service, router) = node(Arc::new(journal), &Arc::new(keys), clock.clone(), params, &limits);
        let key = service.bootstrap().await.expect("bootstraps").expect("a first key");
        let journal = service.repository.journal().clone();
        Self { _dir: Some(dir), journal, clock, service, router, key }
    }

    /// Another node on the same journal, which remembers nothing.
    fn another_node(&self) -> Self {
        let (journal, keys) = (self.journal.clone(), self.service.key_store.clone());
        let limits = RateSettings { enabled: false, ..RateSettings::default() };
        let (service, router) = node(journal.clone(), &keys, self.clock.clone(), "m=64,t=1,p=1", &limits);
        let key = self.key.clone();
        Self { _dir: None, journal, clock: self.clock.clone(), service, router, key }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("answers");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let page = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Answer { status: parts.status, headers: parts.headers, body, page }
    }

    async fn call(&self, method: &str, path: &str, bearer: Option<&str>, body: Option<Value>) -> Answer {
        self.call_with(method, path, bearer, body, None).await
    }

    async fn call_with(
        &self,
        method: &str,
        path: &str,
        bearer: Option<&str>,
        body: Option<Value>,
        key: Option<&str>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).expect("a request")).await
    }

    async fn auth(&self, route: &str, body: Value) -> Answer {
        self.call("POST", &format!("/v1/apps/default/auth/{route}"), None, Some(body)).await
    }

    async fn register(&self, email: &str) -> Answer {
        self.auth("register", json!({"email": email, "password": PASSWORD, "name": "Ada"})).await
    }

    async fn login(&self, email: &str, password: &str) -> Answer {
        self.auth("login", json!({"email": email, "password": password})).await
    }

    async fn me(&self, access_token: &str) -> Answer {
        self.call("GET", "/v1/apps/default/auth/me", Some(access_token), None).await
    }

    async fn events(&self, name: &str) -> usize {
        let all = self.journal.read_all(0, 100_000).await.expect("reads");
        all.iter().filter(|event| event.name == name).count()
    }

    /// The token created by the newest event of this name: what a mail would carry.
    async fn token(&self, name: &str) -> String {
        let all = self.journal.read_all(0, 100_000).await.expect("reads");
        let newest = all.iter().rfind(|event| event.name == name).unwrap_or_else(|| panic!("no {name}"));
        let event = self.service.repository.decode(newest).await.expect("decodes");
        self.service.tokens.of_event(&event).expect("it makes a token")
    }

    /// A form as a browser sends it.
    async fn form(&self, route: &str, body: &str) -> Answer {
        let request = Request::post(format!("/v1/apps/default/auth/{route}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .body(Body::from(body.to_owned()));
        self.send(request.expect("a request")).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", &format!("/v1/apps/default/auth/{path}"), None, None).await
    }

    /// With the platform key.
    async fn by_platform(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call(method, path, Some(self.key.expose_secret()), body).await
    }

    /// An API key of the default app.
    async fn api_key(&self, permissions: &[&str]) -> String {
        let body = json!({"name": "server", "permissions": permissions});
        let made = self.by_platform("POST", "/v1/apps/default/admin/api-keys", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.text("key")
    }

    /// The reader of the address's mail confirms it.
    async fn verify(&self, app: &str, email: &str) {
        let auth = format!("/v1/apps/{app}/auth/email-verification");
        let asked = self.by_platform("POST", &format!("{auth}/request"), Some(json!({"email": email}))).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        let token = self.token("EmailVerificationRequested").await;
        let body = json!({ "token": token });
        let verified = self.call("POST", &format!("{auth}/confirm"), None, Some(body)).await;
        assert_eq!(verified.status, 200, "{}", verified.body);
    }

    /// A user registered with [`PASSWORD`] becomes an admin: returns their token after a login.
    async fn make_admin(&self, app: &str, user: &str, email: &str) -> String {
        self.verify(app, email).await;
        let role = format!("/v1/apps/{app}/admin/users/{user}/roles/admin");
        let granted = self.by_platform("PUT", &role, None).await;
        assert_eq!(granted.status, 200, "{}", granted.body);
        let body = json!({"email": email, "password": PASSWORD});
        let login = self.call("POST", &format!("/v1/apps/{app}/auth/login"), None, Some(body)).await;
        assert_eq!(login.status, 200, "{}", login.body);
        login.text("access_token")
    }

    async fn all_events(&self) -> usize {
        self.journal.read_all(0, 100_000).await.expect("reads").len()
    }

    async fn set(&self, settings: Value) {
        let key = self.key.expose_secret();
        let body = json!({ "settings": settings });
        let answer = self.call("PATCH", "/v1/apps/default", Some(key), Some(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    fn context_of_system(&self) -> Context {
        Context {
            metadata: schemas::envelope::Metadata {
                app_id: AppId::default_app(),
                actor: Actor::system(),
                correlation_id: self.clock.new_id(),
                causation_id: None,
                request_id: None,
                traceparent: None,
            },
            client: Client::default(),
            at: self.clock.now(),
            idempotency: None,
            is_first: false,
        }
    }

    /// The effect of the admin route, without its route.
    async fn ban(&self, user_id: UserId) {
        let context = self.context_of_system();
        let at = context.at;
        let (reads, user) = Reads::one::<User>(&user_id);
        let ban = self
            .service
            .dispatcher
            .run(context, reads, move |work| work.execute(user, UserCommand::Ban { reason: None, at }));
        ban.await.expect("bans");
    }
}

fn user_id(answer: &Answer) -> UserId {
    UserId(answer.body["user"]["id"].as_str().expect("an id").parse().expect("a UUID"))
}

#[tokio::test]
async fn registration_refuses_what_makes_no_sense() {
    let world = World::start().await;
    let cases = [
        (json!({"email": "nobody", "password": PASSWORD}), 422, "invalid_email"),
        (json!({"email": "a@example.com", "password": "short"}), 422, "weak_password"),
        (json!({"email": "a@example.com", "password": "Password"}), 422, "weak_password"),
        (json!({"email": "a@example.com", "password": "x".repeat(1025)}), 422, "weak_password"),
        (json!({"email": "a@example.com", "password": PASSWORD, "name": "a\u{0}"}), 422, "validation_failed"),
        (json!({"email": "a@example.com", "password": PASSWORD, "roles": []}), 400, "malformed_request"),
    ];
    for (body, status, code) in cases {
        let answer = world.auth("register", body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{}", answer.body);
    }
    assert_eq!(world.register("a@example.com").await.status, 201);
    let taken = world.register("A@example.com").await;
    assert_eq!((taken.status.as_u16(), taken.code()), (409, "email_taken"));
    world.set(json!({"registration": "closed"})).await;
    assert_eq!(world.register("b@example.com").await.code(), "registration_closed");
    let absent = world.call("POST", "/v1/apps/none/auth/register", None, Some(json!({}))).await;
    assert_eq!(absent.status, 400);
    let body = json!({"email": "a@example.com", "password": PASSWORD});
    for app in ["none", "platform", "NONE"] {
        let path = format!("/v1/apps/{app}/auth/register");
        assert_eq!(world.call("POST", &path, None, Some(body.clone())).await.status, 404, "{app}");
    }
}

#[tokio::test]
async fn with_verified_addresses_registration_tells_nothing() {
    let world = World::start().await;
    world.set(json!({"require_verified_email": true})).await;
    let first = world.register("ada@example.com").await;
    let again = world.register("ada@example.com").await;
    assert_eq!(first.status, 202);
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&first), names(&again));
    assert_eq!(world.events("UserRegistered").await, 1);
    assert_eq!(world.events("SessionStarted").await, 0);
    let login = world.login("ada@example.com", PASSWORD).await;
    assert_eq!((login.status.as_u16(), login.code()), (403, "email_not_verified"));
}

#[tokio::test]
async fn a_repeated_request_happens_once() {
    let world = World::start().await;
    let path = "/v1/apps/default/auth/register";
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let first = world.call_with("POST", path, None, Some(body.clone()), Some("k1")).await;
    let again = world.call_with("POST", path, None, Some(body), Some("k1")).await;
    assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::CREATED), "{}", again.body);
    for member in ["refresh_token", "session_id", "user"] {
        assert_eq!(first.body[member], again.body[member]);
    }
    assert!(again.headers.contains_key("consistency-token"));
    let other = json!({"email": "eve@example.com", "password": PASSWORD});
    let other = world.call_with("POST", path, None, Some(other), Some("k1")).await;
    assert_eq!((other.status.as_u16(), other.code()), (422, "idempotency_key_reused"));
    assert_eq!(world.events("UserRegistered").await, 1);

    let path = "/v1/apps/default/auth/refresh";
    let body = json!({"refresh_token": first.text("refresh_token")});
    let one = world.call_with("POST", path, None, Some(body.clone()), Some("k2")).await;
    let next = world.auth("refresh", json!({"refresh_token": one.text("refresh_token")})).await;
    assert_eq!(next.status, 200);
    world.clock.advance(SignedDuration::from_secs(60));
    let two = world.call_with("POST", path, None, Some(body), Some("k2")).await;
    assert_eq!(one.text("refresh_token"), two.text("refresh_token"), "the same result, and no reuse");
    let seconds = |answer: &Answer| answer.body["expires_in"].as_u64();
    assert_eq!((seconds(&one), seconds(&two)), (Some(1800), Some(1740)), "the token has aged");
}

#[tokio::test]
async fn parallel_repetitions_converge() {
    let world = Arc::new(World::start().await);
    let calls = (0..16).map(|_| {
        let world = world.clone();
        tokio::spawn(async move {
            let body = json!({"email": "ada@example.com", "password": PASSWORD});
            world.call_with("POST", "/auth/register", None, Some(body), Some("same")).await
        })
    });
    let mut tokens = std::collections::BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.expect("no panic");
        assert_eq!(answer.status, 201, "{}", answer.body);
        tokens.insert(answer.text("refresh_token"));
    }
    assert_eq!(tokens.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_h_parallel_registrations_make_one_account() {
    let world = Arc::new(World::start().await);
    let calls = (0..32).map(|_| {
        let world = world.clone();
        tokio::spawn(async move { world.register("ada@example.com").await })
    });
    let mut made = 0;
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.expect("no panic");
        assert!(answer.status == 201 || answer.code() == "email_taken", "{}", answer.body);
        made += usize::from(answer.status == 201);
    }
    assert_eq!((made, world.events("UserRegistered").await), (1, 1));
}

#[tokio::test]
async fn keys_are_published_for_every_algorithm() {
    let world = World::start().await;
    world.register("ada@example.com").await;
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        world.set(json!({ "token_algorithm": algorithm, "key_propagation": 0 })).await;
        let jwks = world.call("GET", "/.well-known/jwks.json", None, None).await;
        assert_eq!(jwks.status, 200);
        let login = world.login("ada@example.com", PASSWORD).await;
        assert_eq!(world.me(&login.text("access_token")).await.status, 200, "{algorithm}");
        let keys = jwks.body["keys"].as_array().expect("keys");
        assert!(
            keys.iter().any(|key| key["alg"] == algorithm && key["kid"].is_string() && key["d"].is_null())
        );
    }
    let path = "/v1/apps/default/.well-known/openid-configuration";
    let found = world.call("GET", path, None, None).await;
    assert_eq!(found.body["issuer"], "https://auth.example/v1/apps/default");
    assert_eq!(world.call("GET", "/v1/apps/platform/.well-known/jwks.json", None, None).await.status, 404);
}

#[tokio::test]
async fn a_second_bootstrap_changes_nothing() {
    let world = World::start().await;
    let head = world.journal.head().await.expect("reads");
    let again = world.service.bootstrap().await.expect("bootstraps").expect("the same key");
    assert_eq!(again.expose_secret(), world.key.expose_secret());
    assert_eq!(world.journal.head().await.expect("reads"), head);
}

/// Stored data must hold neither address nor password nor token.
#[tokio::test]
async fn inv_n_nothing_personal_lies_open_in_the_journal() {
    let world = World::start().await;
    let tokens = world.register("ada.lovelace@example.com").await;
    world.login("ada.lovelace@example.com", "a wrong guess").await;
    for event in world.journal.read_all(0, 1000).await.expect("reads") {
        let text = event.to_canonical_json(&LogOrigin::parse("http://localhost").expect("valid"));
        for secret in ["lovelace", PASSWORD, "a wrong guess", "argon2", &tokens.text("refresh_token")] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        if let Event::Session(SessionEvent::SessionStarted(started)) =
            world.service.repository.decode(&event).await.expect("decodes")
        {
            assert_eq!(started.user_id, user_id(&tokens));
        }
    }
    assert!(Email::parse("ada.lovelace@example.com").is_ok());
}
