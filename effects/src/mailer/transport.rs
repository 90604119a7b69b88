//! Delivery of mails: to a mail server, or into files.

use std::fmt;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::delivery::FailureReason;
use event_store::durable;
use event_store::sqlite::private;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::{ClientId, Extension};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::compose::Letter;
use super::url::{Encryption, MailUrl, SmtpUrl};

/// How long a connection is kept for the next mail.
const IDLE: Duration = Duration::from_secs(30);
/// How long the server's announced extensions are cached, and the time limit for asking.
const ASK_AGAIN: Duration = Duration::from_mins(1);
const ANSWER: Duration = Duration::from_secs(5);

/// The time limits for a mail server.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until it is ready for a mail: connection, TLS and login.
    pub ready: Duration,
    /// From there to its final reply. Long, because some servers scan a mail before they accept it, and a client that
    /// gives up earlier sends it twice (RFC 5321 section 4.5.3.2.6, RFC 1047).
    pub last_word: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { ready: Duration::from_secs(20), last_word: Duration::from_mins(5) }
    }
}

/// Why a mail was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsent {
    pub reason: FailureReason,
    /// The mail server's reply.
    pub code: Option<u16>,
    /// For the log: never the server's text, which may quote the address.
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
        Self::new(FailureReason::Expired, "the link in it has expired")
    }

    fn unreachable(detail: impl Into<String>) -> Self {
        Self::new(FailureReason::Unreachable, detail)
    }

    /// A failure before any mail was transmitted: it says nothing about this one.
    fn of_connection(error: &SmtpError) -> Self {
        Self { code: error.status().map(Into::into), ..Self::unreachable(describe(error)) }
    }

    fn of_mail(error: &SmtpError) -> Self {
        let code = error.status().map(u16::from);
        let reason = match code {
            // The server shuts down (RFC 5321 section 3.8) or requires a login (RFC 4954 section 6): not the mail's
            // fault.
            Some(421 | 530 | 534 | 535 | 538) => FailureReason::Unreachable,
            Some(_) if error.is_permanent() => FailureReason::Rejected,
            Some(_) => FailureReason::Deferred,
            // The address needs an extension that this server lacks (RFC 6531).
            None if error.is_client() => FailureReason::NotMade,
            None => FailureReason::Unreachable,
        };
        Self { reason, code, detail: describe(error) }
    }
}

fn describe(error: &SmtpError) -> String {
    match error.status() {
        Some(code) => format!("the mail server replied {code}"),
        // The parser's error would quote the reply.
        None if error.is_response() => "the mail server's reply is not SMTP".to_owned(),
        None => error.to_string(),
    }
}

/// The mail server's announced extensions. Cheap to clone.
#[derive(Clone)]
pub struct MailServer(Arc<Announced>);

struct Announced {
    url: SmtpUrl,
    hello: ClientId,
    /// Whether it accepts addresses with characters outside ASCII (SMTPUTF8, RFC 6531), according to its last answer, and
    /// when that was.
    utf8: Mutex<Option<(Instant, Option<bool>)>>,
}

impl MailServer {
    /// Whether it accepts addresses with characters outside ASCII before the `@`. None if it never said so and cannot be
    /// asked.
    pub async fn takes_utf8(&self) -> Option<bool> {
        // One request asks for all: strangers must not be able to open connections at will.
        let mut utf8 = self.0.utf8.lock().await;
        match *utf8 {
            Some((asked, said)) if asked.elapsed() < ASK_AGAIN => return said,
            _ => {}
        }
        let said = match timeout(ANSWER, self.connect()).await {
            Ok(Ok(mut connection)) => {
                let said = says_utf8(&connection);
                let _ = timeout(ANSWER, connection.quit()).await;
                Some(said)
            }
            // Its previous answer is the best available.
            Ok(Err(_)) | Err(_) => utf8.and_then(|(_, said)| said),
        };
        *utf8 = Some((Instant::now(), said));
        said
    }

    /// Opens a connection that is ready for a login.
    async fn connect(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let Announced { url: SmtpUrl { host, port, encryption, .. }, hello, .. } = &*self.0;
        let tls = || TlsParameters::new(host.clone());
        let wrapped = (*encryption == Encryption::Wrapped).then(tls).transpose()?;
        let server = (host.as_str(), *port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(server, None, hello, wrapped, None).await?;
        let upgrades = match encryption {
            Encryption::Required => true,
            Encryption::Opportunistic => connection.can_starttls(),
            Encryption::None | Encryption::Wrapped => false,
        };
        if upgrades {
            connection.starttls(tls()?, hello).await?;
        }
        Ok(connection)
    }
}

fn says_utf8(connection: &AsyncSmtpConnection) -> bool {
    connection.server_info().supports_feature(Extension::SmtpUtfEight)
}

/// Delivers mails, one at a time.
pub struct MailTransport(Kind);

enum Kind {
    Files(PathBuf),
    Smtp(Box<Server>),
}

impl MailTransport {
    /// Opens no connection yet. `hello` is the client's name towards a mail server.
    pub fn new(url: MailUrl, hello: &str, patience: Patience) -> Self {
        Self(match url {
            MailUrl::Files(folder) => Kind::Files(folder),
            MailUrl::Smtp(url) => {
                let hello = client_id(url.hello.as_deref().unwrap_or(hello));
                let login = url.login.clone();
                let server = MailServer(Arc::new(Announced { url, hello, utf8: Mutex::default() }));
                Kind::Smtp(Box::new(Server { announced: server, login, patience, open: Mutex::default() }))
            }
        })
    }

    /// The mail server, if mails go to one.
    pub fn server(&self) -> Option<MailServer> {
        match &self.0 {
            Kind::Files(_) => None,
            Kind::Smtp(server) => Some(server.announced.clone()),
        }
    }

    /// Whether a mail could be delivered now: greets the mail server, with TLS and login as configured, and quits; for a
    /// folder, whether it is writable. Returns the finding or the problem; sends and writes nothing.
    pub async fn greet(&self) -> Result<String, String> {
        match &self.0 {
            Kind::Files(folder) => {
                let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
                if existing.is_dir() {
                    Ok(format!("written to {}", folder.display()))
                } else {
                    Err(format!("{} is not a folder", existing.display()))
                }
            }
            Kind::Smtp(server) => server.greet().await,
        }
    }

    pub(super) async fn send(&self, letter: &Letter) -> Result<(), Unsent> {
        match &self.0 {
            Kind::Files(folder) => {
                let (folder, name, bytes) = (folder.clone(), letter.name(), letter.message.formatted());
                let written = tokio::task::spawn_blocking(move || write(&folder, &name, &bytes)).await;
                let failed = |error: &dyn fmt::Display| Unsent::unreachable(error.to_string());
                written.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
            }
            Kind::Smtp(server) => server.send(letter).await,
        }
    }
}

/// The client's name: its domain, or an address literal (RFC 5321 section 4.1.3). A bare address is neither, and strict
/// servers refuse it.
fn client_id(name: &str) -> ClientId {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let tagged = bare.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).map(|tag| &bare[tag.len()..]);
    match tagged.unwrap_or(bare).parse() {
        Ok(IpAddr::V4(address)) => ClientId::Ipv4(address),
        Ok(IpAddr::V6(address)) => ClientId::Ipv6(address),
        Err(_) => ClientId::Domain(name.to_owned()),
    }
}

/// A mail server.
struct Server {
    announced: MailServer,
    login: Option<(String, SecretString)>,
    patience: Patience,
    open: Mutex<Option<Open>>,
}

/// A connection kept for the next mail.
struct Open {
    connection: AsyncSmtpConnection,
    since: Instant,
}

impl Server {
    async fn send(&self, letter: &Letter) -> Result<(), Unsent> {
        let late = |_| Unsent::unreachable("the mail server did not answer in time");
        let mut open = self.open.lock().await;
        // Taken out until the mail is through: no other mail can be sent in between.
        let ready = self.ready(open.take());
        // A failure before the mail is the server's problem, even with a 5xx reply: our wrong password must not make every
        // mail a permanent failure.
        let ready = timeout(self.patience.ready, ready).await.map_err(late)?;
        let mut connection = ready.map_err(|error| Unsent::of_connection(&error))?;
        let (envelope, bytes) = (letter.message.envelope(), letter.message.formatted());
        let sent = timeout(self.patience.last_word, connection.send(envelope, &bytes)).await.map_err(late)?;
        sent.map_err(|error| Unsent::of_mail(&error))?;
        *open = Some(Open { connection, since: Instant::now() });
        Ok(())
    }

    async fn greet(&self) -> Result<String, String> {
        let ready = timeout(self.patience.ready, self.ready(None)).await;
        let ready = ready.map_err(|_| "it does not answer in time".to_owned())?;
        let mut connection = ready.map_err(|error| Unsent::of_connection(&error).detail)?;
        let said = if connection.is_encrypted() { ", with TLS" } else { "" };
        let login = if self.login.is_some() { " and login" } else { "" };
        // It has answered; whether it quits properly does not matter.
        let _ = timeout(self.patience.ready, connection.quit()).await;
        Ok(format!("it answers{said}{login}"))
    }

    /// The open connection, if it still works, or a new one.
    async fn ready(&self, open: Option<Open>) -> Result<AsyncSmtpConnection, SmtpError> {
        if let Some(Open { mut connection, since }) = open
            && since.elapsed() < IDLE
            && connection.test_connected().await
        {
            return Ok(connection);
        }
        let mut connection = self.announced.connect().await?;
        // A concurrent request for it finds out anyway.
        if let Ok(mut utf8) = self.announced.0.utf8.try_lock() {
            *utf8 = Some((Instant::now(), Some(says_utf8(&connection))));
        }
        if let Some((user, password)) = &self.login {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            connection.auth(DEFAULT_MECHANISMS, &credentials).await?;
        }
        Ok(connection)
    }
}

/// Atomically writes a mail that other users cannot read. A repeated mail replaces the first.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    if !folder.exists() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
        private::adopt(&File::open(folder)?, folder);
    }
    durable::put(&folder.join(name), bytes)
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
