//! Where mails go: to a mail server, or into files.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::delivery::FailureReason;
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

/// How long a connection waits for the next mail.
const IDLE: Duration = Duration::from_secs(30);
/// After how long the server is asked again what it takes, and how long its answer may take.
const ASK_AGAIN: Duration = Duration::from_mins(1);
const ANSWER: Duration = Duration::from_secs(5);

/// How long a mail server may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until it is ready for a mail: for the connection, TLS and the login.
    pub ready: Duration,
    /// From there to its last word on the mail. Long, as some look through a mail before they take it: whoever gives up
    /// before them sends it twice (RFC 5321 section 4.5.3.2.6, RFC 1047).
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
            // The server goes away (RFC 5321 section 3.8), or wants a login (RFC 4954 section 6): no fault of the mail.
            Some(421 | 530 | 534 | 535 | 538) => FailureReason::Unreachable,
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
        // What is wrong with a reply is told by quoting it.
        None if error.is_response() => "what the mail server replied is no SMTP".to_owned(),
        None => error.to_string(),
    }
}

/// What the mail server says of itself. Cheap to clone.
#[derive(Clone)]
pub struct MailServer(Arc<Announced>);

struct Announced {
    url: SmtpUrl,
    hello: ClientId,
    /// Whether it takes addresses with characters outside ASCII (SMTPUTF8, RFC 6531), as it said last, and when it was asked.
    utf8: Mutex<Option<(Instant, Option<bool>)>>,
}

impl MailServer {
    /// Whether it takes addresses with characters outside ASCII before the `@`. None if it never said so, and cannot be asked.
    pub async fn takes_utf8(&self) -> Option<bool> {
        // One asks for all: strangers are not to open connections at will.
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
            // What it said before is the best that is known.
            Ok(Err(_)) | Err(_) => utf8.and_then(|(_, said)| said),
        };
        *utf8 = Some((Instant::now(), said));
        said
    }

    /// A connection that is ready for a login.
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

/// Takes mails, one at a time.
pub struct MailTransport(Kind);

enum Kind {
    Files(PathBuf),
    Smtp(Box<Server>),
}

impl MailTransport {
    /// Opens nothing yet. `hello` is the name the client says it has to a mail server.
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

    /// The mail server, if they go to one.
    pub fn server(&self) -> Option<MailServer> {
        match &self.0 {
            Kind::Files(_) => None,
            Kind::Smtp(server) => Some(server.announced.clone()),
        }
    }

    /// Whether a mail could be handed over now: greets the mail server, with TLS and login as they are configured, and says
    /// good-bye; of a folder, whether it can be written. Says what was found, or why not; sends and writes nothing.
    pub async fn greet(&self) -> Result<String, String> {
        match &self.0 {
            Kind::Files(folder) => {
                let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
                if existing.is_dir() {
                    Ok(format!("written to {}", folder.display()))
                } else {
                    Err(format!("{} is no folder", existing.display()))
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

/// How a client names itself: by its domain, or by an address literal (RFC 5321 section 4.1.3). A bare address is neither, and
/// servers that look refuse it.
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

/// A connection that waits for the next mail.
struct Open {
    connection: AsyncSmtpConnection,
    since: Instant,
}

impl Server {
    async fn send(&self, letter: &Letter) -> Result<(), Unsent> {
        let late = |_| Unsent::unreachable("the mail server did not answer in time");
        let mut open = self.open.lock().await;
        // Taken out until the mail is through: in the middle of one, no other can be sent.
        let ready = self.ready(open.take());
        // What goes wrong before the mail is the server's matter, even if it replies 5xx: a wrong password of ours must not
        // make every mail a hopeless one.
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
        // It has said what was asked; how it says good-bye makes no difference.
        let _ = timeout(self.patience.ready, connection.quit()).await;
        Ok(format!("it answers{said}{login}"))
    }

    /// The connection that is open, if it still is; or a new one.
    async fn ready(&self, open: Option<Open>) -> Result<AsyncSmtpConnection, SmtpError> {
        if let Some(Open { mut connection, since }) = open
            && since.elapsed() < IDLE
            && connection.test_connected().await
        {
            return Ok(connection);
        }
        let mut connection = self.announced.connect().await?;
        // Somebody who asks for it just now finds it out anyway.
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

/// Writes a mail that is there whole or not at all, and that nobody else can read. The same mail once more takes the place of
/// the first.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    if !folder.exists() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
        private::adopt(&File::open(folder)?, folder);
    }
    let unfinished = folder.join(format!(".{name}.new"));
    // What a crash has left; and nobody's link is followed.
    let _ = fs::remove_file(&unfinished);
    let mut options = File::options();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    private::adopt(&file, &unfinished);
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
