//! What follows an append in a process that takes commands: mails, and messages to webhooks.

use std::sync::Arc;

use command_service::CommandService;
use domain::LogOrigin;
use effects::mailer::{self, MailTransport, MailUrl, Mailer, MailerParts, MailerSettings, Patience};
use effects::webhooks::{self, WebhookSender, WebhookSenderParts, WebhookSenderSettings};
use event_store::{Journal, StoreError};
use tokens::PublicUrl;

use crate::config::Config;

/// Makes sure that what happens from now on has its effects.
pub(super) async fn begin(journal: &dyn Journal) -> Result<(), StoreError> {
    mailer::begin(journal).await?;
    webhooks::begin(journal).await
}

/// Starts the mailer and the sender of webhooks, in a process that takes commands.
pub(super) fn start(
    config: &Config,
    commands: Option<&CommandService>,
    public_url: &PublicUrl,
    origin: &LogOrigin,
    node: &str,
) -> (Option<Arc<Mailer>>, Option<Arc<WebhookSender>>) {
    let mailer = commands.and_then(|service| start_mailer(config, service, public_url, node));
    (mailer, commands.map(|service| start_webhooks(config, service, origin, node)))
}

/// Sends events to webhooks, those of other processes too.
fn start_webhooks(
    config: &Config,
    commands: &CommandService,
    origin: &LogOrigin,
    node: &str,
) -> Arc<WebhookSender> {
    Arc::new(WebhookSender::start(WebhookSenderParts {
        repository: Arc::clone(&commands.repository),
        dispatcher: commands.dispatcher.clone(),
        clock: Arc::clone(&commands.clock),
        messages: Arc::clone(&commands.webhook_messages),
        origin: origin.clone(),
        settings: WebhookSenderSettings {
            node: node.to_owned(),
            lease: MailerSettings::LEASE,
            policy: config.webhooks.policy,
        },
    }))
}

/// Sends the mails requested by this and other processes, from the position where [`begin`] ensured that it
/// happens.
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
