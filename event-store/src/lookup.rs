//! Look-ups by personal data without storing it: keyed HMACs, which cannot be computed or tested against guesses
//! without the key. And the names under which a journal keeps claims.

use std::net::IpAddr;

use aws_lc_rs::hmac;
use domain::claims::{ClaimKind, Claimed};
use domain::mail::MailKind;
use domain::organization::Slug;
use domain::{AppId, Email, EventId, UserId, WebhookId};

use crate::instance_key::InstanceKey;
use crate::journal::Claim;

/// The key of all look-ups.
pub struct LookupKey(hmac::Key);

impl LookupKey {
    /// Derives the key.
    pub fn new(instance: &InstanceKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*instance.derive("watchword/v1/lookup")))
    }

    /// Stands for an address within an app. The same address in two apps gives unrelated values.
    pub fn email(&self, app: &AppId, email: &Email) -> [u8; 32] {
        // Neither an app id nor an address can contain a NUL, so no two inputs are the same bytes.
        self.hmac(&["email", app.as_str(), email.as_str()])
    }

    /// Stands for a network address within an app.
    pub fn ip(&self, app: &AppId, ip: IpAddr) -> [u8; 32] {
        self.hmac(&["ip", app.as_str(), &ip.to_canonical().to_string()])
    }

    /// Stands for an account of another system within an app: what an imported user's id is made of.
    pub fn imported(&self, app: &AppId, account: &str) -> [u8; 32] {
        self.hmac(&["imported", app.as_str(), account])
    }

    /// Stands for a person where they are only counted. Erasure changes nothing about it: without the key nobody can tell whom it
    /// stands for, and the count stays right.
    pub fn person(&self, app: &AppId, user: UserId) -> [u8; 16] {
        let long = self.hmac(&["person", app.as_str(), &user.to_string()]);
        let mut short = [0; 16];
        short.copy_from_slice(&long[..16]);
        short
    }

    /// Stands for a search word in a blind index. Short on purpose: it finds rows but proves nothing.
    pub fn token(&self, text: &str) -> [u8; 8] {
        let long = self.hmac(&["token", text]);
        let mut short = [0; 8];
        short.copy_from_slice(&long[..8]);
        short
    }

    /// The claim that limits an address to one account of an app.
    pub fn email_claim(&self, app: &AppId, email: &Email) -> Claim {
        claim(ClaimKind::Email, self.address(app, email))
    }

    /// The claim that the newest magic link to an address holds.
    pub fn magic_link_claim(&self, app: &AppId, email: &Email) -> Claim {
        claim(ClaimKind::MagicLink, self.address(app, email))
    }

    /// The name of what an event claims; none where the address in it cannot be read any more. Mails are named by the app and
    /// the position of the event that asked for them, which `asked` knows.
    pub fn claim(
        &self,
        claimed: &Claimed,
        asked: impl Fn(EventId, MailKind) -> Option<(AppId, u64)>,
    ) -> Option<Claim> {
        match claimed {
            Claimed::Email { app_id, email } => Some(self.email_claim(app_id, email.as_ref()?)),
            Claimed::MagicLink { app_id, email } => Some(self.magic_link_claim(app_id, email.as_ref()?)),
            Claimed::MailFailed(event, kind) | Claimed::MailWaiting(event, kind) => {
                let (app_id, position) = asked(*event, *kind)?;
                // With leading zeros, so that the order of the keys is that of the positions.
                let key = format!("{}{position:020}/{}", mails_of(&app_id), kind.as_str());
                Some(claim(claimed.kind(), key))
            }
            Claimed::App(_)
            | Claimed::Erased(_)
            | Claimed::Origin
            | Claimed::Session { .. }
            | Claimed::Slug { .. }
            | Claimed::Webhook { .. }
            | Claimed::WebhookFailed(..)
            | Claimed::WebhookWaiting(..) => plain(claimed),
        }
    }

    fn address(&self, app: &AppId, email: &Email) -> String {
        format!("{app}:{}", hex::encode(self.email(app, email)))
    }

    fn hmac(&self, parts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        let mut value = [0; 32];
        value.copy_from_slice(context.sign().as_ref());
        value
    }
}

/// The name of a claim that is named only by ids.
pub(crate) fn plain(claimed: &Claimed) -> Option<Claim> {
    let key = match claimed {
        Claimed::App(app_id) => app_id.to_string(),
        Claimed::Erased(user_id) => user_id.to_string(),
        Claimed::Origin => "origin".to_owned(),
        Claimed::Session { user_id, session_id } => format!("{}{session_id}", sessions_of(*user_id)),
        Claimed::Slug { app_id, slug } => return Some(slug_claim(app_id, slug)),
        Claimed::Webhook { app_id, webhook_id } => format!("{}{webhook_id}", webhooks_of(app_id)),
        // With leading zeros, so that the order of the keys is that of the positions.
        Claimed::WebhookFailed(webhook_id, position) | Claimed::WebhookWaiting(webhook_id, position) => {
            format!("{}{position:020}", messages_to(*webhook_id))
        }
        Claimed::Email { .. }
        | Claimed::MagicLink { .. }
        | Claimed::MailFailed(..)
        | Claimed::MailWaiting(..) => return None,
    };
    Some(claim(claimed.kind(), key))
}

fn claim(kind: ClaimKind, key: String) -> Claim {
    Claim { kind: kind.as_str().to_owned(), key }
}

/// The claim on an organization's slug in its app.
pub fn slug_claim(app_id: &AppId, slug: &Slug) -> Claim {
    claim(ClaimKind::Slug, format!("{}{slug}", slugs_of(app_id)))
}

/// The claim on the id of an app.
pub fn app_claim(app_id: &AppId) -> Claim {
    claim(ClaimKind::App, app_id.to_string())
}

/// The prefix of the keys of a user's session claims: they are the list of the user's sessions, without a projection.
pub fn sessions_of(user: UserId) -> String {
    format!("{user}/")
}

/// The prefix of the keys of the claims on slugs: they are the list of an app's organizations, without a projection.
pub fn slugs_of(app_id: &AppId) -> String {
    format!("{app_id}/")
}

/// The prefix of the keys of the claims that list an app's mails.
pub fn mails_of(app_id: &AppId) -> String {
    format!("{app_id}/")
}

/// The prefix of the keys of the claims that list an app's webhooks.
pub fn webhooks_of(app_id: &AppId) -> String {
    format!("{app_id}/")
}

/// The prefix of the keys of the claims that list the messages to a webhook.
pub fn messages_to(webhook_id: WebhookId) -> String {
    format!("{webhook_id}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_differs_by_app_and_key() {
        let email = Email::parse("ada@example.com").expect("valid");
        let (one, two) = (LookupKey::new(&InstanceKey::generate()), LookupKey::new(&InstanceKey::generate()));
        let app = AppId::default_app();
        let other = AppId::parse("other").expect("valid");
        assert_eq!(one.email(&app, &email), one.email(&app, &email));
        assert_ne!(one.email(&app, &email), one.email(&other, &email));
        assert_ne!(one.email(&app, &email), two.email(&app, &email));
        let claim = one.email_claim(&app, &email);
        let code = claim.key.strip_prefix("default:").expect("it begins with the app");
        assert!(code.len() == 64 && code.bytes().all(|byte| byte.is_ascii_hexdigit()), "{code}");
    }

    /// Claims are found by these names, which never change.
    #[test]
    fn claims_have_the_names_they_always_had() {
        use domain::SessionId;
        use uuid::Uuid;
        let key = LookupKey::new(&InstanceKey::generate());
        let (user_id, session_id) = (UserId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)));
        let (app_id, event) = (AppId::default_app(), EventId(Uuid::from_u128(3)));
        let email = Email::parse("ada@example.com").expect("valid");
        let name = |claimed: &Claimed| {
            let name = key.claim(claimed, |asked, _| (asked == event).then(|| (AppId::default_app(), 42)));
            name.map(|claim| (claim.kind, claim.key))
        };
        let named = |kind: &str, key: &str| Some((kind.to_owned(), key.to_owned()));
        let (user, session) =
            ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002");
        assert_eq!(name(&Claimed::App(app_id.clone())), named("app", "default"));
        assert_eq!(app_claim(&app_id).key, "default");
        assert_eq!(name(&Claimed::Erased(user_id)), named("erased", user));
        assert_eq!(name(&Claimed::Origin), named("journal", "origin"));
        assert_eq!(
            name(&Claimed::Session { user_id, session_id }),
            named("session", &format!("{user}/{session}"))
        );
        let webhook_id = WebhookId(Uuid::from_u128(5));
        assert_eq!(
            name(&Claimed::Webhook { app_id: app_id.clone(), webhook_id }),
            named("webhook", "default/00000000-0000-0000-0000-000000000005")
        );
        let message = "00000000-0000-0000-0000-000000000005/00000000000000000042";
        assert_eq!(name(&Claimed::WebhookWaiting(webhook_id, 42)), named("webhook_waiting", message));
        assert_eq!(name(&Claimed::WebhookFailed(webhook_id, 42)), named("webhook_failed", message));
        let mail = "default/00000000000000000042/magic_link";
        assert_eq!(name(&Claimed::MailWaiting(event, MailKind::MagicLink)), named("mail_waiting", mail));
        assert_eq!(name(&Claimed::MailFailed(event, MailKind::MagicLink)), named("mail_failed", mail));
        let slug = Slug::parse("engines").expect("valid");
        let slug = Claimed::Slug { app_id: app_id.clone(), slug };
        assert_eq!(name(&slug), named("slug", "default/engines"));
        let known = Claimed::Email { app_id: app_id.clone(), email: Some(email.clone()) };
        assert_eq!(name(&known), named("email", &key.email_claim(&app_id, &email).key));
        let link = Claimed::MagicLink { app_id: app_id.clone(), email: Some(email.clone()) };
        assert_eq!(name(&link), named("magic_link", &key.email_claim(&app_id, &email).key));
        assert_eq!(name(&Claimed::Email { app_id, email: None }), None);
        let other = EventId(Uuid::from_u128(4));
        assert_eq!(name(&Claimed::MailFailed(other, MailKind::MagicLink)), None);
    }
}
