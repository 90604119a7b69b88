//! Which addresses apps may use as senders.
//!
//! The mail server sends in the operator's name, and signs for every domain configured there: an app that could use any
//! address could impersonate anybody. So the operator lists the allowed domains. Without a list only the domain of the
//! instance's own sender is allowed.

use std::str::FromStr;

use domain::Email;

/// The domains that apps may send from, in addition to that of the instance's own sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderDomains {
    domains: Vec<String>,
    any: bool,
}

/// The text is not a list of domains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a domain such as example.com nor * for any")]
pub struct InvalidSenderDomain(String);

impl FromStr for SenderDomains {
    type Err = InvalidSenderDomain;

    /// Domains, separated by commas; `*` for any.
    fn from_str(text: &str) -> Result<Self, InvalidSenderDomain> {
        let mut list = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if entry == "*" {
                list.any = true;
            } else {
                // Normalized as in addresses.
                let address = Email::parse(&format!("nobody@{entry}"));
                let address = address.ok().filter(|_| !entry.contains('@'));
                let address = address.ok_or_else(|| InvalidSenderDomain(entry.to_owned()))?;
                list.domains.push(domain_of(&address).to_owned());
            }
        }
        Ok(list)
    }
}

/// The part of an address after the `@`.
fn domain_of(email: &Email) -> &str {
    email.as_str().rsplit('@').next().unwrap_or_default()
}

/// The allowed senders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Senders {
    /// The instance's own sender, used for apps that set none.
    pub own: Email,
    /// The domains that apps may use.
    pub domains: SenderDomains,
}

impl Senders {
    /// Whether an app may use this sender.
    pub fn allow(&self, sender: &Email) -> bool {
        let domain = domain_of(sender);
        let listed = self.domains.domains.iter().any(|listed| listed == domain);
        self.domains.any || listed || domain == domain_of(&self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email(text: &str) -> Email {
        Email::parse(text).expect("valid")
    }

    fn allow(list: &str, sender: &str) -> bool {
        let domains = list.parse().expect("a list");
        Senders { own: email("no-reply@auth.example"), domains }.allow(&email(sender))
    }

    #[test]
    fn without_a_list_only_the_own_domain_sends() {
        assert!(allow("", "acme@auth.example") && allow(" , ", "acme@auth.example"));
        for foreign in [
            "a@bank.example",
            "a@mail.auth.example",
            "a@example",
            "a@xauth.example",
            "a@auth.example.evil.example",
        ] {
            if let Ok(sender) = Email::parse(foreign) {
                assert!(!allow("", sender.as_str()), "{foreign}");
            }
        }
    }

    #[test]
    fn the_operator_lists_domains() {
        let list = " Acme.example,b\u{fc}cher.example ";
        for sender in ["a@acme.example", "a@ACME.example", "a@xn--bcher-kva.example", "a@auth.example"] {
            assert!(allow(list, sender), "{sender}");
        }
        for sender in
            ["a@mail.acme.example", "a@bank.example", "a@acme.example.evil.example", "a@xacme.example"]
        {
            assert!(!allow(list, sender), "{sender}");
        }
        assert!(allow("*", "a@bank.example"));
        for text in
            ["acme", "a@acme.example", "*.acme.example", "https://acme.example", "a b.example", "-.example"]
        {
            assert!(text.parse::<SenderDomains>().is_err(), "{text}");
        }
    }
}
