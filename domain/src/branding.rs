//! The appearance and language of an app's mails and pages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::email::Email;
use crate::redirect_uri::Origin;
use crate::text::{Lines, readable};
use crate::web_url::parse_web_url;

/// A language of mails and pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Locale {
    /// English.
    #[default]
    En,
    /// German.
    De,
}

impl Locale {
    /// The language tag (RFC 5646).
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
        }
    }
}

/// The language that an app chose for its mails and pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// Not fixed: a page uses the language its reader's browser prefers, a mail uses English.
    #[default]
    Auto,
    /// English.
    En,
    /// German.
    De,
}

impl Language {
    /// The fixed language, if the app chose one.
    pub fn fixed(self) -> Option<Locale> {
        match self {
            Self::Auto => None,
            Self::En => Some(Locale::En),
            Self::De => Some(Locale::De),
        }
    }
}

/// A colour as `#rrggbb`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Colour(#[schemars(regex(pattern = "^#[0-9a-f]{6}$"))] String);

/// The text is not a colour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a colour is # and six lower-case hexadecimal digits")]
pub struct InvalidColour;

impl Colour {
    /// Parses a colour.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidColour> {
        let text = text.into();
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.strip_prefix('#') {
            Some(digits) if digits.len() == 6 && digits.bytes().all(is_digit) => Ok(Self(text)),
            _ => Err(InvalidColour),
        }
    }

    /// The colour as CSS has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Colour {
    type Error = InvalidColour;
    fn try_from(text: String) -> Result<Self, InvalidColour> {
        Self::parse(text)
    }
}

impl From<Colour> for String {
    fn from(colour: Colour) -> Self {
        colour.0
    }
}

/// The URL of a picture: https and in normal form, so that it is safe in a page and its Content-Security-Policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct LogoUrl(String);

/// The text is not the URL of a picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a logo is an absolute https URL in normal form, without user information, `;`, `,` and quotes; its host is a DNS name or \
     an IP address, without wildcards"
)]
pub struct InvalidLogoUrl;

impl LogoUrl {
    /// Parses the URL of a picture.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidLogoUrl> {
        let text = text.into();
        let url = parse_web_url(&text).ok_or(InvalidLogoUrl)?;
        // These would end the source expression in a Content-Security-Policy (CSP3 section 2.2.1).
        let ends_a_policy = text.contains([';', ',', '\'', '"']);
        if url.scheme() == "https" && url.as_str() == text && text.len() <= 2048 && !ends_a_policy {
            Ok(Self(text))
        } else {
            Err(InvalidLogoUrl)
        }
    }

    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its origin, which a Content-Security-Policy allows.
    pub fn origin(&self) -> Origin {
        Origin::of(&parse_web_url(&self.0).expect("it was parsed before"))
    }
}

impl TryFrom<String> for LogoUrl {
    type Error = InvalidLogoUrl;
    fn try_from(text: String) -> Result<Self, InvalidLogoUrl> {
        Self::parse(text)
    }
}

impl From<LogoUrl> for String {
    fn from(url: LogoUrl) -> Self {
        url.0
    }
}

/// The name of a product as mails show it, also in the header `From`: 1 to 100 readable characters,
/// without spaces at either end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ProductName(#[schemars(length(min = 1, max = 100))] String);

/// The text is not a name that could stand in a mail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is 1 to 100 characters, at least one of them visible, without spaces at its ends, control characters, and \
     invisible or bidirectional marks"
)]
pub struct InvalidProductName;

impl ProductName {
    /// Parses a name.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidProductName> {
        let text = text.into();
        let fits = readable(&text, 100, Lines::One).is_ok_and(|readable| readable == text);
        if fits { Ok(Self(text)) } else { Err(InvalidProductName) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProductName {
    type Error = InvalidProductName;
    fn try_from(text: String) -> Result<Self, InvalidProductName> {
        Self::parse(text)
    }
}

impl From<ProductName> for String {
    fn from(name: ProductName) -> Self {
        name.0
    }
}

/// The appearance of an app's mails and pages. Absent members default to Watchword's own, or to the app's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Branding {
    /// The name of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<ProductName>,
    /// The colour of buttons and links, as `#rrggbb`. `color` is accepted, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colour: Option<Colour>,
    /// A picture shown above the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logo: Option<LogoUrl>,
    /// The address that mails come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<Email>,
    /// The address that replies go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Email>,
}

/// The default colour; it goes with white text.
const ACCENT: &str = "#1d4ed8";

impl Branding {
    /// The colour of buttons and links.
    pub fn accent(&self) -> &str {
        self.colour.as_ref().map_or(ACCENT, Colour::as_str)
    }
}

/// Black or white, whichever has the better contrast on a colour (WCAG 2.2, relative luminance): at least 4.5 to 1.
pub fn text_on(colour: &str) -> &'static str {
    let channel = |range: std::ops::Range<usize>| {
        let value =
            colour.get(range).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default();
        let value = f64::from(value) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    let luminance = 0.2126 * channel(1..3) + 0.7152 * channel(3..5) + 0.0722 * channel(5..7);
    // Where the contrasts with black and with white are equal: (l + 0.05)² = 1.05 · 0.05.
    if luminance > 0.179 { "#000000" } else { "#ffffff" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_be_read_on_every_colour() {
        for (colour, text) in [
            ("#000000", "#ffffff"),
            ("#ffffff", "#000000"),
            (ACCENT, "#ffffff"),
            ("#ffd400", "#000000"),
            ("#767676", "#000000"),
        ] {
            assert_eq!(text_on(colour), text, "{colour}");
        }
    }

    #[test]
    fn a_colour_is_six_digits() {
        assert_eq!(Colour::parse("#0a66c2").expect("valid").as_str(), "#0a66c2");
        for text in ["", "#", "0a66c2", "#0A66C2", "#abc", "#0a66c2;", "#0a66c2 ", "red", "#ééé"] {
            assert!(Colour::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_logo_cannot_change_a_policy() {
        assert!(LogoUrl::parse("https://cdn.example/logo.png?v=2").is_ok());
        for text in [
            "http://cdn.example/logo.png",
            "http://localhost/logo.png",
            "data:image/png;base64,AA",
            "javascript:alert(1)",
            "https://cdn.example/logo.png; script-src *",
            "https://cdn.example/a;script-src",
            "https://cdn.example/a,b",
            "https://cdn.example/'x",
            "https://eve@cdn.example/logo.png",
            "//cdn.example/logo.png",
            "https://CDN.example/logo.png",
        ] {
            assert!(LogoUrl::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_cannot_add_a_header() {
        assert!(ProductName::parse("Łódź & Söhne <beta>").is_ok());
        let long = "a".repeat(101);
        for text in [
            "",
            " ",
            "Acme ",
            "Acme\r\nBcc: eve@example.com",
            "Acme\0",
            "A\u{2028}B",
            "\u{200b}",
            "\u{202e}emcA",
            "Ac\u{2060}me",
            &long,
        ] {
            assert!(ProductName::parse(text).is_err(), "{text:?}");
        }
    }
}
