//! What a fresh journal needs before anybody can call: the platform's app, its first key, the default app.

use std::collections::BTreeSet;

use dispatcher::{Context, DispatchError, Reads};
use domain::app::{App, AppCommand, AppError, AppEvent};
use domain::signing_key::TokenAlgorithm;
use domain::user::Client;
use domain::{ApiKeyId, AppId, AppSettings, Event, Permission, Stream};
use event_store::StoreError;
use schemas::envelope::{Actor, Metadata};
use secrecy::SecretString;
use tokens::{ApiKeyToken, SigningError};

use crate::CommandService;

/// A step of the first start failed.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A signing key could not be generated.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// An app could not be created.
    #[error("the first apps could not be created")]
    Dispatch(#[from] DispatchError<AppError>),
    /// The journal cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CommandService {
    /// Creates the apps `platform` and `default` if they are missing. If the platform has never had a key, issues one
    /// and returns it: the caller writes it where the operator finds it. A key is derived, so this returns the same one
    /// until another is issued or it is revoked: an interrupted start loses nothing.
    /// A key from the configuration takes precedence: it is admitted, and no other is issued.
    pub async fn bootstrap(&self) -> Result<Option<SecretString>, BootstrapError> {
        self.create_app(AppId::platform(), "Platform").await?;
        self.create_app(AppId::default_app(), "Default").await?;
        let platform = AppId::platform();
        if let Some(key_id) = self.tokens.brought_platform_key() {
            self.admit_brought_key(key_id).await?;
            return Ok(None);
        }
        let app = self.repository.load::<App>(&platform).await?;
        let mut keys = app.state.api_keys.iter();
        let key_id = match (keys.next(), keys.next()) {
            (None, _) if !app.state.has_had_keys() => self.issue_first_key().await?,
            (Some((key_id, key)), None)
                if key.is_live(self.clock.now())
                    && key.name == FIRST_KEY
                    && app.state.revoked_keys.is_empty() =>
            {
                *key_id
            }
            _ => return Ok(None),
        };
        let key = ApiKeyToken { app_id: platform, key_id };
        Ok(Some(SecretString::from(key.encode(&self.tokens))))
    }

    async fn create_app(&self, app_id: AppId, name: &str) -> Result<(), BootstrapError> {
        if self.repository.load::<App>(&app_id).await?.state.id.is_some() {
            return Ok(());
        }
        let keys = self.signing.generate_pair(&app_id, TokenAlgorithm::default()).await?;
        let context = self.system_context(&app_id);
        let (at, id, name) = (context.at, app_id.clone(), name.to_owned());
        let (reads, app) = Reads::one::<App>(&app_id);
        let decide = move |work: &mut dispatcher::Work| {
            let (name, settings, keys) = (name.clone(), Box::<AppSettings>::default(), keys.clone());
            work.execute(app, AppCommand::Create { app_id: id.clone(), name, settings, keys, at })
        };
        match self.dispatcher.run(context, reads, decide).await {
            Ok(_) | Err(DispatchError::Refused(AppError::Exists)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Records that this key belongs to the platform, so that it can be listed and revoked. A revoked key stays revoked.
    pub(crate) async fn admit_brought_key(&self, key_id: ApiKeyId) -> Result<(), BootstrapError> {
        let app_id = AppId::platform();
        let context = self.system_context(&app_id);
        let at = context.at;
        let was_issued = self.was_ever_issued(&app_id, key_id).await?;
        let (reads, app) = Reads::one::<App>(&app_id);
        let decide = move |work: &mut dispatcher::Work| {
            // An earlier start, or another node at the same moment, may have done it already.
            let app_now = work.get(app);
            if was_issued || app_now.revoked_keys.contains(&key_id) || app_now.api_keys.contains_key(&key_id)
            {
                return Ok(());
            }
            let (name, permissions) = (BROUGHT_KEY.to_owned(), BTreeSet::from([Permission::Platform]));
            let command = AppCommand::IssueApiKey { key_id, name, permissions, expires_at: None, at };
            work.execute(app, command)
        };
        match self.dispatcher.run(context, reads, decide).await {
            Ok(_) => {}
            // The platform then has other keys, which can revoke some: no reason to refuse to start.
            Err(DispatchError::Refused(refusal)) => {
                tracing::error!(error = %refusal, "the platform key of the configuration (admin_key) was not admitted");
            }
            Err(error) => return Err(error.into()),
        }
        let app = self.repository.load::<App>(&app_id).await?;
        if !app.state.api_keys.contains_key(&key_id) && was_issued {
            tracing::warn!(
                "the platform key of the configuration (admin_key) was revoked and has no effect. Configure another one"
            );
        }
        Ok(())
    }

    /// Whether the log has the key, live or not: an app remembers only those that were revoked last.
    async fn was_ever_issued(&self, app_id: &AppId, key_id: ApiKeyId) -> Result<bool, StoreError> {
        let app = self.repository.load::<App>(app_id).await?;
        if app.state.api_keys.contains_key(&key_id) {
            return Ok(true);
        }
        for recorded in self.repository.journal().read_stream(&App::stream(app_id), 0).await? {
            if let Event::App(AppEvent::ApiKeyIssued(issued)) = self.repository.decode(&recorded).await?
                && issued.key_id == key_id
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn issue_first_key(&self) -> Result<ApiKeyId, BootstrapError> {
        let app_id = AppId::platform();
        let key_id = ApiKeyId(self.clock.new_id());
        let context = self.system_context(&app_id);
        let at = context.at;
        let (reads, app) = Reads::one::<App>(&app_id);
        let decide = move |work: &mut dispatcher::Work| {
            // Another node that starts at the same time may have been first.
            if let Some(key_id) = work.get(app).api_keys.keys().next() {
                return Ok(*key_id);
            }
            let command = AppCommand::IssueApiKey {
                key_id,
                name: FIRST_KEY.to_owned(),
                permissions: BTreeSet::from([Permission::Platform]),
                expires_at: None,
                at,
            };
            work.execute(app, command).map(|()| key_id)
        };
        let done = self.dispatcher.run(context, reads, decide).await?;
        Ok(done.value.unwrap_or(key_id))
    }

    /// Issues another platform key for an operator who has lost theirs: anybody who can open the stores with the master
    /// key is entitled to it. The journal records the system as the actor.
    pub async fn make_platform_key(&self, name: &str) -> Result<SecretString, DispatchError<AppError>> {
        let (app_id, key_id) = (AppId::platform(), ApiKeyId(self.clock.new_id()));
        self.issue(key_id, name).await?;
        Ok(SecretString::from(ApiKeyToken { app_id, key_id }.encode(&self.tokens)))
    }

    async fn issue(&self, key_id: ApiKeyId, name: &str) -> Result<(), DispatchError<AppError>> {
        let app_id = AppId::platform();
        let context = self.system_context(&app_id);
        let (at, name) = (context.at, name.to_owned());
        let (reads, app) = Reads::one::<App>(&app_id);
        let decide = move |work: &mut dispatcher::Work| {
            let (name, permissions) = (name.clone(), BTreeSet::from([Permission::Platform]));
            let command = AppCommand::IssueApiKey { key_id, name, permissions, expires_at: None, at };
            work.execute(app, command)
        };
        self.dispatcher.run(context, reads, decide).await.map(drop)
    }

    fn system_context(&self, app_id: &AppId) -> Context {
        let metadata = Metadata {
            app_id: app_id.clone(),
            actor: Actor::system(),
            correlation_id: self.clock.new_id(),
            causation_id: None,
            request_id: None,
            traceparent: None,
        };
        Context {
            metadata,
            client: Client::default(),
            at: self.clock.now(),
            idempotency: None,
            is_first: false,
        }
    }
}

const FIRST_KEY: &str = "first platform key";
const BROUGHT_KEY: &str = "platform key of the configuration";
