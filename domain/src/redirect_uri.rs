//! Where a browser may be sent with a code, and which web origins may call.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::web_url::parse_web_url;

/// An absolute URI that is matched as an exact string (RFC 9700 section 2.1): no wildcards, no normalization. `https`, or
/// `http` to `localhost`, `127.0.0.1` or `[::1]`; without fragment, user information or odd characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct RedirectUri(String);

/// A web origin (RFC 6454) in its serialized form, such as `https://app.example`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);

/// The text is not a URI that people may be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a redirect URI is an absolute https URL, or http to localhost, 127.0.0.1 or [::1], in normal form and without \
     fragment or user information; its host is a DNS name (A-labels where it is of another script) or an IP address, \
     without wildcards"
)]
pub struct InvalidRedirectUri;

/// The text is not a web origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is https://host[:port], or http for localhost, 127.0.0.1 or [::1], and nothing behind it; the host is a DNS \
     name or an IP address, without wildcards"
)]
pub struct InvalidOrigin;

impl RedirectUri {
    /// Parses a redirect URI. The text must equal a browser's normal form, so that the compared string is where the
    /// browser goes.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidRedirectUri> {
        let text = text.into();
        let url = parse_web_url(&text).ok_or(InvalidRedirectUri)?;
        if text.len() <= 2048 && url.as_str() == text && url.fragment().is_none() {
            Ok(Self(text))
        } else {
            Err(InvalidRedirectUri)
        }
    }

    /// The URI as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it is.
    pub fn origin(&self) -> Origin {
        Origin::of(&Url::parse(&self.0).expect("it was parsed before"))
    }

    /// The URI with something appended to its query, with or without an existing one.
    pub fn with_query(&self, pairs: &[(&str, &str)]) -> String {
        let mut url = Url::parse(&self.0).expect("it was parsed before");
        url.query_pairs_mut().extend_pairs(pairs);
        url.into()
    }
}

impl Origin {
    /// Parses an origin.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidOrigin> {
        let text = text.into();
        let url = parse_web_url(&text).ok_or(InvalidOrigin)?;
        let origin = Self::of(&url);
        if origin.0 == text { Ok(origin) } else { Err(InvalidOrigin) }
    }

    /// Where a URL is that [`parse_web_url`] took.
    pub(crate) fn of(url: &Url) -> Self {
        Self(url.origin().ascii_serialization())
    }

    /// The origin as a browser sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RedirectUri {
    type Error = InvalidRedirectUri;
    fn try_from(text: String) -> Result<Self, InvalidRedirectUri> {
        Self::parse(text)
    }
}

impl From<RedirectUri> for String {
    fn from(uri: RedirectUri) -> Self {
        uri.0
    }
}

impl TryFrom<String> for Origin {
    type Error = InvalidOrigin;
    fn try_from(text: String) -> Result<Self, InvalidOrigin> {
        Self::parse(text)
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{Origin, RedirectUri};

    #[test]
    fn takes_https_and_this_machine() {
        for text in [
            "https://app.example/callback",
            "https://app.example/callback?next=%2Fhome",
            "https://app.example:8443/",
            "http://localhost:3000/cb",
            "http://127.0.0.1/cb",
            "http://[::1]:8080/cb",
        ] {
            assert_eq!(RedirectUri::parse(text).expect(text).as_str(), text);
        }
    }

    #[test]
    fn refuses_tricks() {
        for text in [
            "",
            "/callback",
            "//app.example/cb",
            "http://app.example/cb",
            "http://127.0.0.2/cb",
            "http://localhost.evil.example/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://user@app.example/cb",
            "https://user:pw@app.example/cb",
            "https://app.example/cb#fragment",
            "https://app.example/cb#",
            "https:\\\\app.example\\cb",
            "https://app.example\\@evil.example/cb",
            "https://APP.example/cb",
            "https://app.example/a/../cb",
            "https://app.example./cb",
            "https://app.example",
            "https://app.example:443/cb",
            "https://app.example/c b",
            "https://app.example/cb\n",
            "https://app\u{3002}example/cb",
            "http://0x7f.1/cb",
            "http://2130706433/cb",
        ] {
            assert!(RedirectUri::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        assert!(Origin::parse("https://app.example").is_ok());
        for text in ["https://app.example/", "null", "*", "http://app.example", "https://app.example/x"] {
            assert!(Origin::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_an_app_wants_to_hear_again_stays_one_value() {
        let state = "a&code=evil#x y\u{e9}%";
        let uri = RedirectUri::parse("https://app.example/callback").expect("valid");
        let url = uri.with_query(&[("code", "wwx_1"), ("state", state)]);
        let pairs: Vec<_> = Url::parse(&url).expect("a URL").query_pairs().into_owned().collect();
        assert_eq!(pairs, [("code".to_owned(), "wwx_1".to_owned()), ("state".to_owned(), state.to_owned())]);
    }
}
