//! The URL at which clients reach the service: the base of every URL it returns.

use std::fmt;

use domain::AppId;
use domain::web_url::names_a_host;
use url::{Host, Url};

/// Scheme, host and, if the service is mounted below one, a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    url: Url,
    base: String,
    prefix: String,
    local: bool,
}

/// The text is not a public URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "give scheme and host, and a path if the service is mounted below one, such as https://login.example.com or \
     https://example.com/auth. Each segment of the path is letters, digits, `-`, `_`, `.` or `~`"
)]
pub struct InvalidPublicUrl;

impl PublicUrl {
    /// Parses it. A trailing slash is ignored.
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
        // Characters that need no escaping pass unchanged through proxies, cookies and URL libraries.
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

    /// Its host: a name or an address, in brackets for IPv6.
    pub fn host_str(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// The whole URL without a trailing slash: an absolute path can follow.
    pub fn as_str(&self) -> &str {
        &self.base
    }

    /// Its path: empty, or `/…` without a trailing slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it is `http` on this machine, as in development: nothing leaves the machine, and browsers may reject secure
    /// cookies.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// The base of an app's routes, which is also the `iss` of its tokens.
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
            // As WHATWG parses it.
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
