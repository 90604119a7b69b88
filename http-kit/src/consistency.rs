//! `Consistency-Token`: lets a reader see what a writer did.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponseParts, ResponseParts};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::problem::Problem;

/// The header, in both directions.
pub const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// What a token looks like, as the regular expression of a JSON Schema.
pub(crate) const TOKEN_PATTERN: &str = "^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$";

/// A position of the journal, opaque to clients. As part of an answer it sets the header:
/// `(StatusCode::CREATED, ConsistencyToken(position), Json(app))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistencyToken(pub u64);

impl ConsistencyToken {
    /// The token as text.
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.to_be_bytes())
    }

    /// Reads a token.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Self(u64::from_be_bytes(bytes.try_into().ok()?)))
    }
}

impl IntoResponseParts for ConsistencyToken {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        let value = HeaderValue::try_from(self.encode()).expect("base64url is visible ASCII");
        parts.headers_mut().insert(CONSISTENCY_TOKEN, value);
        Ok(parts)
    }
}

/// The position a query must wait for, if its sender wants that. A token that is none is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterToken(pub Option<u64>);

impl<S: Sync> FromRequestParts<S> for AfterToken {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(CONSISTENCY_TOKEN) else { return Ok(Self(None)) };
        let token = value.to_str().ok().and_then(ConsistencyToken::parse);
        let token =
            token.ok_or_else(|| Problem::malformed("Consistency-Token is none that was given out"))?;
        Ok(Self(Some(token.0)))
    }
}

impl IntoParams for AfterToken {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = "The `Consistency-Token` of an answer: the read model is waited for until it has what was written \
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
    use super::ConsistencyToken;

    #[test]
    fn goes_through_text() {
        for position in [0, 1, 4711, u64::MAX] {
            let token = ConsistencyToken(position);
            assert_eq!(ConsistencyToken::parse(&token.encode()), Some(token));
        }
        for text in ["", "1", "AAAA", "AAAAAAAAAAB", "AAAAAAAAAAAA", "ä"] {
            assert_eq!(ConsistencyToken::parse(text), None, "{text}");
        }
    }
}
