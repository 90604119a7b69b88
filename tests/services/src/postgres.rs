//! A PostgreSQL server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::{self, Home};
use crate::{free_port, paths, value, wait_until};

/// What its superuser `postgres` logs in with.
const PASSWORD: &str = "only-on-loopback";

/// A PostgreSQL server with a cluster of its own, in production settings: what is committed is on the disk.
pub struct Postgres {
    programs: PathBuf,
    /// The programs of clients, which may be of another version.
    tools: PathBuf,
    /// Who runs it, and in which group; empty where we may run it ourselves.
    user: String,
    group: String,
    port: u16,
    child: Option<Child>,
    databases: AtomicU32,
    // Last: it removes the folder.
    home: Home,
}

impl Postgres {
    /// The server that all tests of this process share, each with a database of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of one's own, to be stopped and started.
    pub fn start() -> Self {
        Self::start_from(None)
    }

    /// A server of one's own, of this version: 17 or 18.
    pub fn start_version(major: u32) -> Self {
        let found = paths(&format!("postgres-{major}"));
        Self::start_from(Some(value(&found, "POSTGRES_BIN").into()))
    }

    fn start_from(programs: Option<PathBuf>) -> Self {
        let found = paths("postgres");
        let tools: PathBuf = value(&found, "POSTGRES_BIN").into();
        let mut server = Self {
            programs: programs.unwrap_or_else(|| tools.clone()),
            tools,
            user: value(&found, "POSTGRES_USER"),
            group: value(&found, "POSTGRES_GROUP"),
            port: free_port(),
            child: None,
            databases: AtomicU32::new(0),
            home: Home::new("postgres-test-"),
        };
        server.init();
        server.up();
        server
    }

    fn init(&self) {
        let password = self.home.path().join("password");
        fs::write(&password, PASSWORD).expect("the folder can be written");
        if !self.user.is_empty() {
            let owner = format!("{}:", self.user);
            let status = Command::new("chown").args(["-R", &owner]).arg(self.home.path()).status();
            assert!(status.expect("chown runs").success());
        }
        let output = self
            .program("initdb")
            .args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", "--no-sync"])
            .arg("--pwfile")
            .arg(&password)
            .arg("-D")
            .arg(self.data())
            .output()
            .expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the server again, on the same port.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = self.program("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "max_connections=200", "-p", &self.port.to_string()]);
        let mut child = self.home.spawn(&mut command);
        wait_until("PostgreSQL", || {
            let ended = child.try_wait().expect("it can be waited for");
            assert!(ended.is_none(), "PostgreSQL ended: {}", self.log());
            let mut ready = Command::new(self.tools.join("pg_isready"));
            ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            ready.stdin(Stdio::null()).status().expect("pg_isready runs").success()
        });
        self.child = Some(child);
    }

    /// Stops it, as an operator would: sessions end, and all is written down.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Stops it as a crash would: the next start recovers from the log.
    pub fn crash(&mut self) {
        self.end("QUIT");
    }

    fn end(&mut self, signal: &str) {
        let mut child = self.child.take().expect("it runs");
        self.home.end(&mut child, signal);
    }

    /// A new, empty database: its URL, for the superuser.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql(&self.url("postgres"), &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// A new database with what another has, to which nobody may be connected: its URL, for the superuser.
    pub fn copy(&self, database: &str) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let (_, old) = database.rsplit_once('/').expect("a URL has a path");
        self.psql(&self.url("postgres"), &format!("CREATE DATABASE {name} TEMPLATE {old}"));
        self.url(&name)
    }

    /// The URL of a database, for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on, at `127.0.0.1`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL with psql, and returns what it prints: one line for each row.
    pub fn psql(&self, url: &str, sql: &str) -> String {
        let output = Command::new(self.tools.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql])
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Runs a file of SQL with psql, such as `pg_dump` writes.
    pub fn restore(&self, url: &str, dump: &Path) {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", url, "-f"])
            .arg(dump)
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Where the cluster is.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.log()).unwrap_or_default()
    }

    /// PostgreSQL refuses to run as root: then it runs as another user. The process stays the same.
    fn program(&self, name: &str) -> Command {
        let path: &Path = &self.programs.join(name);
        if self.user.is_empty() {
            return Command::new(path);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &self.user, "--regid", &self.group, "--clear-groups", "--"]).arg(path);
        command.current_dir(self.home.path());
        command
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends a signal to the server's first process, by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.crash();
        }
    }
}
