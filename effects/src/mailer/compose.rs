//! Composes the mail that an event requests. Its whole content follows from the event and the app's settings, so a
//! repeated mail is identical: the same token, date, `Message-ID` and boundary.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use askama::Template;
use domain::app::App;
use domain::branding::{LogoUrl, text_on};
use domain::mail::{Mail, MailKind};
use domain::settings::AppSettings;
use domain::user::User;
use domain::{AppId, Email, Event};
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};
use schemas::RecordedEvent;
use tokens::{AccessTokens, DerivedTokens};

use super::headers::{From, Subject};
use super::links::{disown_link, link_of};
use super::transport::Unsent;
use super::words::{Words, account_made, disown_title, words};
use crate::senders::Senders;

/// A mail ready to be sent.
pub(super) struct Letter {
    pub message: Message,
    id: String,
}

impl Letter {
    /// Its file name.
    pub fn name(&self) -> String {
        format!("{}.eml", self.id)
    }
}

/// Composes mails.
pub(super) struct Composer {
    pub tokens: DerivedTokens,
    pub access_tokens: std::sync::Arc<AccessTokens>,
    pub senders: Senders,
    /// The apps whose senders were already reported in the log.
    pub told: Mutex<HashSet<AppId>>,
}

impl Composer {
    pub fn compose(
        &self,
        recorded: &RecordedEvent,
        event: &Event,
        mail: &Mail,
        app: &App,
        user: &User,
    ) -> Result<Letter, Unsent> {
        if fail::has_failpoints() {
            let point = format!("compose-{}", mail.kind.as_str());
            fail::fail_point!(&point, |_| panic!("a test made it fail"));
            // Without the feature, nothing uses it.
            let _ = point;
        }
        let app_id = &recorded.metadata.app_id;
        if app.id.is_none() {
            return Err(Unsent::not_made("there is no such app"));
        }
        if app.disabled {
            return Err(Unsent::not_made("the app is disabled"));
        }
        if user.erased {
            return Err(Unsent::not_made("the recipient was erased"));
        }
        let AppSettings { branding, locale, links, .. } = &app.settings;
        let link = self.link(app_id, event, mail.kind, links);
        if link.is_none() && !mail.kind.is_notice() {
            return Err(Unsent::not_made("it has no link"));
        }
        let product = app.product();
        let lasts = mail.expires_at.map(|end| end.duration_since(recorded.at));
        let locale = locale.fixed().unwrap_or_default();
        let words = words(mail.kind, locale, &product, lasts);
        let disown = (mail.kind == MailKind::EmailVerification).then_some(()).and_then(|()| {
            let link = disown_link(&self.tokens.of_event(event)?, &self.access_tokens.issuer(app_id));
            let made = account_made(locale, user.created_at, user.made_from.as_deref());
            Some(Disown { made, button: disown_title(locale), link })
        });
        let colour = branding.accent();
        let page = Page {
            lang: locale.tag(),
            product: &product,
            logo: branding.logo.as_ref().map(LogoUrl::as_str),
            colour,
            on_colour: text_on(colour),
            words: &words,
            link: link.as_deref(),
            disown: disown.as_ref(),
        };
        let not_made = |error: &dyn std::error::Error| Unsent::not_made(error.to_string());
        let html = page.render().map_err(|error| not_made(&error))?;
        let text = Text { page: &page }.render().map_err(|error| not_made(&error))?;

        let own_sender = branding.sender.as_ref().filter(|sender| self.senders.allow(sender));
        let sender = own_sender.unwrap_or(&self.senders.own);
        if own_sender.is_none() && branding.sender.is_some() {
            self.tell(app_id);
        }
        // A sender that is no longer on the operator's list still gets the replies.
        let reply_to =
            branding.reply_to.as_ref().or(branding.sender.as_ref().filter(|_| own_sender.is_none()));
        let id = format!("{}.{}", recorded.id, mail.kind.as_str());
        let domain = sender.as_str().rsplit('@').next().unwrap_or("localhost");
        let mut message = Message::builder()
            .message_id(Some(format!("<{id}@{domain}>")))
            .date(SystemTime::from(recorded.at))
            .header(From { name: product.clone(), address: address(sender)? })
            .to(Mailbox::new(None, address(&mail.to)?))
            .header(Subject(words.subject.clone()))
            .header(AutoSubmitted);
        if let Some(reply_to) = reply_to {
            message = message.reply_to(Mailbox::new(None, address(reply_to)?));
        }
        let part = |content_type, body| SinglePart::builder().header(content_type).body::<String>(body);
        let parts = MultiPart::alternative()
            .boundary(format!("watchword-{}", recorded.id.simple()))
            .singlepart(part(ContentType::TEXT_PLAIN, text))
            .singlepart(part(ContentType::TEXT_HTML, html));
        let message = message.multipart(parts).map_err(|error| not_made(&error))?;
        Ok(Letter { message, id })
    }

    /// Logs, once per app, that its mails do not come from its configured sender.
    fn tell(&self, app_id: &AppId) {
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(app_id.clone()) {
            let own = self.senders.own.as_str();
            tracing::warn!(%app_id, "mails come from {own}: the domain of the app's sender is not in mail.sender_domains");
        }
    }

    fn link(
        &self,
        app_id: &AppId,
        event: &Event,
        kind: MailKind,
        links: &domain::settings::Links,
    ) -> Option<String> {
        let token = self.tokens.of_event(event)?;
        link_of(kind, &token, &self.access_tokens.issuer(app_id), links)
    }
}

fn address(email: &Email) -> Result<Address, Unsent> {
    // The parser's error would quote the address.
    email.as_str().parse().map_err(|_| Unsent::not_made("the address is not valid in a mail"))
}

/// Tells autoresponders not to answer this mail (RFC 3834 section 5).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[derive(Template)]
#[template(path = "mail.html")]
struct Page<'a> {
    lang: &'a str,
    product: &'a str,
    logo: Option<&'a str>,
    colour: &'a str,
    on_colour: &'a str,
    words: &'a Words,
    link: Option<&'a str>,
    disown: Option<&'a Disown>,
}

/// When and from where the account was created, and the link to erase it.
struct Disown {
    made: String,
    button: &'static str,
    link: String,
}

#[derive(Template)]
#[template(path = "mail.txt")]
struct Text<'a> {
    page: &'a Page<'a>,
}
