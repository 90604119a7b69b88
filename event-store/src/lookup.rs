//! Look-ups by personal data without storing it: keyed HMACs, which nobody can compute or guess at without the key.

use std::net::IpAddr;

use aws_lc_rs::hmac;
use domain::{AppId, Email, SessionId, UserId};

use crate::instance_key::InstanceKey;
use crate::journal::Claim;

/// The key of all look-ups.
pub struct LookupKey(hmac::Key);

impl LookupKey {
    /// Derives it.
    pub fn new(instance: &InstanceKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*instance.derive("watchword/v1/lookup")))
    }

    /// Stands for an address within an app. The same address in two apps gives unrelated values.
    pub fn email(&self, app: &AppId, email: &Email) -> [u8; 32] {
        // Neither an app id nor an address can hold a NUL, so no two inputs are the same bytes.
        self.hmac(&["email", app.as_str(), email.as_str()])
    }

    /// Stands for a network address within an app.
    pub fn ip(&self, app: &AppId, ip: IpAddr) -> [u8; 32] {
        self.hmac(&["ip", app.as_str(), &ip.to_canonical().to_string()])
    }

    /// Stands for a search word in a blind index. Short on purpose: it finds rows, it proves nothing.
    pub fn token(&self, text: &str) -> [u8; 8] {
        let long = self.hmac(&["token", text]);
        let mut short = [0; 8];
        short.copy_from_slice(&long[..8]);
        short
    }

    /// The claim that keeps an address to one account of an app.
    pub fn email_claim(&self, app: &AppId, email: &Email) -> Claim {
        self.claim_of_address("email", app, email)
    }

    /// The claim that the newest magic link to an address holds.
    pub fn magic_link_claim(&self, app: &AppId, email: &Email) -> Claim {
        self.claim_of_address("magic_link", app, email)
    }

    fn claim_of_address(&self, kind: &str, app: &AppId, email: &Email) -> Claim {
        use std::fmt::Write;
        let mut key = format!("{app}:");
        for byte in self.email(app, email) {
            write!(key, "{byte:02x}").expect("a String takes everything");
        }
        Claim { kind: kind.to_owned(), key }
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

/// The claim a session holds while it lives: together they are the list of a user's sessions, which needs no
/// projection. All of a user's start with [`sessions_of`].
pub fn session_claim(user: UserId, session: SessionId) -> Claim {
    Claim { kind: "session".to_owned(), key: format!("{user}/{session}") }
}

/// The prefix of the keys of a user's session claims.
pub fn sessions_of(user: UserId) -> String {
    format!("{user}/")
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
}
