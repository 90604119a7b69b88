//! Where a webhook's events are sent.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::web_url::parse_plain_url;

/// An absolute `https` or `http` URL in its normal form, without fragment or user information. Which hosts a webhook may
/// reach, and whether without TLS, depends on the operator's settings and is decided at each connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct WebhookUrl(String);

/// The text is not a URL that events can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an absolute https URL of at most 2048 characters in normal form, without fragment or user information; its host is a \
     DNS name (A-labels where it is of another script) or an IP address"
)]
pub struct InvalidWebhookUrl;

impl WebhookUrl {
    /// Parses a URL. The text must be its own normal form, so that what is shown is where requests go: no host is written
    /// as a number, in octal or with a dot at its end.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidWebhookUrl> {
        let text = text.into();
        let url = parse_plain_url(&text).ok_or(InvalidWebhookUrl)?;
        let is_web = matches!(url.scheme(), "https" | "http");
        if is_web && text.len() <= 2048 && url.as_str() == text && url.fragment().is_none() {
            Ok(Self(text))
        } else {
            Err(InvalidWebhookUrl)
        }
    }

    /// The URL, parsed.
    ///
    /// # Panics
    /// Never: it was parsed before.
    pub fn to_url(&self) -> Url {
        Url::parse(&self.0).expect("it was parsed before")
    }

    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WebhookUrl {
    type Error = InvalidWebhookUrl;
    fn try_from(text: String) -> Result<Self, InvalidWebhookUrl> {
        Self::parse(text)
    }
}

impl From<WebhookUrl> for String {
    fn from(url: WebhookUrl) -> Self {
        url.0
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
