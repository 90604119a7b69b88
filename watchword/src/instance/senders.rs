//! What follows an append in a process that takes commands: mails, and messages to webhooks.

use std::sync::Arc;

use async_trait::async_trait;
use command_service::CommandService;
use domain::{AppId, LogOrigin, Role, UserId};
use effects::Effect;
use effects::mailer::{self, MailTransport, MailUrl, MailerParts, MailerSettings, Patience};
use effects::webhooks::{self, ADMINS_TOLD, FindByRole, WebhookSenderParts, WebhookSenderSettings};
use event_store::{Journal, StoreError};
use read_models::ReadModels;
use read_models::page::Paging;
use read_models::users::{UserFilter, UserStatus};

use super::Stores;
use crate::config::Config;

/// Makes sure that what happens from now on has its effects.
pub(super) async fn begin(journal: &dyn Journal) -> Result<(), StoreError> {
    mailer::begin(journal).await?;
    webhooks::begin(journal).await
}

/// Starts the mailer and the sender of webhooks, in a process that takes commands.
pub(super) fn start(
    config: &Config,
    stores: &Stores,
    commands: Option<&CommandService>,
    origin: &LogOrigin,
    node: &str,
) -> (Option<Arc<Effect>>, Option<Arc<Effect>>) {
    let mailer = commands.and_then(|service| start_mailer(config, service, node));
    (mailer, commands.map(|service| start_webhooks(config, stores, service, origin, node)))
}

/// Sends events to webhooks, those of other processes too.
fn start_webhooks(
    config: &Config,
    stores: &Stores,
    commands: &CommandService,
    origin: &LogOrigin,
    node: &str,
) -> Arc<Effect> {
    Arc::new(webhooks::start(WebhookSenderParts {
        repository: Arc::clone(&commands.repository),
        dispatcher: commands.dispatcher.clone(),
        clock: Arc::clone(&commands.clock),
        messages: Arc::clone(&commands.webhook_messages),
        origin: origin.clone(),
        admins: Arc::new(FindByModel(stores.read_models.clone())),
        settings: WebhookSenderSettings {
            node: node.to_owned(),
            lease: MailerSettings::LEASE,
            policy: config.webhooks.policy,
        },
    }))
}

/// Sends the mails requested by this and other processes, from the position where [`begin`] ensured that it
/// happens.
fn start_mailer(config: &Config, commands: &CommandService, node: &str) -> Option<Arc<Effect>> {
    let mail = config.mail.as_ref()?;
    let public_url = commands.access_tokens.public_url();
    if let MailUrl::Files(folder) = &mail.url {
        let folder = folder.display();
        tracing::warn!("no mail is sent: each is written to {folder} until mail_url names a mail server");
    }
    let post = MailTransport::new(mail.url.clone(), public_url.host_str(), Patience::default());
    if let Some(server) = post.server() {
        let _ = commands.mail_server.set(server);
    }
    Some(Arc::new(mailer::start(MailerParts {
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

/// Finds users by role through the read model. A process without read models finds none.
struct FindByModel(Option<Arc<ReadModels>>);

#[async_trait]
impl FindByRole for FindByModel {
    async fn find(&self, app_id: &AppId, role: &Role) -> Result<Vec<UserId>, StoreError> {
        let Some(models) = &self.0 else { return Ok(vec![]) };
        let filter = UserFilter {
            role: Some(role.clone()),
            status: Some(UserStatus::Active),
            email_verified: Some(true),
            ..UserFilter::default()
        };
        let paging = Paging { limit: ADMINS_TOLD, ..Paging::default() };
        let page = models.users().list(app_id, &filter, &paging).await;
        let page = page.map_err(|error| StoreError::Unavailable(error.to_string().into()))?;
        Ok(page.items.into_iter().map(|user| user.id).collect())
    }
}
