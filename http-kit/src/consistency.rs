//! `Consistency-Token`: lets a reader see what a writer did.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponseParts, ResponseParts};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use event_store::{Cipher, InstanceKey};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::problem::Problem;
use crate::request::Attached;

/// The header, in both directions.
pub const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// The form of a token, as a JSON Schema regular expression.
pub(crate) const TOKEN_PATTERN: &str = "^[A-Za-z0-9_-]{64}$";

/// A position of the journal. As part of a response it sets the header, sealed by [`crate::around`]:
/// `(StatusCode::CREATED, ConsistencyToken(position), Json(app))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistencyToken(pub u64);

impl IntoResponseParts for ConsistencyToken {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

/// Seals positions and opens them again, on every node of an instance.
///
/// Readable tokens would show how many events happened between two of them: on a quiet instance that reveals, for
/// example, whether a failed login was for a known address. So two tokens of one position differ too.
#[derive(Clone)]
pub struct ConsistencyTokens(Arc<Cipher>);

impl ConsistencyTokens {
    /// Derives the key.
    pub fn new(instance: &InstanceKey) -> Self {
        Self(Arc::new(Cipher::new(&instance.derive("watchword/v1/consistency-token"))))
    }

    /// The token as text.
    pub fn seal(&self, ConsistencyToken(position): ConsistencyToken) -> String {
        URL_SAFE_NO_PAD.encode(self.0.seal(&[], &position.to_be_bytes()))
    }

    /// Reads a token of this instance.
    pub fn open(&self, text: &str) -> Option<ConsistencyToken> {
        let position = self.0.open(&[], &URL_SAFE_NO_PAD.decode(text).ok()?)?;
        Some(ConsistencyToken(u64::from_be_bytes(position.try_into().ok()?)))
    }

    /// The value of the header.
    pub(crate) fn header(&self, token: ConsistencyToken) -> HeaderValue {
        HeaderValue::try_from(self.seal(token)).expect("base64url is visible ASCII")
    }
}

/// The position that a query must wait for, if the client sent a token. An invalid token is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterToken(pub Option<u64>);

impl<S: Sync> FromRequestParts<S> for AfterToken {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(CONSISTENCY_TOKEN) else { return Ok(Self(None)) };
        let tokens = &Attached::of(&parts.extensions)?.edge.consistency;
        let token = value.to_str().ok().and_then(|text| tokens.open(text));
        let token = token.ok_or_else(|| {
            Problem::malformed_header(
                "Consistency-Token",
                "was not issued by this service: send one as it came, or none",
            )
        })?;
        Ok(Self(Some(token.0)))
    }
}

impl IntoParams for AfterToken {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = "The `Consistency-Token` of an answer: the answer waits until the read model includes what was written \
            then, for 2 seconds at most.";
        let parameter = ParameterBuilder::new()
            .name("Consistency-Token")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(text))
            .schema(Some(
                ObjectBuilder::new().schema_type(Type::String).pattern(Some(TOKEN_PATTERN)).build(),
            ));
        vec![parameter.build()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_through_text_and_reveals_nothing() {
        let instance = InstanceKey::generate();
        let (here, there) = (ConsistencyTokens::new(&instance), ConsistencyTokens::new(&instance));
        let elsewhere = ConsistencyTokens::new(&InstanceKey::generate());
        for position in [0, 1, 4711, u64::MAX] {
            let token = ConsistencyToken(position);
            let text = here.seal(token);
            assert_eq!(there.open(&text), Some(token));
            assert_eq!(elsewhere.open(&text), None, "another instance's");
            assert_eq!(text.len(), 64);
            assert_ne!(here.seal(token), text, "not even that nothing happened");
            for end in 0..text.len() {
                assert_eq!(here.open(&text[..end]), None, "cut at {end}");
            }
            for index in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
                assert_eq!(
                    here.open(std::str::from_utf8(&changed).expect("ASCII")),
                    None,
                    "changed at {index}"
                );
            }
        }
        for text in ["", "1", "AAAAAAAAAAA", "ä", &"A".repeat(64)] {
            assert_eq!(here.open(text), None, "{text}");
        }
    }
}
