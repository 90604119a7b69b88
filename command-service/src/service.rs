//! The service itself: its parts, and what every room needs of them.

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use dispatcher::{Context, Dispatcher};
use domain::AppId;
use domain::lockout::LockoutPolicy;
use effects::mailer::MailServer;
use event_store::{Clock, Idempotency, KeyStore, LookupKey, Repository};
use http_kit::access_log::AccessLog;
use http_kit::auth::Authenticator;
use http_kit::limits::RateLimits;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use tokens::{AccessTokens, DerivedTokens, Signing};
use url::Url;

use crate::locate::LocateUser;
use crate::passwords::breached::BreachedPasswords;
use crate::passwords::hashing::PasswordHashing;
use crate::passwords::strangers::Strangers;

/// What the service is built of.
pub struct Parts {
    /// Aggregates, loaded from the journal.
    pub repository: Arc<Repository>,
    /// The time and new ids.
    pub clock: Arc<dyn Clock>,
    /// Private signing keys.
    pub key_store: Arc<KeyStore>,
    /// The key of look-ups by personal data.
    pub lookup: Arc<LookupKey>,
    /// Refresh tokens and API keys.
    pub tokens: DerivedTokens,
    /// Access tokens.
    pub access_tokens: Arc<AccessTokens>,
    /// Who is calling.
    pub authenticator: Arc<Authenticator>,
    /// How often one address may call.
    pub limits: Arc<RateLimits>,
    /// Finds the user of an address. [`crate::locate::JournalClaims`] always works.
    pub locate: Arc<dyn LocateUser>,
    /// The argon2 threads.
    pub passwords: PasswordHashing,
    /// What the operator chose.
    pub settings: Settings,
}

/// What the operator chose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many guesses an account gets.
    pub lockout: LockoutPolicy,
    /// For how many seconds a device that was in an account is counted apart from strangers.
    pub device_ttl: u32,
    /// How many sessions a user may have at a time. With one more the oldest ends.
    pub sessions: NonZeroUsize,
    /// Where a list of breached passwords is asked: `<this>/<5 hexadecimal digits>`. None: it is not asked.
    pub breached_passwords: Option<Url>,
    /// Whom mails may come from.
    pub senders: effects::senders::Senders,
}

/// The service: its parts, and what is made from them.
pub struct CommandService {
    /// Aggregates, loaded from the journal.
    pub repository: Arc<Repository>,
    /// Runs decisions.
    pub dispatcher: Dispatcher,
    /// The time and new ids.
    pub clock: Arc<dyn Clock>,
    /// Private signing keys.
    pub key_store: Arc<KeyStore>,
    /// The key of look-ups by personal data.
    pub lookup: Arc<LookupKey>,
    /// Refresh tokens and API keys.
    pub tokens: DerivedTokens,
    /// Access tokens.
    pub access_tokens: Arc<AccessTokens>,
    /// Who is calling.
    pub authenticator: Arc<Authenticator>,
    /// How often one address may call.
    pub limits: Arc<RateLimits>,
    /// Finds the user of an address.
    pub locate: Arc<dyn LocateUser>,
    /// The argon2 threads.
    pub passwords: PasswordHashing,
    /// Makes signing keys and access tokens.
    pub signing: Signing,
    /// What the operator chose.
    pub settings: Settings,
    /// Counts failed logins of strangers, by address.
    pub(crate) strangers: Strangers,
    /// What the mail server says of itself, where mails are sent by this process.
    pub mail_server: OnceLock<MailServer>,
    /// Passwords that other services have lost.
    pub(crate) breaches: BreachedPasswords,
    /// Who looked at whom.
    pub(crate) access_log: AccessLog,
}

impl CommandService {
    /// Puts the parts together.
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
        Self {
            dispatcher: Dispatcher::new(repository.clone(), clock.clone()),
            signing: Signing::new(key_store.clone(), access_tokens.clone()),
            strangers: Strangers::default(),
            mail_server: OnceLock::new(),
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

    /// The context of a command. `idempotency` is what the body extractor found.
    pub(crate) fn context(
        &self,
        request: &RequestContext,
        app_id: &AppId,
        actor: Actor,
        idempotency: Option<Idempotency>,
    ) -> Context {
        let (metadata, client) = (request.metadata(app_id.clone(), actor), request.client.clone());
        Context { metadata, client, at: self.clock.now(), idempotency }
    }

    /// Tells metrics what is at hand.
    pub fn measure(&self) {
        self.signing.measure();
    }
}
