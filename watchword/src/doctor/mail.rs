//! Where mails go, and which were given up.

use command_service::mailer::{MailUrl, count_given_up};
use event_store::Journal;

use super::Findings;
use crate::config::Config;

/// Whether mails go where they should, as the configuration says.
pub fn address(findings: &mut Findings, config: &Config) {
    let Some(mail) = &config.mail else { return };
    let url = &mail.url;
    match url {
        MailUrl::Files(folder) if config.public_url.is_some() => findings.warning(
            "mail",
            format!("none is sent: they are written to {}. Set mail_url to a mail server", folder.display()),
        ),
        MailUrl::Files(folder) => findings.fine("mail", format!("written to {}", folder.display())),
        MailUrl::Smtp(_) if url.is_private() => findings.fine("mail", format!("sent to {url}")),
        MailUrl::Smtp(_) => findings.warning(
            "mail",
            format!(
                "sent to {url} in the clear: whoever is in between can read the links, and log in with them. Use \
                 smtps://, or add ?tls=required"
            ),
        ),
    }
    let sender = mail.sender(&config.public_url(config.listen));
    if matches!(url, MailUrl::Smtp(_)) && sender.as_str().ends_with(".invalid") {
        findings
            .warning("mail", "mails come from nobody's address, which mail servers refuse. Set mail.sender");
    }
}

/// Tells of mails that were given up.
pub async fn failures(findings: &mut Findings, journal: &dyn Journal) {
    match count_given_up(journal).await {
        Ok(failed) => given_up(findings, failed as u64),
        Err(error) => findings.fault("mail", format!("those that were given up cannot be listed: {error}")),
    }
}

/// Tells how many were given up.
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
