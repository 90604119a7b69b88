//! A server of the tests: a process of the real binary with a data directory, and the requests to it.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{self, App, Call};
use crate::{PATIENCE, binary, files_under, until, workspace};

/// How long a server may take to stop after SIGTERM: its own limit is 10 s.
const STOP: Duration = Duration::from_secs(15);

/// A server and its data directory.
pub struct Server {
    child: Option<Child>,
    root: TempDir,
    port: u16,
    environment: Vec<(String, String)>,
    /// The role, if it has only one.
    role: Option<String>,
    /// The node that answers queries, if this one does not.
    projections: Option<Box<Server>>,
    client: reqwest::Client,
    starts: u32,
    apps: AtomicU64,
    /// Where its output goes, if not to a file of the harness.
    output: Option<Output>,
    panics: bool,
}

/// Where a server's standard output and error go.
pub enum Output {
    /// Nowhere: both are closed.
    Closed,
    /// There, which is asked for at each start.
    To(Box<dyn Fn() -> Stdio + Send + Sync>),
}

impl Server {
    /// Starts a server without rate limits: all requests of a test come from one address.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with these additional environment variables.
    pub async fn start_with(environment: &[(&str, &str)]) -> Self {
        let mut server = Self::new(environment);
        server.up().await;
        server
    }

    /// Starts a process of one role, `commands` or `projections`.
    pub async fn start_role(role: &str, environment: &[(&str, &str)]) -> Self {
        let mut server = Self::new_role(role, environment);
        server.up().await;
        server
    }

    /// A process of one role that is not yet running.
    pub fn new_role(role: &str, environment: &[(&str, &str)]) -> Self {
        let mut server = Self::new(environment);
        server.role = Some(role.to_owned());
        server
    }

    /// Starts a process of each role. Queries go to the projections, as with `deploy/proxy`.
    pub async fn start_roles(environment: &[(&str, &str)]) -> Self {
        let mut commands = Self::start_role("commands", environment).await;
        commands.projections = Some(Box::new(Self::start_role("projections", environment).await));
        commands
    }

    /// A server that is not yet running.
    pub fn new(environment: &[(&str, &str)]) -> Self {
        Self {
            child: None,
            root: TempDir::with_prefix("watchword-test-").expect("a temporary directory can be made"),
            port: free_port(),
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            role: None,
            projections: None,
            client: client::new(),
            starts: 0,
            apps: AtomicU64::new(0),
            output: None,
            panics: false,
        }
    }

    /// The node that answers the queries.
    pub fn projections(&self) -> &Self {
        self.projections.as_deref().unwrap_or(self)
    }

    /// The node that answers the queries.
    pub fn projections_mut(&mut self) -> &mut Self {
        if self.projections.is_none() {
            return self;
        }
        self.projections.as_mut().expect("there is one")
    }

    /// Starts or restarts the server, on the same data directory and port, and waits until it is ready.
    pub async fn up(&mut self) {
        self.up_until("/readyz").await;
    }

    /// Starts the server, and waits only until it answers.
    pub async fn up_alive(&mut self) {
        self.up_until("/healthz").await;
    }

    /// Starts the server, and waits until its stores are open, whatever is wrong with their content.
    pub async fn up_open(&mut self) {
        self.up_alive().await;
        let deadline = Instant::now() + PATIENCE;
        while self.get("/readyz").await.text.contains(r#""state":"waiting""#) {
            assert!(Instant::now() < deadline, "the stores are not open; the server's log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn up_until(&mut self, probe: &str) {
        assert!(self.child.is_none(), "the server is already running");
        // Build before the timeout starts: on a loaded machine that takes longer than any start.
        binary();
        let deadline = Instant::now() + PATIENCE;
        self.spawn();
        loop {
            if self.succeeds(probe).await {
                return;
            }
            let ended =
                self.child.as_mut().expect("it was spawned").try_wait().expect("it can be waited for");
            if let Some(status) = ended {
                // Another program may have taken the port since it was found free: at the first start, try another.
                if self.starts == 1 && Instant::now() < deadline && self.log().contains("in use") {
                    self.port = free_port();
                    self.starts = 0;
                    self.spawn();
                    continue;
                }
                panic!("the server ended with {status}; its log:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the server is not ready; its log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the log says something. A thread of its own writes it, a little after what it tells of.
    pub async fn says(&self, what: &str) {
        until(&format!("the log says {what:?}"), async || self.log().contains(what)).await;
    }

    /// Whether the process answers.
    pub async fn is_alive(&self) -> bool {
        self.succeeds("/healthz").await
    }

    async fn succeeds(&self, probe: &str) -> bool {
        self.client.get(self.url(probe)).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// The command, started by another program.
    fn started_by(&self, starter: &[&str], command: &Command) -> Command {
        let mut wrapped = Command::new(starter[0]);
        wrapped.args(&starter[1..]).arg(command.get_program());
        wrapped.args(command.get_args()).current_dir(self.root.path());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    }

    fn spawn(&mut self) {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.log_path());
        let file = file.expect("the log file can be opened");
        let log = || match &self.output {
            Some(Output::To(output)) => output(),
            _ => file.try_clone().expect("a file handle can be cloned").into(),
        };
        let arguments: Vec<&str> = ["serve"].into_iter().chain(self.role.as_deref()).collect();
        let mut command = self.command(&arguments);
        if matches!(self.output, Some(Output::Closed)) {
            // Only a shell can start a program with them closed.
            command = self.started_by(&["sh", "-c", r#"exec "$0" "$@" >&- 2>&-"#], &command);
        } else if ignores_hangup() {
            // A test may run under `nohup`; the server would then ignore the signal, too.
            command = self.started_by(&["env", "--default-signal=HUP"], &command);
        }
        let child = command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn();
        self.child = Some(child.expect("the server can be started"));
        self.starts += 1;
    }

    /// Another command of the binary, with this server's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("WATCHWORD_")) {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(self.root.path())
            .env("WATCHWORD_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("WATCHWORD_PUBLIC_URL", self.base())
            .env("WATCHWORD_DATA_DIR", self.data())
            .env("WATCHWORD_RATE_LIMITS", "off")
            .env("WATCHWORD_LOG_FORMAT", "json")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Sets an environment variable for the next start.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Its log may tell of panics, which a test has caused.
    pub fn expect_panics(&mut self) {
        self.panics = true;
    }

    /// Sends standard output and error elsewhere from the next start on. [`Server::log`] does not have them then.
    pub fn set_output(&mut self, output: Output) {
        self.output = Some(output);
    }

    /// Ends the process as a power loss would, without a chance to clean up.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().expect("the server can be killed");
        child.wait().expect("the server can be waited for");
    }

    /// Asks the process to stop, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits until the process, which was asked to stop, has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = child.try_wait().expect("the server can be waited for") {
                return status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("the server did not stop within {STOP:?} of SIGTERM");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a signal by its name, such as `STOP`, whatever else runs.
    pub fn signal(&self, name: &str) {
        test_services::signal(self.pid(), name);
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// `http://127.0.0.1:<port>`.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base())
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.environment_value("WATCHWORD_DATA_DIR")
            .map_or_else(|| self.root.path().join("data"), PathBuf::from)
    }

    /// The location of its read models: the path of a file, or a `postgres:` URL.
    pub fn read_models(&self) -> String {
        let set = |name| self.environment_value(name).filter(|it| !it.is_empty());
        let beside_the_journal = set("WATCHWORD_JOURNAL_URL").filter(|it| it.starts_with("postgres:"));
        match set("WATCHWORD_READ_MODELS_URL").or(beside_the_journal) {
            Some(url) => url.strip_prefix("sqlite:").unwrap_or(url).to_owned(),
            None => self.data().join("read-models.db").display().to_string(),
        }
    }

    fn environment_value(&self, name: &str) -> Option<&str> {
        self.environment.iter().rev().find(|(set, _)| set == name).map(|(_, value)| value.as_str())
    }

    /// The server's standard output and error, over all its starts.
    pub fn log(&self) -> String {
        match fs::read(self.log_path()) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => panic!("the log cannot be read: {error}"),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.root.path().join("server.log")
    }

    /// Every file that the server has written: its data directory and its log.
    pub fn stored_bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files_under(self.root.path())
    }

    /// The platform's first API key.
    pub fn platform_key(&self) -> String {
        let path = self.data().join("admin.key");
        fs::read_to_string(&path).expect("the first start writes admin.key").trim().to_owned()
    }

    /// The platform's view of readiness.
    pub fn readiness(&self) -> Call {
        self.get("/readyz").bearer(&self.platform_key())
    }

    /// The metrics.
    pub async fn metrics(&self) -> String {
        self.get("/metrics").bearer(&self.platform_key()).await.expect(200).text
    }

    /// A GET.
    pub fn get(&self, path: impl AsRef<str>) -> Call {
        self.call(reqwest::Method::GET, path)
    }

    /// A POST.
    pub fn post(&self, path: impl AsRef<str>) -> Call {
        self.call(reqwest::Method::POST, path)
    }

    /// A PATCH.
    pub fn patch(&self, path: impl AsRef<str>) -> Call {
        self.call(reqwest::Method::PATCH, path)
    }

    /// A PUT.
    pub fn put(&self, path: impl AsRef<str>) -> Call {
        self.call(reqwest::Method::PUT, path)
    }

    /// A DELETE.
    pub fn delete(&self, path: impl AsRef<str>) -> Call {
        self.call(reqwest::Method::DELETE, path)
    }

    /// A request.
    pub fn call(&self, method: reqwest::Method, path: impl AsRef<str>) -> Call {
        let path = path.as_ref();
        let node = if method == reqwest::Method::GET && is_query(path) { self.projections() } else { self };
        Call::new(self.client.request(method, node.url(path)))
    }

    /// The client itself, for a request that [`Call`] cannot make.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Creates an app with these settings and a new id.
    pub async fn create_app(&self, settings: Value) -> App<'_> {
        let id = format!("app-{}", self.apps.fetch_add(1, Ordering::Relaxed) + 1);
        self.post("/v1/apps")
            .bearer(&self.platform_key())
            .json(&json!({"app_id": id, "name": format!("The app {id}"), "settings": settings}))
            .await
            .expect(201);
        App::new(self, id)
    }

    /// An existing app.
    pub fn app(&self, id: &str) -> App<'_> {
        App::new(self, id.to_owned())
    }

    /// The app of a new installation.
    pub fn default_app(&self) -> App<'_> {
        App::new(self, "default".to_owned())
    }

    /// The names of all read models, as this node lists them.
    pub async fn names_of_read_models(&self, platform_key: &str) -> Vec<String> {
        let all = self.get("/v1/projections").bearer(platform_key).await.expect(200).json();
        let items = all["items"].as_array().expect("a list has items");
        items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Every event of the log, in order, read in pages as by an analytics consumer.
    pub async fn events(&self) -> Vec<Value> {
        let key = self.platform_key();
        let mut events: Vec<Value> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event["position"].as_u64().expect("a position"));
            let page =
                self.get(format!("/v1/events?after={after}&limit=200")).bearer(&key).await.expect(200).json();
            let items = page["items"].as_array().expect("a list has items").clone();
            if items.is_empty() {
                return events;
            }
            events.extend(items);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the end of the server's log:\n{}", tail(&self.log(), 40));
        } else if !self.panics {
            let log = self.log();
            assert!(!log.contains("panicked at"), "the server panicked:\n{}", tail(&log, 40));
        }
    }
}

/// Whether a GET of this path asks a read model or the feed: as the rules of the proxy have it, which are tested against the
/// routes.
fn is_query(path: &str) -> bool {
    static RULES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
        let file = workspace().join("deploy/proxy/nginx.conf");
        let text = fs::read_to_string(file).expect("the configuration of the proxy");
        let rules = text.lines().filter_map(|line| line.trim().strip_suffix("\" watchword_projections;"));
        let rules = rules.map(|rule| Regex::new(rule.trim_start_matches("\"~")).expect("a rule"));
        let rules: Vec<_> = rules.collect();
        assert!(!rules.is_empty(), "the proxy knows no queries");
        rules
    });
    let path = path.split('?').next().expect("there is a first part");
    RULES.iter().any(|rule| rule.is_match(&format!("GET {path}")))
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A free port, below the range that the kernel uses for outgoing connections, of which tests make many.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + u16::try_from(std::process::id() % 200).expect("less than 200") * 100;
    (0..20_000)
        .map(|_| 10_000 + (start - 10_000 + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("some port is free")
}

/// Whether this process ignores SIGHUP, and so all that it starts.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
