//! The destination of mails, and failed mails.

use std::time::Duration;

use command_service::APPS;
use domain::Event;
use domain::app::AppEvent;
use effects::mailer::{MailTransport, MailUrl, Patience, count_given_up};
use effects::senders::Senders;
use event_store::{Journal, StoreError};
use schemas::codec;

use super::Findings;
use crate::config::Config;

/// The time limit for the mail server's login.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the configured destination of mails is right and accepts them.
pub async fn address(findings: &mut Findings, config: &Config) {
    let Some(mail) = &config.mail else { return };
    let url = &mail.url;
    let public_url = config.public_url(config.listen);
    let hello = public_url.host_str();
    let post = MailTransport::new(url.clone(), hello, Patience { ready: PATIENCE, ..Patience::default() });
    let answer = match post.greet().await {
        Ok(answer) => answer,
        Err(problem) => {
            findings.fault(
                "mail",
                format!(
                    "{url}: {problem}. No mail is sent until that is fixed: check mail_url (WATCHWORD_MAIL_URL), and the mail \
                     server's log"
                ),
            );
            return;
        }
    };
    match url {
        MailUrl::Files(folder) if config.public_url.is_some() => findings.warning(
            "mail",
            format!("none is sent: they are written to {}. Set mail_url to a mail server", folder.display()),
        ),
        MailUrl::Files(folder) => findings.fine("mail", format!("written to {}", folder.display())),
        MailUrl::Smtp(_) if url.is_private() => findings.fine("mail", format!("sent to {url}: {answer}")),
        MailUrl::Smtp(_) => findings.warning(
            "mail",
            format!(
                "sent to {url} unencrypted: anybody in between can read the links and log in with them. Use \
                 smtps://, or add ?tls=required"
            ),
        ),
    }
    let sender = config.senders(&public_url).own;
    if matches!(url, MailUrl::Smtp(_)) && sender.as_str().ends_with(".invalid") {
        findings.warning(
            "mail",
            "mails come from an invalid address, which mail servers refuse. Set mail.sender",
        );
    }
}

/// Reports apps whose sender is no longer allowed: it was set under another `mail.sender_domains`.
pub async fn senders(findings: &mut Findings, config: &Config, journal: &dyn Journal) {
    let senders = config.senders(&config.public_url(config.listen));
    match apps_elsewhere(journal, &senders).await {
        Ok(apps) if apps.is_empty() => {}
        Ok(apps) => findings.warning(
            "mail",
            format!(
                "the mails of {} come from {} instead of the sender that is set, whose domain is not in mail.sender_domains. \
                 List it there, or take the app's branding.sender away",
                apps.join(", "),
                senders.own.as_str()
            ),
        ),
        // Reported where every event is read.
        Err(StoreError::Damaged(_)) => {}
        Err(error) => findings.fault("mail", format!("the senders of apps cannot be read: {error}")),
    }
}

async fn apps_elsewhere(journal: &dyn Journal, senders: &Senders) -> Result<Vec<String>, StoreError> {
    let mut apps = Vec::new();
    for (claim, stream) in journal.claims(APPS, "").await? {
        let mut sender = None;
        for event in journal.read_stream(&stream, 0).await? {
            // Unreadable events are reported by the check of all events.
            match codec::decode(&stream, &event.name, event.schema_version, &event.data, None) {
                Ok(Event::App(AppEvent::AppCreated(event))) => sender = event.settings.branding.sender,
                Ok(Event::App(AppEvent::AppSettingsChanged(event))) => {
                    sender = event.settings.branding.sender;
                }
                _ => {}
            }
        }
        if sender.is_some_and(|sender| !senders.allow(&sender)) {
            apps.push(claim.key);
        }
    }
    Ok(apps)
}

/// Reports mails that were skipped and will not be sent, by the positions of the events that requested them.
pub fn passed_over(findings: &mut Findings, positions: &[u64]) {
    let [first, ..] = positions else { return };
    findings.warning(
        "mail",
        format!(
            "{} were skipped, the first requested by event {first}: neither sent nor given up, although the mailer is past \
             them. Somebody moved or deleted its cursor, or the events could not be read then. Who needs one has to ask for it \
             again",
            positions.len()
        ),
    );
}

/// Reports failed mails.
pub async fn failures(findings: &mut Findings, journal: &dyn Journal) {
    match count_given_up(journal).await {
        Ok(failed) => given_up(findings, failed as u64),
        Err(error) => findings.fault("mail", format!("those that were given up cannot be listed: {error}")),
    }
}

/// Reports how many mails failed.
pub fn given_up(findings: &mut Findings, failed: u64) {
    if failed > 0 {
        findings.warning(
            "mail",
            format!(
                "{failed} given up. GET /v1/apps/<app>/admin/mail/failures says why, and a POST to …/<id>/retry tries one \
                 again"
            ),
        );
    }
}
