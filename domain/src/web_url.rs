//! The one rule for the URLs in settings: a scheme, and a host that a browser can reach.

use std::net::IpAddr;

use url::{Host, Url};

/// Whether the host is an IP address, or a DNS name of letters, digits and hyphens (RFC 952, RFC 1123 section 2.1), in
/// its A-label form if it is in another script (RFC 5890). No wildcard, no empty label, no trailing dot: a browser's
/// parser accepts all of these, and a Content-Security-Policy reads `*` as any host.
pub fn names_a_host(url: &Url) -> bool {
    match url.host() {
        // The parser turns a number into an address; `url.as_str() == text` detects a number that was not one in normal
        // form.
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        Some(Host::Domain(name)) => is_dns_name(name),
        None => false,
    }
}

/// Whether it is a DNS name in ASCII: labels of 1 to 63 letters, digits and inner hyphens, 253 in all (RFC 1035 section 2.3.4).
pub fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
            && is_a_label_if_it_says_so(label)
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// A label that begins with `xn--` must be Punycode of text that needs it.
fn is_a_label_if_it_says_so(label: &str) -> bool {
    let prefixed = label.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("xn--"));
    !prefixed || {
        let (unicode, decoded) = idna::domain_to_unicode(label);
        decoded.is_ok() && !unicode.is_ascii()
    }
}

/// A URL in plain characters, with a host and without user information.
pub(crate) fn parse_plain_url(text: &str) -> Option<Url> {
    if text.contains(|c: char| !c.is_ascii_graphic() || c == '\\') {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let anonymous = url.username().is_empty() && url.password().is_none();
    (anonymous && names_a_host(&url)).then_some(url)
}

/// An https URL, or an http URL to this machine, with a host and without user information.
pub(crate) fn parse_web_url(text: &str) -> Option<Url> {
    let url = parse_plain_url(text)?;
    let local = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(ip) => IpAddr::from(ip) == IpAddr::from([127, 0, 0, 1]),
        Host::Ipv6(ip) => ip.is_loopback(),
    };
    let allowed = url.scheme() == "https" || url.scheme() == "http" && local;
    allowed.then_some(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::branding::LogoUrl;
    use crate::redirect_uri::{Origin, RedirectUri};

    /// What a host may be: letters, digits, hyphens and dots, or an address in brackets.
    fn is_plain(host: &str) -> bool {
        let is_name = |host: &str| {
            host.len() <= 253
                && host.split('.').all(|label| {
                    !label.is_empty()
                        && label.len() <= 63
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                })
        };
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        address.map_or_else(|| is_name(host), |address| address.parse::<std::net::Ipv6Addr>().is_ok())
    }

    /// Whether each kind of URL accepts this host: redirect URI and link, origin, logo.
    fn taken(host: &str) -> [bool; 3] {
        [
            RedirectUri::parse(format!("https://{host}/cb")).is_ok(),
            Origin::parse(format!("https://{host}")).is_ok(),
            LogoUrl::parse(format!("https://{host}/x.png")).is_ok(),
        ]
    }

    #[test]
    fn every_url_has_a_host_that_is_one() {
        for host in [
            "app.example",
            "a.b.c.example",
            "xn--bcher-kva.example",
            "localhost",
            "intranet",
            "127.0.0.1",
            "[::1]",
            "[2001:db8::1]",
            "r3---sn-a.example",
            "1password.example",
            "4.example",
        ] {
            assert_eq!(taken(host), [true; 3], "{host}");
        }
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = format!("{}example", "a.".repeat(130));
        for host in [
            "*",
            "*.example",
            "*.*",
            "a.*.example",
            "a*.example",
            "$(id).example",
            "`id`.example",
            "a..b",
            ".a.example",
            "a.example.",
            "a.example..",
            "..",
            ".",
            "-a.example",
            "a-.example",
            "a_b.example",
            "_dmarc.example",
            "a,b.example",
            "a;b.example",
            "a'b.example",
            "a\"b.example",
            "a&b.example",
            "a=b.example",
            "a+b.example",
            "a~b.example",
            "a!b.example",
            "(a).example",
            "{a}.example",
            "%2a.example",
            "%61pp.example",
            "a%2eexample",
            "xn--.example",
            "xn--a.example",
            "xn--app-.example",
            "xn--zz--zz.example",
            "b\u{fc}cher.example",
            "a\u{3002}example",
            "APP.example",
            "1.2.3",
            "0x7f.1",
            "1.2.3.256",
            "[::1",
            "::1",
            "[fe80::1%25eth0]",
            "a b.example",
            "a\tb.example",
            "",
            &long_label,
            &long_name,
        ] {
            assert_eq!(taken(host), [false; 3], "{host:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_has_a_plain_host(host in "\\PC{1,24}|[a-z0-9.*_$(){}\\[\\]:-]{1,24}|(xn--)?[a-z0-9-]{1,12}(\\.[a-z*-]{0,4}){0,3}") {
            for (kind, taken) in taken(&host).into_iter().enumerate() {
                // A character that ends the host early makes another URL with another host.
                let host = host.split(['/', '?', '#', ':']).next().unwrap_or_default();
                prop_assert!(!taken || is_plain(host) || host.starts_with('['), "{kind}: {host:?}");
            }
        }

        #[test]
        fn every_dns_name_is_taken(labels in prop::collection::vec("[a-z]([a-z0-9]{0,10}[a-z0-9])?", 1..5)) {
            let host = labels.join(".");
            prop_assert_eq!(taken(&host), [true; 3], "{}", host);
        }
    }
}
