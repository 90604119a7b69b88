//! An app: its settings, its signing keys and its API keys.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::app_id::AppId;
use crate::event::{EventInfo as _, Stream, StreamId};
use crate::ids::id;
use crate::permission::Permission;
use crate::settings::AppSettings;
use crate::signing_key::{PublicJwk, SigningKey};

mod events;
mod keys;

pub use self::events::{
    ApiKeyIssued, ApiKeyRevoked, AppCreated, AppDisabled, AppEnabled, AppEvent, AppSettingsChanged,
    SigningKeyActivated, SigningKeyCreated, SigningKeyRetired,
};

mod admins;

id!(
    /// An API key. The id is public; the key itself is derived and stored nowhere.
    ApiKeyId
);

/// The maximum number of API keys of an app that are neither revoked nor expired.
pub const MAX_API_KEYS: usize = 1000;

/// The commands of an app.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum AppCommand {
    /// Create it.
    Create {
        app_id: AppId,
        /// The name shown to people.
        name: String,
        settings: Box<AppSettings>,
        /// The current key, and the next one.
        keys: Box<[PublicJwk; 2]>,
        at: Timestamp,
    },
    /// Change its name or settings.
    Change {
        /// A new name.
        name: Option<String>,
        /// The complete new settings.
        settings: Box<AppSettings>,
        /// New keys for another `token_algorithm`, as many as [`App::keys_needed_for`] says.
        keys: Vec<PublicJwk>,
        at: Timestamp,
    },
    /// Refuse all its logins and tokens.
    Disable { at: Timestamp },
    /// Undo [`AppCommand::Disable`].
    Enable { at: Timestamp },
    /// Let the next key sign as soon as verifiers know it, and publish a new next key.
    RotateKeys {
        /// The new next key.
        next: Box<PublicJwk>,
        /// Whether a key may have leaked: the next one signs at once, and earlier ones are retired.
        emergency: bool,
        at: Timestamp,
    },
    /// Issue an API key.
    IssueApiKey {
        key_id: ApiKeyId,
        /// The name of the key.
        name: String,
        permissions: BTreeSet<Permission>,
        /// When it expires.
        expires_at: Option<Timestamp>,
        at: Timestamp,
    },
    /// Revoke an API key.
    RevokeApiKey { key_id: ApiKeyId, at: Timestamp },
}

/// Why an app refused a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppError {
    /// The id is taken.
    #[error("there is an app of this id")]
    Exists,
    /// No app has this id.
    #[error("there is no such app")]
    Absent,
    /// A permission that this app's keys cannot have, or none at all.
    #[error("an API key needs at least one permission, and only platform keys can have `platform`")]
    Permissions,
    /// There is no such API key.
    #[error("there is no such API key")]
    NoSuchKey,
    /// The app has [`MAX_API_KEYS`].
    #[error("the app has {MAX_API_KEYS} API keys, which is the maximum")]
    TooManyKeys,
}

/// An API key in its app's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The name of the key.
    pub name: String,
    /// Its permissions.
    pub permissions: BTreeSet<Permission>,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether it is valid at this time.
    pub fn is_live(&self, at: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| at < end)
    }
}

/// An app.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct App {
    /// Its id; absent before [`AppCreated`].
    pub id: Option<AppId>,
    /// The name shown to people.
    pub name: String,
    /// Its settings.
    pub settings: AppSettings,
    /// When the setting `admin_role` was last changed.
    #[serde(default)]
    pub admin_role_since: Option<Timestamp>,
    /// How often it was changed.
    #[serde(default)]
    pub admin_role_changes: u32,
    /// Whether it is disabled.
    pub disabled: bool,
    /// Its signing keys that are not retired, oldest first.
    pub signing_keys: Vec<SigningKey>,
    /// Its API keys that are not revoked.
    pub api_keys: BTreeMap<ApiKeyId, ApiKey>,
    /// The most recently revoked API keys, at most [`MAX_API_KEYS`]: revoking one again is not an error.
    pub revoked_keys: VecDeque<ApiKeyId>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl App {
    /// Whether it exists and is not disabled.
    pub fn is_active(&self) -> bool {
        self.id.is_some() && !self.disabled
    }

    /// Its name in mails and on pages: the product's name, its own, or else its id. It is one readable line, even for
    /// names that were accepted before [`crate::text::readable`] existed.
    pub fn product(&self) -> String {
        if let Some(name) = &self.settings.branding.name {
            return name.as_str().to_owned();
        }
        let name = crate::text::cleaned(&self.name);
        if name.is_empty() { self.id.as_ref().map(ToString::to_string).unwrap_or_default() } else { name }
    }

    /// The public key of this id, unless it is retired.
    pub fn verification_key(&self, kid: &str) -> Option<&PublicJwk> {
        self.signing_keys.iter().map(|key| &key.public).find(|key| key.kid == kid)
    }

    /// The keys in the JWKS at this time: next, current and previous ones, without those whose tokens have all expired.
    pub fn published_keys(&self, at: Timestamp) -> impl Iterator<Item = &SigningKey> {
        self.signing_keys.iter().filter(move |key| !key.is_spent(at))
    }

    /// Whether it ever had an API key.
    pub fn has_had_keys(&self) -> bool {
        !(self.api_keys.is_empty() && self.revoked_keys.is_empty())
    }

    fn decide(&self, command: AppCommand) -> Result<Vec<AppEvent>, AppError> {
        if let AppCommand::Create { app_id, name, settings, keys, at } = command {
            if self.id.is_some() {
                return Err(AppError::Exists);
            }
            let [first, next] = *keys;
            let created = AppCreated { app_id, name, settings: *settings, at };
            let kid = first.kid.clone();
            return Ok(vec![
                AppEvent::AppCreated(created),
                keys::created(first, at),
                keys::activated(kid, at, at),
                keys::created(next, at),
            ]);
        }
        if self.id.is_none() {
            return Err(AppError::Absent);
        }
        Ok(match command {
            AppCommand::Create { .. } => unreachable!("handled above"),
            AppCommand::Change { name, settings, keys, at } => self.change(name, *settings, keys, at),
            AppCommand::Disable { at } if !self.disabled => vec![AppEvent::AppDisabled(AppDisabled { at })],
            AppCommand::Enable { at } if self.disabled => vec![AppEvent::AppEnabled(AppEnabled { at })],
            AppCommand::Disable { .. } | AppCommand::Enable { .. } => vec![],
            AppCommand::RotateKeys { next, emergency: true, at } => self.replace(*next, at),
            AppCommand::RotateKeys { next, emergency: false, at } => self.rotate(*next, at),
            AppCommand::IssueApiKey { key_id, name, permissions, expires_at, at } => {
                self.check_new_key(&permissions, at)?;
                vec![AppEvent::ApiKeyIssued(ApiKeyIssued { key_id, name, permissions, expires_at, at })]
            }
            AppCommand::RevokeApiKey { key_id, at } => {
                if self.api_keys.contains_key(&key_id) {
                    vec![AppEvent::ApiKeyRevoked(ApiKeyRevoked { key_id, at })]
                } else if self.revoked_keys.contains(&key_id) {
                    vec![]
                } else {
                    return Err(AppError::NoSuchKey);
                }
            }
        })
    }

    fn change(
        &self,
        name: Option<String>,
        settings: AppSettings,
        keys: Vec<PublicJwk>,
        at: Timestamp,
    ) -> Vec<AppEvent> {
        let name = name.unwrap_or_else(|| self.name.clone());
        if name == self.name && settings == self.settings {
            return vec![];
        }
        let propagation = settings.key_propagation;
        let mut events = vec![AppEvent::AppSettingsChanged(AppSettingsChanged { name, settings, at })];
        events.extend(self.change_algorithm(keys, propagation, at));
        events
    }

    fn check_new_key(&self, permissions: &BTreeSet<Permission>, at: Timestamp) -> Result<(), AppError> {
        let of_the_platform = self.id.as_ref().is_some_and(AppId::is_platform);
        if permissions.is_empty() || permissions.contains(&Permission::Platform) && !of_the_platform {
            return Err(AppError::Permissions);
        }
        if self.api_keys.values().filter(|key| key.is_live(at)).count() >= MAX_API_KEYS {
            return Err(AppError::TooManyKeys);
        }
        Ok(())
    }
}

impl StreamId {
    /// The stream of an app.
    pub fn app(id: &AppId) -> Self {
        Self::new(AppEvent::AGGREGATE, id)
    }
}

impl Stream for App {
    type Id = AppId;

    fn stream(id: &AppId) -> StreamId {
        StreamId::app(id)
    }
}

impl Aggregate for App {
    const TYPE: &'static str = "app";
    type Command = AppCommand;
    type Event = AppEvent;
    type Error = AppError;
    type Services = ();

    async fn handle(&mut self, command: AppCommand, (): &(), sink: &EventSink<Self>) -> Result<(), AppError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: AppEvent) {
        match event {
            AppEvent::AppCreated(AppCreated { app_id, name, settings, at }) => {
                self.id = Some(app_id);
                self.name = name;
                self.settings = settings;
                self.created_at = at;
                self.updated_at = at;
            }
            AppEvent::AppSettingsChanged(AppSettingsChanged { name, settings, at }) => {
                if settings.admin_role != self.settings.admin_role {
                    self.admin_role_since = Some(at);
                    self.admin_role_changes += 1;
                }
                self.name = name;
                self.settings = settings;
                self.updated_at = at;
            }
            AppEvent::AppDisabled(AppDisabled { at }) => {
                self.disabled = true;
                self.updated_at = at;
            }
            AppEvent::AppEnabled(AppEnabled { at }) => {
                self.disabled = false;
                self.updated_at = at;
            }
            event @ (AppEvent::SigningKeyCreated(_)
            | AppEvent::SigningKeyActivated(_)
            | AppEvent::SigningKeyRetired(_)) => self.apply_to_keys(event),
            AppEvent::ApiKeyIssued(ApiKeyIssued { key_id, name, permissions, expires_at, at }) => {
                let key = ApiKey { name, permissions, created_at: at, expires_at };
                self.api_keys.insert(key_id, key);
            }
            AppEvent::ApiKeyRevoked(ApiKeyRevoked { key_id, .. }) => {
                self.api_keys.remove(&key_id);
                if self.revoked_keys.len() >= MAX_API_KEYS {
                    self.revoked_keys.pop_front();
                }
                self.revoked_keys.push_back(key_id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
