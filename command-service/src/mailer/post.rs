//! Where mails go: to a mail server, or into files.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use domain::delivery::FailureReason;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error as SmtpError, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use url::Url;

use super::compose::Letter;

type Smtp = AsyncSmtpTransport<Tokio1Executor>;

/// How long a mail may take, from the connection to the server's last word.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection waits for the next mail.
const IDLE: Duration = Duration::from_secs(30);

/// Where mails go. It is shown without user and password.
#[derive(Clone)]
pub enum MailUrl {
    /// Into files of this folder, one a mail: `file:///var/lib/watchword/outbox`, or `file://./outbox`.
    Files(PathBuf),
    /// To a mail server.
    Smtp(SmtpUrl),
}

/// A mail server, and how to log in to it.
///
/// - `smtps://user:password@host` speaks TLS from the first byte (port 465, RFC 8314 section 3.3);
/// - `smtp://user:password@host?tls=required` begins with STARTTLS (port 587, RFC 3207), or fails;
/// - `smtp://user:password@host?tls=opportunistic` does so where the server offers it, which whoever is in between can
///   prevent;
/// - `smtp://host` speaks in the clear (port 25).
///
/// A port after the host is taken instead. A path is the name the client says it has.
#[derive(Clone)]
pub struct SmtpUrl {
    text: SecretString,
    /// Without user and password.
    shown: String,
    is_private: bool,
}

/// The text says nowhere to send mail to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give smtps://user:password@host, smtp://user:password@host?tls=required, or file://<folder>: {0}")]
pub struct InvalidMailUrl(String);

impl FromStr for MailUrl {
    type Err = InvalidMailUrl;

    fn from_str(text: &str) -> Result<Self, InvalidMailUrl> {
        let wrong = |what: &str| InvalidMailUrl(what.to_owned());
        if let Some(folder) = text.strip_prefix("file://") {
            // Taken as it is: a URL would have no relative paths.
            return match folder {
                "" | "/" => Err(wrong("it names no folder")),
                folder => Ok(Self::Files(PathBuf::from(folder))),
            };
        }
        let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "smtp" | "smtps") {
            return Err(wrong("it is of another kind"));
        }
        if url.username().is_empty() != url.password().is_none() {
            return Err(wrong("user and password go together"));
        }
        if let Some((key, _)) = url.query_pairs().find(|(key, _)| key != "tls") {
            return Err(wrong(&format!("it has no parameter {key}")));
        }
        // What it says of an error names no part with a secret.
        Smtp::from_url(text).map_err(|error| wrong(&error.to_string()))?;
        // The host of such a URL is taken as it stands, a number among them.
        let is_loopback = match url.host() {
            None | Some(url::Host::Domain("")) => return Err(wrong("it names no host")),
            Some(url::Host::Domain(name)) => {
                name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
        };
        let is_private =
            is_loopback || url.scheme() == "smtps" || url.query_pairs().any(|(_, tls)| tls == "required");
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self::Smtp(SmtpUrl { text: SecretString::from(text), shown: url.to_string(), is_private }))
    }
}

impl MailUrl {
    /// Whether nobody on the way can read the mails, and the tokens in them.
    pub fn is_private(&self) -> bool {
        match self {
            Self::Files(_) => true,
            Self::Smtp(smtp) => smtp.is_private,
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

/// Why a mail was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsent {
    pub reason: FailureReason,
    /// The mail server's reply.
    pub code: Option<u16>,
    /// For the log: never what the server said in words, which may quote the address.
    pub detail: String,
}

impl Unsent {
    fn new(reason: FailureReason, detail: impl Into<String>) -> Self {
        Self { reason, code: None, detail: detail.into() }
    }

    pub fn not_made(detail: impl Into<String>) -> Self {
        Self::new(FailureReason::NotMade, detail)
    }

    pub fn expired() -> Self {
        Self::new(FailureReason::Expired, "what is in it has expired")
    }

    fn unreachable(detail: impl Into<String>) -> Self {
        Self::new(FailureReason::Unreachable, detail)
    }

    /// A failure before the server was told of any mail: it says nothing about this one.
    fn of_connection(error: &SmtpError) -> Self {
        Self { code: error.status().map(Into::into), ..Self::unreachable(describe(error)) }
    }

    fn of_mail(error: &SmtpError) -> Self {
        let code = error.status().map(u16::from);
        let reason = match code {
            // The server wants a login (RFC 4954 section 6), which is no fault of the mail.
            Some(530 | 534 | 535 | 538) => FailureReason::Unreachable,
            Some(_) if error.is_permanent() => FailureReason::Rejected,
            Some(_) => FailureReason::Deferred,
            // The address needs what this server does not have (RFC 6531).
            None if error.is_client() => FailureReason::NotMade,
            None => FailureReason::Unreachable,
        };
        Self { reason, code, detail: describe(error) }
    }
}

fn describe(error: &SmtpError) -> String {
    match error.status() {
        Some(code) => format!("the mail server replied {code}"),
        None => error.to_string(),
    }
}

/// Takes mails, one at a time.
pub struct Post(Kind);

enum Kind {
    Files(PathBuf),
    Smtp { url: SmtpUrl, hello: String, patience: Duration, transport: Mutex<Option<Smtp>> },
}

impl Post {
    /// Opens nothing yet. `hello` is the name the client says it has to a mail server.
    pub fn new(url: MailUrl, hello: &str) -> Self {
        Self::with_patience(url, hello, PATIENCE)
    }

    /// As [`Post::new`], with another time that a mail may take.
    pub fn with_patience(url: MailUrl, hello: &str, patience: Duration) -> Self {
        Self(match url {
            MailUrl::Files(folder) => Kind::Files(folder),
            MailUrl::Smtp(url) => {
                Kind::Smtp { url, hello: hello.to_owned(), patience, transport: Mutex::default() }
            }
        })
    }

    pub(super) async fn send(&self, letter: &Letter) -> Result<(), Unsent> {
        match &self.0 {
            Kind::Files(folder) => {
                let (folder, name, bytes) = (folder.clone(), letter.name(), letter.message.formatted());
                let written = tokio::task::spawn_blocking(move || write(&folder, &name, &bytes)).await;
                let failed = |error: &dyn fmt::Display| Unsent::unreachable(error.to_string());
                written.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
            }
            Kind::Smtp { url, hello, patience, transport } => {
                let mut transport = transport.lock().await;
                let sent = tokio::time::timeout(*patience, send(&mut transport, url, hello, letter)).await;
                sent.unwrap_or_else(|_| {
                    // The connection may be in the middle of a mail: nothing more may be said on it.
                    *transport = None;
                    Err(Unsent::unreachable("the mail server did not answer in time"))
                })
            }
        }
    }
}

async fn send(
    transport: &mut Option<Smtp>,
    url: &SmtpUrl,
    hello: &str,
    letter: &Letter,
) -> Result<(), Unsent> {
    let transport = match transport {
        Some(transport) => transport,
        None => transport.insert(connect(url, hello).map_err(|error| Unsent::of_connection(&error))?),
    };
    // What goes wrong before the mail is the server's matter, even if it replies 5xx: a wrong password of ours must not make
    // every mail a hopeless one.
    match transport.test_connection().await {
        Ok(true) => {}
        Ok(false) => return Err(Unsent::unreachable("the mail server does not answer")),
        Err(error) => return Err(Unsent::of_connection(&error)),
    }
    transport.send(letter.message.clone()).await.map(|_| ()).map_err(|error| Unsent::of_mail(&error))
}

fn connect(url: &SmtpUrl, hello: &str) -> Result<Smtp, SmtpError> {
    let mut builder = Smtp::from_url(url.text.expose_secret())?;
    if Url::parse(&url.shown).is_ok_and(|url| url.path().len() <= 1) {
        builder = builder.hello_name(ClientId::Domain(hello.to_owned()));
    }
    let pool = PoolConfig::new().max_size(1).idle_timeout(IDLE);
    Ok(builder.timeout(Some(PATIENCE / 2)).pool_config(pool).build())
}

/// Writes a mail that is there whole or not at all, and that nobody else can read. The same mail once more takes the place of
/// the first.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    if !folder.exists() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
    }
    let unfinished = folder.join(format!(".{name}.new"));
    let mut options = File::options();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MailUrl, InvalidMailUrl> {
        text.parse()
    }

    #[test]
    fn a_password_is_not_shown() {
        for text in
            ["smtps://u%40x:hunter2@mail.example", "smtp://u:hunter2@mail.example:2525/me?tls=required"]
        {
            let url = parse(text).expect("valid");
            let shown = format!("{url} {url:?}");
            assert!(!shown.contains("hunter2") && shown.contains("mail.example"), "{shown}");
        }
        for text in
            ["smtp://u:hunter2@", "smtp://u:hunter2@mail.example?tls=maybe", "imap://u:hunter2@mail.example"]
        {
            let error = parse(text).expect_err(text).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "mail.example",
            "smtp:",
            "smtp://",
            "smtp://u@mail.example",
            "smtps://h?x=1",
            "file://",
            "file:///",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_others_can_read_is_known() {
        for (text, is_private) in [
            ("smtps://mail.example", true),
            ("smtp://mail.example?tls=required", true),
            ("smtp://mail.example?tls=opportunistic", false),
            ("smtp://mail.example", false),
            ("smtp://127.0.0.1:2525", true),
            ("smtp://[::1]", true),
            ("smtp://localhost", true),
            ("file://./outbox", true),
        ] {
            assert_eq!(parse(text).expect(text).is_private(), is_private, "{text}");
        }
    }
}
