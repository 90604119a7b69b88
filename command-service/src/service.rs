//! The service itself: its parts, shared by all features.

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dispatcher::{Context, Dispatcher};
use domain::AppId;
use domain::lockout::LockoutPolicy;
use effects::mailer::MailServer;
use effects::outbound::{AllowedNetworks, OutboundClient};
use effects::webhooks::Messages;
use event_store::{Clock, Idempotency, KeyStore, LookupKey, Repository};
use http_kit::access_log::AccessLog;
use http_kit::auth::Authenticator;
use http_kit::limits::RateLimits;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use tokens::{AccessTokens, DerivedTokens, Signing};
use url::Url;

use crate::imports::Imports;
use crate::locate::LocateUser;
use crate::passwords::breached::BreachedPasswords;
use crate::passwords::hashing::PasswordHashing;
use crate::passwords::strangers::Strangers;

/// What the service is built of.
pub struct Parts {
    pub repository: Arc<Repository>,
    /// The current time and new ids.
    pub clock: Arc<dyn Clock>,
    /// Private signing keys.
    pub key_store: Arc<KeyStore>,
    /// The key for look-ups by personal data.
    pub lookup: Arc<LookupKey>,
    /// Derives and recognizes refresh tokens and API keys.
    pub tokens: DerivedTokens,
    /// Issues and verifies access tokens.
    pub access_tokens: Arc<AccessTokens>,
    /// Authenticates callers.
    pub authenticator: Arc<Authenticator>,
    /// Rate limits.
    pub limits: Arc<RateLimits>,
    /// Finds the user of an address. [`crate::locate::JournalClaims`] always works.
    pub locate: Arc<dyn LocateUser>,
    pub passwords: PasswordHashing,
    pub settings: Settings,
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many guesses an account allows.
    pub lockout: LockoutPolicy,
    /// How long, in seconds, a known device is counted separately from strangers.
    pub device_ttl: u32,
    /// The maximum number of sessions per user. One more ends the oldest.
    pub sessions: NonZeroUsize,
    /// The URL of a list of breached passwords: `<this>/<5 hexadecimal digits>`. `None` disables the check.
    pub breached_passwords: Option<Url>,
    /// The maximum cost of verifying an imported password hash, in PBKDF2 iterations.
    pub imported_hash_cost: u64,
    /// How many imports of users are carried out at a time.
    pub imports_at_once: NonZeroUsize,
    /// How many webhooks an app may have.
    pub webhooks_of_an_app: NonZeroUsize,
    /// The sender addresses that apps may use.
    pub senders: effects::senders::Senders,
    /// The networks that webhooks may reach, besides the public ones.
    pub webhook_networks: AllowedNetworks,
    /// How long the receiver of a webhook may take.
    pub webhook_patience: Duration,
}

/// The service: its parts, and what is built from them.
pub struct CommandService {
    pub repository: Arc<Repository>,
    /// Runs decisions.
    pub dispatcher: Dispatcher,
    /// The current time and new ids.
    pub clock: Arc<dyn Clock>,
    /// Private signing keys.
    pub key_store: Arc<KeyStore>,
    /// The key for look-ups by personal data.
    pub lookup: Arc<LookupKey>,
    /// Derives and recognizes refresh tokens and API keys.
    pub tokens: DerivedTokens,
    /// Issues and verifies access tokens.
    pub access_tokens: Arc<AccessTokens>,
    /// Authenticates callers.
    pub authenticator: Arc<Authenticator>,
    /// Rate limits.
    pub limits: Arc<RateLimits>,
    /// Finds the user of an address.
    pub locate: Arc<dyn LocateUser>,
    pub passwords: PasswordHashing,
    /// Makes signing keys and access tokens.
    pub signing: Signing,
    pub settings: Settings,
    /// Counts failed logins of strangers, by address.
    pub(crate) strangers: Strangers,
    /// The capabilities of the mail server, if this process sends mails.
    pub mail_server: OnceLock<MailServer>,
    /// Signs and sends the messages to webhooks.
    pub webhook_messages: Arc<Messages>,
    /// The list of passwords known from breaches.
    pub(crate) breaches: BreachedPasswords,
    /// The imports of users that this process has taken.
    pub(crate) imports: Imports,
    /// Records who accessed whose data.
    pub(crate) access_log: AccessLog,
}

impl CommandService {
    /// Builds the service from its parts.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            repository,
            clock,
            key_store,
            lookup,
            tokens,
            access_tokens,
            authenticator,
            limits,
            locate,
            passwords,
            settings,
        } = parts;
        let client = OutboundClient::new(settings.webhook_networks.clone(), settings.webhook_patience);
        let messages = Messages::new(client, tokens.clone(), clock.clone());
        Self {
            webhook_messages: Arc::new(messages),
            dispatcher: Dispatcher::new(repository.clone(), clock.clone()),
            signing: Signing::new(key_store.clone(), access_tokens.clone()),
            strangers: Strangers::default(),
            mail_server: OnceLock::new(),
            imports: Imports::new(settings.imports_at_once),
            breaches: BreachedPasswords::new(settings.breached_passwords.clone()),
            access_log: AccessLog::new(repository.clone(), clock.clone()),
            repository,
            clock,
            key_store,
            lookup,
            tokens,
            access_tokens,
            authenticator,
            limits,
            locate,
            passwords,
            settings,
        }
    }

    /// The context of a command. `idempotency` comes from the body extractor.
    pub(crate) fn context(
        &self,
        request: &RequestContext,
        app_id: &AppId,
        actor: Actor,
        idempotency: Option<Idempotency>,
    ) -> Context {
        let (metadata, client) = (request.metadata(app_id.clone(), actor), request.client.clone());
        Context { metadata, client, at: self.clock.now(), idempotency, is_first: false }
    }

    /// Reports cache metrics.
    pub fn measure(&self) {
        self.signing.measure();
    }
}
