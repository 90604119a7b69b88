//! Derived tokens: nothing about them is stored. A token names what it stands for and proves that it was made here;
//! whether that thing still lives is in the log.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{ApiKeyId, AppId, SessionId};
use event_store::InstanceKey;
use uuid::Uuid;

/// What a token is for. A token of one purpose is none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPurpose {
    /// Goes on with a session.
    Refresh,
    /// Authenticates a program.
    ApiKey,
    /// Shows that a page may read the cookies of a session.
    Csrf,
}

impl TokenPurpose {
    /// What the token starts with, so that people and secret scanners can tell what they found.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Refresh => "wwr_",
            Self::ApiKey => "wwk_",
            Self::Csrf => "wwc_",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::ApiKey => "api-key",
            Self::Csrf => "csrf",
        }
    }
}

const ID: usize = 4;
const TAG: usize = 32;

/// Makes and opens tokens: `<prefix>` + base64url(key id ‖ payload ‖ HMAC-SHA-256(derived key, purpose ‖ 0 ‖ payload)).
#[derive(Clone)]
pub struct DerivedTokens(Arc<Keys>);

struct Keys {
    id: [u8; ID],
    refresh: hmac::Key,
    api_key: hmac::Key,
    csrf: hmac::Key,
}

impl DerivedTokens {
    /// Derives the keys.
    pub fn new(instance: &InstanceKey) -> Self {
        let key = |purpose: TokenPurpose| {
            let derived = instance.derive(&format!("watchword/v1/token/{}", purpose.name()));
            hmac::Key::new(hmac::HMAC_SHA256, &*derived)
        };
        Self(Arc::new(Keys {
            id: instance.id(),
            refresh: key(TokenPurpose::Refresh),
            api_key: key(TokenPurpose::ApiKey),
            csrf: key(TokenPurpose::Csrf),
        }))
    }

    /// Makes the token of a payload: the same one every time.
    pub fn seal(&self, purpose: TokenPurpose, payload: &[u8]) -> String {
        let tag = hmac::sign(self.key(purpose), &message(purpose, payload));
        let bytes = [&self.0.id[..], payload, tag.as_ref()].concat();
        format!("{}{}", purpose.prefix(), URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The payload of a token that was made here.
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

    fn key(&self, purpose: TokenPurpose) -> &hmac::Key {
        match purpose {
            TokenPurpose::Refresh => &self.0.refresh,
            TokenPurpose::ApiKey => &self.0.api_key,
            TokenPurpose::Csrf => &self.0.csrf,
        }
    }
}

fn message(purpose: TokenPurpose, payload: &[u8]) -> Vec<u8> {
    [purpose.name().as_bytes(), &[0], payload].concat()
}

/// What a refresh token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// The session it goes on with.
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

    /// Reads a token that was made here.
    pub fn decode(tokens: &DerivedTokens, token: &str) -> Option<Self> {
        let payload = tokens.open(TokenPurpose::Refresh, token)?;
        let (session, generation) = payload.split_first_chunk::<16>()?;
        let generation = u32::from_be_bytes(generation.try_into().ok()?);
        Some(Self { session_id: SessionId(Uuid::from_bytes(*session)), generation })
    }
}

/// What an API key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyToken {
    /// The app it belongs to.
    pub app_id: AppId,
    /// Which of that app's keys it is.
    pub key_id: ApiKeyId,
}

impl ApiKeyToken {
    /// The key as it is handed out.
    pub fn encode(&self, tokens: &DerivedTokens) -> String {
        let payload = [&self.key_id.0.as_bytes()[..], self.app_id.as_str().as_bytes()].concat();
        tokens.seal(TokenPurpose::ApiKey, &payload)
    }

    /// Reads a key that was made here.
    pub fn decode(tokens: &DerivedTokens, token: &str) -> Option<Self> {
        let payload = tokens.open(TokenPurpose::ApiKey, token)?;
        let (key, app) = payload.split_first_chunk::<16>()?;
        let app_id = AppId::parse(std::str::from_utf8(app).ok()?).ok()?;
        Some(Self { app_id, key_id: ApiKeyId(Uuid::from_bytes(*key)) })
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
        assert_eq!(ApiKeyToken::decode(&tokens, &token), Some(key));
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
