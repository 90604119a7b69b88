//! A mail server that stores what it receives.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::certificate::make_certificate;
use crate::process::{self, Home};
use crate::{free_port, paths, value, wait_until};

/// A mail server in its own folder. It accepts every mail, except that it permanently refuses recipients that begin
/// with `reject`, temporarily refuses those that begin with `defer`, and does not answer for those that begin with
/// `hang`.
pub struct Smtp {
    program: String,
    port: u16,
    options: Vec<String>,
    child: Option<Child>,
    // Last: dropping it removes the folder.
    home: Home,
}

/// How a mail server protects a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// TLS from the first byte.
    Wrapped,
    /// STARTTLS, without which it accepts no mail.
    StartTls,
}

impl Smtp {
    /// Starts a server without encryption.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a server that accepts addresses with non-ASCII characters (SMTPUTF8).
    pub fn start_with_utf8() -> Self {
        Self::start_options(None, &["utf8"])
    }

    /// Starts a server with TLS, for clients that trust [`Smtp::certificate`] and connect to `localhost`. It requires a
    /// login: user `mailer`, password `secret of the mailer`.
    pub fn start_with_tls(tls: SmtpTls) -> Self {
        Self::start_with(Some(tls))
    }

    fn start_with(tls: Option<SmtpTls>) -> Self {
        Self::start_options(tls, &[])
    }

    fn start_options(tls: Option<SmtpTls>, more: &[&str]) -> Self {
        let program = value(&paths("smtp"), "SMTP_PYTHON");
        let home = Home::new("smtp-test-");
        let mut options = Vec::new();
        if let Some(tls) = tls {
            make_certificate(home.path());
            let kind = if tls == SmtpTls::Wrapped { "wrapped" } else { "starttls" };
            options = ["server.pem", kind, "login"].map(str::to_owned).to_vec();
        }
        options.extend(more.iter().map(|option| (*option).to_owned()));
        let mut server = Self { program, port: free_port(), options, child: None, home };
        server.up();
        server
    }

    /// Starts it again, on the same port, with its mails.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it is already running");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/smtp.py");
        let mut command = Command::new(&self.program);
        command.arg(script).arg(self.port.to_string()).arg("mails").args(&self.options);
        let mut child = self.home.spawn(&mut command);
        let wrapped = self.options.iter().any(|option| option == "wrapped");
        wait_until("the mail server", || {
            let ended = child.try_wait().expect("it can be waited for");
            assert!(ended.is_none(), "the mail server ended: {}", self.log());
            self.greets(wrapped)
        });
        self.child = Some(child);
    }

    fn greets(&self, wrapped: bool) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut greeting = [0; 3];
        wrapped
            || stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
                && stream.read_exact(&mut greeting).is_ok()
                && &greeting == b"220"
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        self.home.end(&mut child, "KILL");
    }

    /// Sends it a signal, by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        process::signal(self.child.as_ref().expect("it runs").id(), name);
    }

    /// `smtp://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    /// The port it listens on, at `127.0.0.1`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The PEM file of the authority that signed the server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    /// The mails that it has accepted, in order, each a line of JSON.
    pub fn mails(&self) -> Vec<String> {
        let text = fs::read_to_string(self.home.path().join("mails")).unwrap_or_default();
        // A mail that is still being written has no line end yet.
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.log()).unwrap_or_default()
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
