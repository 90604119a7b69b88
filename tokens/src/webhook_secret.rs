//! The secrets of webhooks, which are stored nowhere, and the signatures made with them (Standard Webhooks).

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::WebhookId;

use crate::DerivedTokens;

/// The length of a secret; Standard Webhooks asks for 24 to 64 bytes.
const LENGTH: usize = 32;

/// The secret of a webhook.
pub struct WebhookSecret([u8; LENGTH]);

impl WebhookSecret {
    /// Derives the secret of a webhook: always the same one.
    pub fn of(tokens: &DerivedTokens, webhook_id: WebhookId) -> Self {
        Self(tokens.derive_webhook_secret(webhook_id.0.as_bytes()))
    }

    /// As its receiver is given it.
    pub fn text(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.0))
    }

    /// The value of the header `webhook-signature` of a message. `timestamp` is that of `webhook-timestamp`.
    pub fn sign(&self, message_id: &str, timestamp: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{message_id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use event_store::InstanceKey;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_webhook_has_its_secret_and_always_the_same() {
        let (one, other) =
            (DerivedTokens::new(&InstanceKey::generate()), DerivedTokens::new(&InstanceKey::generate()));
        let text = |tokens: &DerivedTokens, id: u128| {
            WebhookSecret::of(tokens, WebhookId(Uuid::from_u128(id))).text()
        };
        assert_eq!(text(&one, 1), text(&one, 1));
        assert_ne!(text(&one, 1), text(&one, 2));
        assert_ne!(text(&one, 1), text(&other, 1));
        let secret =
            STANDARD.decode(text(&one, 1).strip_prefix("whsec_").expect("its prefix")).expect("base64");
        assert_eq!(secret.len(), LENGTH);
    }

    #[test]
    fn messages_are_signed_as_the_specification_says() {
        let secret = WebhookSecret(*b"01234567890123456789012345678901");
        let signature = secret.sign("msg_1", 1_614_265_330, br#"{"test": 2432232314}"#);
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"01234567890123456789012345678901");
        let tag = STANDARD.decode(signature.strip_prefix("v1,").expect("its version")).expect("base64");
        let signed = br#"msg_1.1614265330.{"test": 2432232314}"#;
        hmac::verify(&key, signed, &tag).expect("it is the message's");
        assert_ne!(signature, secret.sign("msg_1", 1_614_265_331, br#"{"test": 2432232314}"#));
        assert_ne!(signature, secret.sign("msg_2", 1_614_265_330, br#"{"test": 2432232314}"#));
    }
}
