//! A nats-server with JetStream.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::process::{self, Home};
use crate::{Disk, free_port, paths, value, wait_until};

/// A nats-server with JetStream in its own folder.
pub struct Nats {
    program: String,
    port: u16,
    child: Option<Child>,
    store: PathBuf,
    // Last: dropping it removes the folder.
    home: Home,
}

impl Nats {
    /// Starts a server. JetStream syncs each write to disk, as in production.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a server with these additional configuration lines, such as `max_payload: 4MB` or an `authorization`
    /// block.
    pub fn start_with(configuration: &str) -> Self {
        let home = Home::new("nats-test-");
        let store = home.path().join("store");
        Self::start_at(home, store, configuration)
    }

    /// Starts a server that stores its streams on this disk.
    pub fn start_on(disk: &Disk) -> Self {
        Self::start_at(Home::new("nats-test-"), disk.path().to_owned(), "")
    }

    fn start_at(home: Home, store: PathBuf, configuration: &str) -> Self {
        let program = value(&paths("nats"), "NATS_SERVER");
        let port = free_port();
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n{configuration}\n",
            store.display()
        );
        fs::write(home.path().join("nats.conf"), text).expect("the folder can be written");
        let mut server = Self { program, port, child: None, store, home };
        server.up();
        server
    }

    /// Starts it again, on the same port and folder.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it is already running");
        let mut child = self.home.spawn(Command::new(&self.program).args(["-c", "nats.conf"]));
        wait_until("nats-server", || {
            let ended = child.try_wait().expect("it can be waited for");
            assert!(ended.is_none(), "nats-server ended: {}", self.log());
            self.greets()
        });
        self.child = Some(child);
    }

    /// Once ready, a server sends `INFO` on each connection.
    fn greets(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut greeting = [0; 4];
        stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
            && stream.read_exact(&mut greeting).is_ok()
            && &greeting == b"INFO"
    }

    /// Stops it, as an operator would.
    pub fn stop(&mut self) {
        self.end("TERM");
    }

    /// Kills it, without a chance to clean up.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    fn end(&mut self, signal: &str) {
        let mut child = self.child.take().expect("it runs");
        self.home.end(&mut child, signal);
    }

    /// `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port it listens on, at `127.0.0.1`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of JetStream's streams.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.log()).unwrap_or_default()
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends a signal to the server, by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of nats-server:\n{}", self.log());
        }
        if self.child.is_some() {
            self.kill();
        }
    }
}
