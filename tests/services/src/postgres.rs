//! A PostgreSQL server.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::{self, Home};
use crate::{free_port, paths, value, wait_until};

/// The password of its superuser `postgres`.
pub(crate) const PASSWORD: &str = "only-on-loopback";

/// Those of the nodes: not those of other sessions, such as one that waits on behalf of a commit whose wait was cancelled.
const APPENDS_THAT_WAIT: &str =
    "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%watchword.append(%'";

/// A PostgreSQL server with its own cluster and production settings: commits are synced to disk.
pub struct Postgres {
    programs: PathBuf,
    /// The client programs, which may be of another version.
    tools: PathBuf,
    /// The user and group that run it; empty if the current user can.
    user: String,
    group: String,
    port: u16,
    child: Option<Child>,
    databases: AtomicU32,
    // Last: dropping it removes the folder.
    home: Home,
}

impl Postgres {
    /// The server that all tests of this process share, each with its own database.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A separate server, which can be stopped and started: of the version that `TEST_POSTGRES` names, 17 or 18, or else
    /// of the client programs' version.
    pub fn start() -> Self {
        match env::var("TEST_POSTGRES") {
            Ok(major) => Self::start_version(major.parse().expect("TEST_POSTGRES is a number")),
            Err(_) => Self::start_with_tools(),
        }
    }

    /// A separate server of the client programs' version, which [`Postgres::dump`] needs.
    pub fn start_with_tools() -> Self {
        Self::start_from(None)
    }

    /// A separate server of this version: 17 or 18.
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

    /// A replica of this server, from a copy of its files. It is asynchronous unless `synchronous_standby_names` of this
    /// server names it: `replica`.
    #[must_use]
    pub fn replica(&self) -> Self {
        let mut replica = Self {
            programs: self.programs.clone(),
            tools: self.tools.clone(),
            user: self.user.clone(),
            group: self.group.clone(),
            port: free_port(),
            child: None,
            databases: AtomicU32::new(1000),
            home: Home::new("postgres-replica-"),
        };
        // pg_basebackup knows only servers up to its own version.
        let (from, to) = (self.data(), replica.data());
        let copy = format!("\\! cp -a '{}' '{}'", from.display(), to.display());
        let (begin, end) = (
            "SELECT pg_backup_start('replica', fast => true)",
            "SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)",
        );
        let label = self.psql_all(&self.url("postgres"), &["\\o /dev/null", begin, "\\o", &copy, end]);
        for (file, text) in [("backup_label", label.as_str()), ("standby.signal", "")] {
            fs::write(to.join(file), text).expect("the copy can be written");
        }
        let primary = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres password={PASSWORD} application_name=replica'\n",
            self.port
        );
        let settings = File::options().append(true).open(to.join("postgresql.auto.conf"));
        settings.and_then(|mut file| file.write_all(primary.as_bytes())).expect("the copy can be written");
        fs::remove_file(to.join("postmaster.pid")).expect("it was copied");
        replica.give_home();
        replica.up();
        replica
    }

    /// A synchronous replica of this server, for which each commit waits from now on.
    #[must_use]
    pub fn synchronous_replica(&self) -> Self {
        let (replica, url) = (self.replica(), self.url("postgres"));
        self.psql(&url, "ALTER SYSTEM SET synchronous_standby_names = 'replica'");
        self.psql(&url, "SELECT pg_reload_conf()");
        wait_until("the replica", || {
            self.psql(&url, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").trim()
                == "1"
        });
        replica
    }

    /// How many appends have been committed here, and wait for the synchronous replica.
    pub fn waiting_for_replica(&self) -> usize {
        let count = format!("SELECT count(*) {APPENDS_THAT_WAIT}");
        self.psql(&self.url("postgres"), &count).trim().parse().expect("a number")
    }

    /// Ends these waits with a function of the server: `pg_cancel_backend` or `pg_terminate_backend`.
    pub fn end_waits_for_replica(&self, with: &str) {
        self.psql(&self.url("postgres"), &format!("SELECT {with}(pid) {APPENDS_THAT_WAIT}"));
    }

    /// Waits until a replica of this server has everything.
    pub fn wait_for(&self, replica: &Self) {
        let at = self.psql(&self.url("postgres"), "SELECT pg_current_wal_lsn()");
        let there = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", at.trim());
        wait_until("the replica", || replica.psql(&replica.url("postgres"), &there).trim() == "t");
    }

    /// Lets a replica get no more from its primary: what comes from now on, it lacks.
    pub fn hold_back(&self) {
        let url = self.url("postgres");
        self.psql(&url, "ALTER SYSTEM SET primary_conninfo = ''");
        self.psql(&url, "SELECT pg_reload_conf()");
        wait_until("the replica gets no more", || {
            self.psql(&url, "SELECT count(*) FROM pg_stat_wal_receiver").trim() == "0"
        });
    }

    /// Makes a replica a server of its own, which takes writes.
    pub fn promote(&self) {
        self.psql(&self.url("postgres"), "SELECT pg_promote()");
    }

    /// Starts a server that was stopped as a replica of this one, which was its replica and has taken its place.
    pub fn follow(&mut self, new: &Self) {
        fs::write(self.data().join("standby.signal"), "").expect("the folder can be written");
        let settings = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres password={PASSWORD} application_name=former'\n\
             recovery_target_timeline = 'latest'\n",
            new.port
        );
        let file = File::options().append(true).open(self.data().join("postgresql.auto.conf"));
        file.and_then(|mut file| file.write_all(settings.as_bytes())).expect("the folder can be written");
        self.give_home();
        self.up();
    }

    /// Refuses writes in new transactions, as an administrator may ask for, or takes them again.
    pub fn set_read_only(&self, is_read_only: bool) {
        let url = self.url("postgres");
        self.psql(&url, &format!("ALTER SYSTEM SET default_transaction_read_only = {is_read_only}"));
        self.psql(&url, "SELECT pg_reload_conf()");
    }

    fn give_home(&self) {
        if !self.user.is_empty() {
            let owner = format!("{}:", self.user);
            let status = Command::new("chown").args(["-R", &owner]).arg(self.home.path()).status();
            assert!(status.expect("chown runs").success());
        }
    }

    fn init(&self) {
        let password = self.home.path().join("password");
        fs::write(&password, PASSWORD).expect("the folder can be written");
        self.give_home();
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
        assert!(self.child.is_none(), "it is already running");
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

    /// Stops it, as an operator would: sessions end, and all data is written.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Stops it as a crash would: the next start recovers from the log.
    pub fn crash(&mut self) {
        self.end("QUIT");
    }

    /// Ends all its processes at once, as a machine does that loses its power.
    pub fn kill(&mut self) {
        // Else those that are still there see that the first is gone, and end their waits for a replica: others see events
        // that it does not have.
        self.signal("STOP");
        for session in self.sessions() {
            let _ = process::signal_if_alive(session, "KILL");
        }
        self.end("KILL");
    }

    fn end(&mut self, signal: &str) {
        let mut child = self.child.take().expect("it runs");
        self.home.end(&mut child, signal);
    }

    /// Creates an empty database and returns its URL for the superuser.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql(&self.url("postgres"), &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// Copies a database that has no connections, and returns the URL of the copy for the superuser.
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
        self.psql_all(url, &[sql])
    }

    /// Like [`Postgres::psql`], with several commands in one session.
    fn psql_all(&self, url: &str, commands: &[&str]) -> String {
        let output = Command::new(self.tools.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url])
            .args(commands.iter().flat_map(|command| ["-c", command]))
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        assert!(output.status.success(), "{commands:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Writes a database's content into a file with `pg_dump`, and these arguments. It must be of the client programs'
    /// version.
    pub fn dump(&self, url: &str, arguments: &[&str]) -> PathBuf {
        let file = self.home.path().join(format!("{}.sql", self.databases.fetch_add(1, Ordering::Relaxed)));
        let output = Command::new(self.tools.join("pg_dump"))
            .args(arguments)
            .arg("-f")
            .arg(&file)
            .args(["-d", url])
            .stdin(Stdio::null())
            .output()
            .expect("pg_dump runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        file
    }

    /// Runs an SQL file with psql, such as the output of `pg_dump`.
    pub fn restore(&self, url: &str, dump: &Path) {
        let output = Command::new(self.tools.join("psql"))
            .args(["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", url, "-f"])
            .arg(dump)
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The folder of the cluster.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.log()).unwrap_or_default()
    }

    /// PostgreSQL refuses to run as root; then this runs it as another user, in the same process.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
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

    /// Sends a signal to the server's processes, by its name, such as `STOP`: to the first, and to that of each session.
    pub fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
        for session in self.sessions() {
            // A session that ends meanwhile cannot answer anyway.
            let _ = process::signal_if_alive(session, name);
        }
    }

    /// The processes that the first one has started.
    fn sessions(&self) -> Vec<u32> {
        let first = self.pid();
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
        let children = children.expect("Linux tells of children");
        children.split_whitespace().filter_map(|it| it.parse().ok()).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() {
            // Sessions that stand still would keep it.
            self.signal("CONT");
            self.crash();
        }
    }
}
