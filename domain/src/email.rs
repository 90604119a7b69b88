//! Email addresses, normalized so that one mailbox is one account.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfkc};

/// An address in normal form: lower case, NFKC, the domain as A-labels (RFC 5890). Plus-addresses and dots in the
/// local part are kept, as only the mailbox's own server knows what they mean.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

/// The text is not an address that a mail could safely be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid email address")]
pub struct InvalidEmail;

/// RFC 5321 section 4.5.3.1: 64 octets before the `@`, 254 in all.
const MAX_LOCAL: usize = 64;
const MAX_TOTAL: usize = 254;

impl Email {
    /// Parses and normalizes an address (dot-atom form of RFC 5322 only: no comments, no quoted local parts, no
    /// lists). Blanks around it, as a clipboard or a phone's keyboard leaves them, are no part of it. Refuses an address
    /// whose normalization would lead to another mailbox's domain, such as one written with full-width letters or a dot
    /// look-alike.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim();
        if text.len() > 4 * MAX_TOTAL || !is_nfkc(text) {
            return Err(InvalidEmail);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
        let local: String = local.to_lowercase().nfkc().collect();
        let domain = normalize_domain(domain)?;
        if local.len() > MAX_LOCAL || local.len() + 1 + domain.len() > MAX_TOTAL || !is_dot_atom(&local) {
            return Err(InvalidEmail);
        }
        Ok(Self(format!("{local}@{domain}")))
    }

    /// Whether a new account may have it. RFC 5321 allows an address that begins with a dash, and programs that are given
    /// it as an argument read it as an option (`sendmail -f…`): mail servers refuse it therefore (Postfix:
    /// `allow_min_user`), so that nothing would reach it. Accounts that have one keep it.
    pub fn may_be_new(&self) -> bool {
        !self.0.starts_with('-')
    }

    /// The normalized address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn normalize_domain(domain: &str) -> Result<String, InvalidEmail> {
    let ascii = idna::domain_to_ascii_strict(domain).map_err(|_| InvalidEmail)?;
    // Mapping may fold case and nothing else: a reader does not see an ideographic full stop as a dot.
    let folded = domain.to_lowercase();
    if ascii != folded && idna::domain_to_unicode(&ascii).0 != folded {
        return Err(InvalidEmail);
    }
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63;
    let labels = ascii.split('.').collect::<Vec<_>>();
    // A mail domain has a top-level domain that is not a number: `user@127.0.0.1` is a host, not a domain.
    let has_alphabetic_tld =
        labels.last().is_some_and(|tld| tld.bytes().any(|b| b.is_ascii_alphabetic()) && tld.len() >= 2);
    if labels.len() >= 2 && labels.iter().all(|label| is_label(label)) && has_alphabetic_tld {
        Ok(ascii)
    } else {
        Err(InvalidEmail)
    }
}

/// RFC 5322 `dot-atom`, with the letters and digits of any script (RFC 6531).
fn is_dot_atom(local: &str) -> bool {
    let is_atext = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// An address is personal data and never appears in a log line.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

impl TryFrom<String> for Email {
    type Error = InvalidEmail;
    fn try_from(text: String) -> Result<Self, InvalidEmail> {
        Self::parse(&text)
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Email;

    #[test]
    fn normalizes_case_and_domain() {
        for (text, normal) in [
            ("Ada@Example.COM", "ada@example.com"),
            ("ada+news@example.com", "ada+news@example.com"),
            ("a.d.a@example.com", "a.d.a@example.com"),
            ("ada@bücher.example", "ada@xn--bcher-kva.example"),
            ("o'neil@sub.example.org", "o'neil@sub.example.org"),
            ("jörg@example.com", "jörg@example.com"),
            (" ada@example.com", "ada@example.com"),
            ("\tAda@example.com \r\n", "ada@example.com"),
            ("\u{a0}ada@example.com\u{3000}", "ada@example.com"),
        ] {
            assert_eq!(Email::parse(text).expect(text).as_str(), normal);
        }
    }

    #[test]
    fn an_address_like_an_option_belongs_to_old_accounts_alone() {
        for (text, may) in
            [("-f@example.com", false), ("--help@example.com", false), ("a-f@example.com", true)]
        {
            let email = Email::parse(text).expect("an address");
            assert_eq!((email.as_str(), email.may_be_new()), (text, may));
            let stored = serde_json::to_string(&email).expect("JSON");
            assert_eq!(serde_json::from_str::<Email>(&stored).expect("it is read again"), email);
        }
    }

    #[test]
    fn refuses_tricks() {
        let long = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@localhost",
            "ada@127.0.0.1",
            "ada@[127.0.0.1]",
            "ada@example.com.",
            "ada@exa mple.com",
            "ada @example.com",
            "ada@ example.com",
            "a da@example.com",
            "\u{200b}ada@example.com",
            "ada@example.com\r\nBcc: eve@example.com",
            "ada@example.com,eve@example.com",
            "\"ada eve\"@example.com",
            "ada..eve@example.com",
            ".ada@example.com",
            "ada@\u{ff45}xample.com",
            "\u{ff41}da@example.com",
            "ada@example\u{3002}com",
            "ada@-example.com",
            "ada\0@example.com",
            "<ada@example.com>",
            &long,
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn normal_form_is_a_fixed_point(text in "\\PC{1,20}@[a-zA-Z0-9ü.-]{1,20}") {
            if let Ok(email) = Email::parse(&text) {
                prop_assert_eq!(Email::parse(email.as_str()), Ok(email));
            }
        }
    }
}
