//! Derived tokens, which are stored nowhere. A token names the thing it stands for and proves that it was issued here;
//! whether that thing is still valid is in the log.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::magic_link::MagicLinkEvent;
use domain::one_time::UserToken;
use domain::organization::{MemberInvited, OrganizationEvent};
use domain::user::UserEvent;
use domain::{ApiKeyId, AppId, DeviceId, Event, MagicLinkId, SessionId, Timestamp, UserId};
use event_store::InstanceKey;
use uuid::Uuid;

use crate::organizations::InvitationToken;

/// The purpose of a token. A token is valid for one purpose only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPurpose {
    /// Continues a session.
    Refresh,
    /// Authenticates a program.
    ApiKey,
    /// Proves that a page can read the cookies of a session.
    Csrf,
    /// Redeems a magic link.
    MagicLink,
    /// Exchanged for the tokens of a session by the app that a browser was sent to.
    ExchangeCode,
    /// Verifies an address.
    EmailVerification,
    /// Changes the account's address.
    EmailChange,
    /// Allows choosing a new password.
    PasswordReset,
    /// Proves that a device has been in an account before.
    Device,
    /// Accepts an invitation.
    Invitation,
    /// Authenticates a program of an organization to the app's programs, and to nobody here.
    OrganizationKey,
}

impl TokenPurpose {
    const ALL: [Self; 11] = [
        Self::Refresh,
        Self::ApiKey,
        Self::Csrf,
        Self::MagicLink,
        Self::ExchangeCode,
        Self::EmailVerification,
        Self::EmailChange,
        Self::PasswordReset,
        Self::Device,
        Self::Invitation,
        Self::OrganizationKey,
    ];

    /// The token's prefix, by which people and secret scanners recognize it.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Refresh => "wwr_",
            Self::ApiKey | Self::OrganizationKey => "wwk_",
            Self::Csrf => "wwc_",
            Self::MagicLink => "wwm_",
            Self::ExchangeCode => "wwx_",
            Self::EmailVerification => "wwv_",
            Self::EmailChange => "wwe_",
            Self::PasswordReset => "wwp_",
            Self::Device => "wwd_",
            Self::Invitation => "wwi_",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::ApiKey => "api-key",
            Self::Csrf => "csrf",
            Self::MagicLink => "magic-link",
            Self::ExchangeCode => "exchange-code",
            Self::EmailVerification => "email-verification",
            Self::EmailChange => "email-change",
            Self::PasswordReset => "password-reset",
            Self::Device => "device",
            Self::Invitation => "invitation",
            Self::OrganizationKey => "organization-key",
        }
    }
}

const ID: usize = 4;
const TAG: usize = 32;

/// Makes and opens tokens: `<prefix>` + base64url(key id ‖ payload ‖ HMAC-SHA-256(derived key, purpose ‖ 0 ‖ payload)).
#[derive(Clone)]
pub struct DerivedTokens(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    id: [u8; ID],
    /// The configured platform key: its tag and its id. The text itself is not kept.
    brought: Option<([u8; TAG], ApiKeyId)>,
    /// In the order of [`TokenPurpose::ALL`], which is that of its variants.
    keys: [hmac::Key; TokenPurpose::ALL.len()],
    /// Of the secrets of webhooks, which are no tokens: others verify with them.
    webhooks: hmac::Key,
}

impl DerivedTokens {
    /// Derives the keys.
    pub fn new(instance: &InstanceKey) -> Self {
        let key = |purpose: TokenPurpose| {
            let derived = instance.derive(&format!("watchword/v1/token/{}", purpose.name()));
            hmac::Key::new(hmac::HMAC_SHA256, &*derived)
        };
        let webhooks = hmac::Key::new(hmac::HMAC_SHA256, &*instance.derive("watchword/v1/webhook-secret"));
        Self(Arc::new(Parts { id: instance.id(), brought: None, keys: TokenPurpose::ALL.map(key), webhooks }))
    }

    /// Accepts this text as a platform key, too: one created outside and configured as a secret. Its id is derived from it, so
    /// that all nodes configured with it agree, and another text is another key.
    #[must_use]
    pub fn with_platform_key(self, brought: &str) -> Self {
        let tag = self.tag_of_brought(brought);
        let mut id = [0; 16];
        id.copy_from_slice(
            &hmac::sign(self.key(TokenPurpose::ApiKey), &[b"brought-id\0", &tag[..]].concat()).as_ref()[..16],
        );
        let id = ApiKeyId(uuid::Builder::from_custom_bytes(id).into_uuid());
        Self(Arc::new(Parts { brought: Some((tag, id)), ..(*self.0).clone() }))
    }

    /// The id of the configured platform key.
    pub fn brought_platform_key(&self) -> Option<ApiKeyId> {
        self.0.brought.map(|(_, id)| id)
    }

    fn tag_of_brought(&self, text: &str) -> [u8; TAG] {
        let tag = hmac::sign(self.key(TokenPurpose::ApiKey), &[b"brought\0", text.as_bytes()].concat());
        let mut bytes = [0; TAG];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// The id of the configured platform key, if this is it. Compares tags, which reveal nothing of the text, in constant time.
    pub fn is_brought(&self, token: &str) -> Option<ApiKeyId> {
        let (tag, id) = self.0.brought.as_ref().filter(|_| token.len() <= 512)?;
        constant_time::verify_slices_are_equal(tag, &self.tag_of_brought(token)).ok().map(|()| *id)
    }

    /// Derives the token of a payload: always the same one.
    pub fn seal(&self, purpose: TokenPurpose, payload: &[u8]) -> String {
        let tag = hmac::sign(self.key(purpose), &message(purpose, payload));
        let bytes = [&self.0.id[..], payload, tag.as_ref()].concat();
        format!("{}{}", purpose.prefix(), URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The payload of a genuine token.
    pub fn open(&self, purpose: TokenPurpose, token: &str) -> Option<Vec<u8>> {
        if token.len() > 512 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(purpose.prefix())?).ok()?;
        let (id, rest) = bytes.split_at_checked(ID)?;
        let (payload, tag) = rest.split_at_checked(rest.len().checked_sub(TAG)?)?;
        if id != self.0.id {
            return None;
        }
        hmac::verify(self.key(purpose), &message(purpose, payload), tag).ok()?;
        Some(payload.to_vec())
    }

    /// The secret of the webhook with this id.
    pub(crate) fn derive_webhook_secret(&self, id: &[u8; 16]) -> [u8; TAG] {
        let mut secret = [0; TAG];
        secret.copy_from_slice(hmac::sign(&self.0.webhooks, id).as_ref());
        secret
    }

    fn key(&self, purpose: TokenPurpose) -> &hmac::Key {
        &self.0.keys[purpose as usize]
    }
}

fn message(purpose: TokenPurpose, payload: &[u8]) -> Vec<u8> {
    [purpose.name().as_bytes(), &[0], payload].concat()
}

/// The content of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// The session it continues.
    pub session_id: SessionId,
    /// Its place in the session's chain.
    pub generation: u32,
}

impl RefreshToken {
    /// The token.
    pub fn encode(&self, tokens: &DerivedTokens) -> String {
        let payload = [&self.session_id.0.as_bytes()[..], &self.generation.to_be_bytes()].concat();
        tokens.seal(TokenPurpose::Refresh, &payload)
    }

    /// Decodes a genuine token.
    pub fn decode(tokens: &DerivedTokens, token: &str) -> Option<Self> {
        let payload = tokens.open(TokenPurpose::Refresh, token)?;
        let (session, generation) = payload.split_first_chunk::<16>()?;
        let generation = u32::from_be_bytes(generation.try_into().ok()?);
        Some(Self { session_id: SessionId(Uuid::from_bytes(*session)), generation })
    }
}

/// The content of a device token: who logged in there, its expiry, and the user's epoch. It grants no access: its holder
/// is only counted separately from strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceToken {
    /// The account. A user belongs to one app.
    pub user_id: UserId,
    /// The device that requests are counted for.
    pub device_id: DeviceId,
    /// The user's epoch: ending all sessions also ends all device tokens.
    pub epoch: u32,
    /// Its expiry.
    pub expires_at: Timestamp,
}

impl DeviceToken {
    /// The token.
    pub fn encode(&self, tokens: &DerivedTokens) -> String {
        let end = self.expires_at.as_second().to_be_bytes();
        let (user, device) = (self.user_id.0.as_bytes(), self.device_id.0.as_bytes());
        tokens.seal(TokenPurpose::Device, &[&user[..], device, &self.epoch.to_be_bytes(), &end].concat())
    }

    /// Decodes a genuine token.
    pub fn decode(tokens: &DerivedTokens, token: &str) -> Option<Self> {
        let payload = tokens.open(TokenPurpose::Device, token)?;
        let (user, rest) = payload.split_first_chunk::<16>()?;
        let (device, rest) = rest.split_first_chunk::<16>()?;
        let (epoch, end) = rest.split_first_chunk::<4>()?;
        Some(Self {
            user_id: UserId(Uuid::from_bytes(*user)),
            device_id: DeviceId(Uuid::from_bytes(*device)),
            epoch: u32::from_be_bytes(*epoch),
            expires_at: Timestamp::from_second(i64::from_be_bytes(end.try_into().ok()?)).ok()?,
        })
    }
}

/// The content of an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyToken {
    /// The app it belongs to.
    pub app_id: AppId,
    /// Its id within the app.
    pub key_id: ApiKeyId,
}

impl ApiKeyToken {
    /// The key as it is issued.
    pub fn encode(&self, tokens: &DerivedTokens) -> String {
        let payload = [&self.key_id.0.as_bytes()[..], self.app_id.as_str().as_bytes()].concat();
        tokens.seal(TokenPurpose::ApiKey, &payload)
    }

    /// Decodes a genuine or configured key.
    pub fn decode(tokens: &DerivedTokens, token: &str) -> Option<Self> {
        if let Some(key_id) = tokens.is_brought(token) {
            return Some(Self { app_id: AppId::platform(), key_id });
        }
        let payload = tokens.open(TokenPurpose::ApiKey, token)?;
        let (key, app) = payload.split_first_chunk::<16>()?;
        let app_id = AppId::parse(std::str::from_utf8(app).ok()?).ok()?;
        Some(Self { app_id, key_id: ApiKeyId(Uuid::from_bytes(*key)) })
    }
}

/// The content of a magic link's token, and of its exchange code: the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MagicLinkToken(pub MagicLinkId);

impl MagicLinkToken {
    /// The token in the mail.
    pub fn encode(self, tokens: &DerivedTokens) -> String {
        tokens.seal(TokenPurpose::MagicLink, self.0.0.as_bytes())
    }

    /// Decodes a genuine token.
    pub fn decode(tokens: &DerivedTokens, token: &str) -> Option<Self> {
        Self::open(tokens, TokenPurpose::MagicLink, token)
    }

    /// The code that the browser carries to the app.
    pub fn encode_code(self, tokens: &DerivedTokens) -> String {
        tokens.seal(TokenPurpose::ExchangeCode, self.0.0.as_bytes())
    }

    /// Decodes a genuine code.
    pub fn decode_code(tokens: &DerivedTokens, code: &str) -> Option<Self> {
        Self::open(tokens, TokenPurpose::ExchangeCode, code)
    }

    fn open(tokens: &DerivedTokens, purpose: TokenPurpose, token: &str) -> Option<Self> {
        let payload = tokens.open(purpose, token)?;
        Some(Self(MagicLinkId(Uuid::from_bytes(payload.try_into().ok()?))))
    }
}

impl DerivedTokens {
    /// The one-time token of a user: for [`TokenPurpose::EmailVerification`], [`TokenPurpose::EmailChange`] or
    /// [`TokenPurpose::PasswordReset`].
    pub fn seal_one_time(&self, purpose: TokenPurpose, token: UserToken) -> String {
        let payload = [&token.user_id.0.as_bytes()[..], &token.generation.to_be_bytes()].concat();
        self.seal(purpose, &payload)
    }

    /// Decodes a genuine one-time token of this purpose.
    pub fn open_one_time(&self, purpose: TokenPurpose, token: &str) -> Option<UserToken> {
        let payload = self.open(purpose, token)?;
        let (user, generation) = payload.split_first_chunk::<16>()?;
        let generation = u32::from_be_bytes(generation.try_into().ok()?);
        Some(UserToken { user_id: UserId(Uuid::from_bytes(*user)), generation })
    }

    /// The one-time token that an event created, if any: always the same, so a restarted mailer sends the same one.
    pub fn of_event(&self, event: &Event) -> Option<String> {
        let (purpose, user_id, generation) = match event {
            Event::MagicLink(MagicLinkEvent::MagicLinkIssued(event)) => {
                return Some(MagicLinkToken(event.link_id).encode(self));
            }
            Event::Organization(OrganizationEvent::MemberInvited(event)) => {
                let MemberInvited { organization_id, invitation_id, .. } = event;
                let (organization_id, invitation_id) = (*organization_id, *invitation_id);
                return Some(InvitationToken { organization_id, invitation_id }.encode(self));
            }
            Event::User(UserEvent::EmailVerificationRequested(event)) => {
                (TokenPurpose::EmailVerification, event.user_id, event.generation)
            }
            Event::User(UserEvent::EmailChangeRequested(event)) => {
                (TokenPurpose::EmailChange, event.user_id, event.generation)
            }
            Event::User(UserEvent::PasswordResetRequested(event)) => {
                (TokenPurpose::PasswordReset, event.user_id, event.generation)
            }
            _ => return None,
        };
        Some(self.seal_one_time(purpose, UserToken { user_id, generation }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refresh() -> RefreshToken {
        RefreshToken { session_id: SessionId(Uuid::from_u128(7)), generation: 3 }
    }

    #[test]
    fn tokens_go_through_text() {
        let tokens = DerivedTokens::new(&InstanceKey::generate());
        let token = refresh().encode(&tokens);
        assert!(token.starts_with("wwr_"));
        assert_eq!(RefreshToken::decode(&tokens, &token), Some(refresh()));
        assert_eq!(refresh().encode(&tokens), token, "derived, so the same again");
        let key = ApiKeyToken { app_id: AppId::default_app(), key_id: ApiKeyId(Uuid::from_u128(9)) };
        let token = key.encode(&tokens);
        assert!(token.starts_with("wwk_"));
        assert_eq!(ApiKeyToken::decode(&tokens, &token), Some(key.clone()));

        // A configured one: the same on every node that has it, and only for that exact text.
        let text = "a-secret-of-the-operator-with-32-characters=";
        let (one, other) = (tokens.clone().with_platform_key(text), tokens.clone().with_platform_key(text));
        let brought = ApiKeyToken::decode(&one, text).expect("it is known");
        assert!(brought.app_id.is_platform() && one.brought_platform_key() == Some(brought.key_id));
        assert_eq!(ApiKeyToken::decode(&other, text), Some(brought.clone()));
        assert_eq!(ApiKeyToken::decode(&one, &token), Some(key));
        for wrong in ["", "a", &text[1..], &format!("{text}="), &text.to_uppercase()] {
            assert_eq!(ApiKeyToken::decode(&one, wrong), None, "{wrong}");
        }
        assert_eq!(ApiKeyToken::decode(&tokens, text), None, "a node without it");
        let another = tokens.with_platform_key("another-secret-of-the-operator-of-32-chars");
        assert_ne!(another.brought_platform_key(), Some(brought.key_id));
    }

    #[test]
    fn device_tokens_go_through_text() {
        let tokens = DerivedTokens::new(&InstanceKey::generate());
        let device = DeviceToken {
            user_id: UserId(Uuid::from_u128(1)),
            device_id: DeviceId(Uuid::from_u128(2)),
            epoch: 3,
            expires_at: Timestamp::from_second(1_800_000_000).expect("in range"),
        };
        let token = device.encode(&tokens);
        assert!(token.starts_with("wwd_"), "{token}");
        assert_eq!(DeviceToken::decode(&tokens, &token), Some(device));
        assert_eq!(DeviceToken::decode(&DerivedTokens::new(&InstanceKey::generate()), &token), None);
        assert_eq!(RefreshToken::decode(&tokens, &token), None);
        for end in 0..token.len() {
            assert_eq!(DeviceToken::decode(&tokens, &token[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn each_purpose_has_a_key_and_a_prefix_of_its_own() {
        let tokens = DerivedTokens::new(&InstanceKey::generate());
        for (index, purpose) in TokenPurpose::ALL.into_iter().enumerate() {
            assert_eq!(purpose as usize, index);
            let token = tokens.seal(purpose, &[7; 20]);
            for other in TokenPurpose::ALL.into_iter().filter(|&other| other != purpose) {
                let are_keys = [purpose, other]
                    .iter()
                    .all(|it| matches!(it, TokenPurpose::ApiKey | TokenPurpose::OrganizationKey));
                assert!(are_keys || other.prefix() != purpose.prefix(), "both are API keys to people");
                let disguised = token.replacen(purpose.prefix(), other.prefix(), 1);
                assert_eq!(tokens.open(other, &disguised), None, "{purpose:?} as {other:?}");
                assert_eq!(tokens.open(other, &token), None);
            }
        }
    }

    #[test]
    fn one_time_tokens_go_through_text() {
        let tokens = DerivedTokens::new(&InstanceKey::generate());
        let link = MagicLinkToken(MagicLinkId(Uuid::from_u128(5)));
        let (token, code) = (link.encode(&tokens), link.encode_code(&tokens));
        assert!(token.starts_with("wwm_") && code.starts_with("wwx_"), "{token} {code}");
        assert_eq!(MagicLinkToken::decode(&tokens, &token), Some(link));
        assert_eq!(MagicLinkToken::decode_code(&tokens, &code), Some(link));
        assert_eq!(
            (MagicLinkToken::decode(&tokens, &code), MagicLinkToken::decode_code(&tokens, &token)),
            (None, None)
        );
        let of_user = UserToken { user_id: UserId(Uuid::from_u128(6)), generation: 9 };
        let token = tokens.seal_one_time(TokenPurpose::PasswordReset, of_user);
        assert_eq!(tokens.open_one_time(TokenPurpose::PasswordReset, &token), Some(of_user));
        assert_eq!(tokens.open_one_time(TokenPurpose::EmailVerification, &token), None);
    }

    #[test]
    fn every_truncation_and_bit_flip_is_refused() {
        let tokens = DerivedTokens::new(&InstanceKey::generate());
        let token = refresh().encode(&tokens);
        for end in 0..token.len() {
            assert_eq!(RefreshToken::decode(&tokens, &token[..end]), None, "cut at {end}");
            assert_eq!(RefreshToken::decode(&tokens, &token[token.len() - end..]), None, "cut before {end}");
        }
        for bit in 0..token.len() * 8 {
            let mut bytes = token.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes) {
                assert_eq!(RefreshToken::decode(&tokens, &text), None, "bit {bit}");
            }
        }
        for more in ["A", "=", "==", " ", "\n", "AAAA"] {
            assert_eq!(RefreshToken::decode(&tokens, &format!("{token}{more}")), None, "{more:?}");
        }
    }

    #[test]
    fn other_keys_and_purposes_are_refused() {
        let tokens = DerivedTokens::new(&InstanceKey::generate());
        let token = refresh().encode(&tokens);
        assert_eq!(RefreshToken::decode(&DerivedTokens::new(&InstanceKey::generate()), &token), None);
        assert_eq!(tokens.open(TokenPurpose::ApiKey, &token.replace("wwr_", "wwk_")), None);
        assert_eq!(tokens.open(TokenPurpose::ApiKey, &token), None);
    }
}
