//! Where clients reach the service: what every address that it tells begins with.

use std::fmt;

use domain::AppId;
use domain::web_url::names_a_host;
use url::{Host, Url};

/// Scheme, host and, where the service is mounted below one, a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    url: Url,
    base: String,
    prefix: String,
    local: bool,
}

/// The text is no public URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "give scheme and host, and a path if the service is mounted below one, such as https://login.example.com or \
     https://example.com/auth. Each segment of the path is letters, digits, `-`, `_`, `.` or `~`"
)]
pub struct InvalidPublicUrl;

impl PublicUrl {
    /// Parses it. A slash at the end changes nothing.
    pub fn parse(text: &str) -> Result<Self, InvalidPublicUrl> {
        let url = Url::parse(text).map_err(|_| InvalidPublicUrl)?;
        let plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !names_a_host(&url) || !plain {
            return Err(InvalidPublicUrl);
        }
        let prefix = url.path().strip_suffix('/').unwrap_or(url.path());
        // What needs no escaping stays the same on its way through proxies, cookies and URL libraries.
        let is_plain = |segment: &str| {
            !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
        };
        if !prefix.is_empty() && !prefix[1..].split('/').all(is_plain) {
            return Err(InvalidPublicUrl);
        }
        let local = url.scheme() == "http"
            && match url.host() {
                Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
                Some(Host::Ipv4(address)) => address.is_loopback(),
                Some(Host::Ipv6(address)) => address.is_loopback(),
                None => false,
            };
        let base = format!("{}{prefix}", url.origin().ascii_serialization());
        let prefix = prefix.to_owned();
        Ok(Self { url, base, prefix, local })
    }

    /// Its host: a name, or an address, in brackets if it is one of IPv6.
    pub fn host_str(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// All of it, without a slash at its end: an absolute path can follow.
    pub fn as_str(&self) -> &str {
        &self.base
    }

    /// The path it has: empty, or `/…` without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it is `http` on this very machine, as on a developer's: nothing leaves it, and browsers keep no secure cookie of
    /// it.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Where an app's routes are, which is also the `iss` of its tokens.
    pub fn of_app(&self, app_id: &AppId) -> String {
        format!("{}/v1/apps/{app_id}", self.base)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_a_path_or_none() {
        for (text, base, prefix) in [
            ("https://login.example.com", "https://login.example.com", ""),
            ("https://login.example.com/", "https://login.example.com", ""),
            ("https://Example.com:443/auth", "https://example.com/auth", "/auth"),
            ("https://example.com/auth/", "https://example.com/auth", "/auth"),
            ("http://127.0.0.1:8080/a/b-c_d.e~f", "http://127.0.0.1:8080/a/b-c_d.e~f", "/a/b-c_d.e~f"),
            // As WHATWG reads it.
            ("https://example.com/a/../auth", "https://example.com/auth", "/auth"),
        ] {
            let url = PublicUrl::parse(text).expect(text);
            assert_eq!((url.as_str(), url.prefix()), (base, prefix), "{text}");
        }
        for text in [
            "",
            "example.com",
            "ftp://example.com",
            "https://example.com/?a",
            "https://example.com/#a",
            "https://ada@example.com",
            "https://example.com//",
            "https://example.com/a//b",
            "https://example.com/a%2fb",
            "https://example.com/a b",
            "https://example.com/ä",
            "https://example.com/{app}",
            "https://example.com/a;b",
        ] {
            assert_eq!(PublicUrl::parse(text), Err(InvalidPublicUrl), "{text}");
        }
    }

    #[test]
    fn only_http_on_this_machine_is_local() {
        for (text, local) in [
            ("http://127.0.0.1:8080", true),
            ("http://127.1.2.3", true),
            ("http://[::1]:8080/auth", true),
            ("http://localhost:3000", true),
            ("http://auth.localhost", true),
            ("https://localhost", false),
            ("https://127.0.0.1", false),
            ("http://192.168.0.2", false),
            ("http://localhost.example.com", false),
            ("http://notlocalhost", false),
            ("http://0.0.0.0:8080", false),
        ] {
            assert_eq!(PublicUrl::parse(text).expect(text).is_local(), local, "{text}");
        }
    }
}
