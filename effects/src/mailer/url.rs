//! The configured destination of mails.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

/// The destination of mails. Displayed without user and password.
#[derive(Clone)]
pub enum MailUrl {
    /// Into files in this folder, one per mail: `file:///var/lib/watchword/outbox`, or `file://./outbox`.
    Files(PathBuf),
    /// To a mail server.
    Smtp(SmtpUrl),
}

/// A mail server, and the login to it.
///
/// - `smtps://user:password@host` uses TLS from the first byte (port 465, RFC 8314 section 3.3);
/// - `smtp://user:password@host?tls=required` starts with STARTTLS (port 587, RFC 3207), or fails;
/// - `smtp://user:password@host?tls=opportunistic` does so if the server offers it, which a man in the middle can
///   prevent;
/// - `smtp://host` is unencrypted (port 25).
///
/// An explicit port takes precedence. A path is the client's name.
#[derive(Clone)]
pub struct SmtpUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) encryption: Encryption,
    pub(super) login: Option<(String, SecretString)>,
    /// The client's name, if the operator chose one.
    pub(super) hello: Option<String>,
    /// For display, without user and password.
    pub(super) shown: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    None,
    /// STARTTLS if the server offers it.
    Opportunistic,
    /// STARTTLS.
    Required,
    /// From the first byte.
    Wrapped,
}

/// The text is not a mail URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give smtps://user:password@host, smtp://user:password@host?tls=required, or file://<folder>: {0}")]
pub struct InvalidMailUrl(String);

impl FromStr for MailUrl {
    type Err = InvalidMailUrl;

    fn from_str(text: &str) -> Result<Self, InvalidMailUrl> {
        let wrong = |what: &str| InvalidMailUrl(what.to_owned());
        if let Some(folder) = text.strip_prefix("file://") {
            // Parsed by hand, because a URL cannot hold relative paths.
            return match folder {
                "" | "/" => Err(wrong("it names no folder")),
                folder => Ok(Self::Files(PathBuf::from(folder))),
            };
        }
        let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "smtp" | "smtps") {
            return Err(wrong("it is of another kind"));
        }
        if url.path().contains('@') || url.fragment().is_some() {
            return Err(wrong(
                "there is an @ or # behind the host. In a user name or password write %40 for @, %2F for / and %23 for #",
            ));
        }
        if url.username().is_empty() != url.password().is_none() {
            return Err(wrong("user and password go together"));
        }
        let parameters: Vec<_> = url.query_pairs().into_owned().collect();
        let tls = match &parameters[..] {
            [] => None,
            [(key, value)] if key == "tls" => Some(value.as_str()),
            _ => return Err(wrong("tls is the one parameter it has, once")),
        };
        let (encryption, port) = match (url.scheme(), tls) {
            ("smtps", None) => (Encryption::Wrapped, 465),
            ("smtp", Some("required")) => (Encryption::Required, 587),
            ("smtp", Some("opportunistic")) => (Encryption::Opportunistic, 587),
            ("smtp", None) => (Encryption::None, 25),
            _ => return Err(wrong("tls is required or opportunistic, with smtp only")),
        };
        let host = match url.host() {
            None | Some(url::Host::Domain("")) => return Err(wrong("it names no host")),
            Some(url::Host::Domain(name)) => name.to_owned(),
            Some(url::Host::Ipv4(address)) => address.to_string(),
            // Without the brackets that a URL puts around it.
            Some(url::Host::Ipv6(address)) => address.to_string(),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login =
            url.password().map(|password| (decoded(url.username()), SecretString::from(decoded(password))));
        let hello = Some(decoded(url.path().trim_matches('/'))).filter(|name| !name.is_empty());
        let port = url.port().unwrap_or(port);
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let shown = url.to_string();
        Ok(Self::Smtp(SmtpUrl { host, port, encryption, login, hello, shown }))
    }
}

impl MailUrl {
    /// Whether the mails, and the tokens in them, are protected from eavesdroppers.
    pub fn is_private(&self) -> bool {
        match self {
            Self::Files(_) => true,
            Self::Smtp(smtp) => {
                matches!(smtp.encryption, Encryption::Required | Encryption::Wrapped)
                    || smtp.host == "localhost"
                    || smtp.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for MailUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(folder) => write!(f, "file://{}", folder.display()),
            Self::Smtp(smtp) => f.write_str(&smtp.shown),
        }
    }
}

impl fmt::Debug for MailUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
