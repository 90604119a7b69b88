use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::{binary, client, free_port, until};

/// A process `watchword witness`, with a folder of its own.
pub struct Witness {
    name: String,
    folder: TempDir,
    port: u16,
    logs: Vec<String>,
    environment: Vec<(String, String)>,
    client: reqwest::Client,
    child: Option<Child>,
}

/// What a witness answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The status code.
    pub status: u16,
    /// The type of the body.
    pub kind: String,
    /// The body.
    pub text: String,
}

impl Asked {
    /// Fails unless the status is this one.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "the check is useful without the return value")]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Fails unless it says that the newest checkpoint has this size.
    #[track_caller]
    pub fn conflict(self, size: u64) {
        let expected = Self { status: 409, kind: "text/x.tlog.size".to_owned(), text: format!("{size}\n") };
        assert_eq!(self, expected);
    }
}

impl Witness {
    /// A witness of the logs with these keys that is not yet running.
    pub fn new(logs: &[&str]) -> Self {
        Self::named("witness.example/w1", logs)
    }

    /// The same with another name.
    pub fn named(name: &str, logs: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            folder: TempDir::with_prefix("watchword-witness-").expect("a temporary directory can be made"),
            port: free_port(),
            logs: logs.iter().map(|log| (*log).to_owned()).collect(),
            environment: Vec::new(),
            client: client::new(),
            child: None,
        }
    }

    /// Starts a witness of the logs with these keys.
    pub async fn start(logs: &[&str]) -> Self {
        let mut witness = Self::new(logs);
        witness.up().await;
        witness
    }

    /// Starts the process, and waits until it answers.
    pub async fn up(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder().join("witness.log"));
        let log = log.expect("the log file can be opened");
        let output = || Stdio::from(log.try_clone().expect("a file handle can be cloned"));
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(output()).stderr(output());
        self.child = Some(command.spawn().expect("the witness can be started"));
        let address = self.url("/");
        let client = self.client.clone();
        until("the witness answers", async || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("it can be waited for"));
            assert!(ended.is_none(), "the witness did not start:\n{}", self.log());
            // What it prints may come a little later.
            self.log().contains("witness key: ") && client.get(&address).send().await.is_ok()
        })
        .await;
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .args(["witness", "--listen", &format!("127.0.0.1:{}", self.port), "--name", &self.name])
            .arg("--key-file")
            .arg(self.key_file())
            .arg("--state-file")
            .arg(self.state_file())
            .args(self.logs.iter().flat_map(|log| ["--log", log]))
            .current_dir(self.folder())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it where it is to refuse, and returns what it said.
    #[track_caller]
    pub fn refused(&self) -> String {
        let output = self.command().output().expect("the binary runs");
        let Output { status, stdout, stderr } = output;
        let text = [stdout, stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(status.code(), Some(1), "{text}");
        text
    }

    /// From the next start on, it is a witness of the logs with these keys.
    pub fn set_logs(&mut self, logs: &[&str]) {
        self.logs = logs.iter().map(|log| (*log).to_owned()).collect();
    }

    /// Sets an environment variable for the next start.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Ends the process as a power loss would, without a chance to clean up.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the witness runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) {
        let mut child = self.child.take().expect("the witness runs");
        until("the witness has ended", async || child.try_wait().expect("it can be waited for").is_some())
            .await;
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the witness runs").id()
    }

    /// Its public key, as the first start printed it.
    pub fn vkey(&self) -> String {
        let log = self.log();
        let line = log.lines().find_map(|line| line.strip_prefix("witness key: "));
        line.unwrap_or_else(|| panic!("it prints its key: {log}")).to_owned()
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Its own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file with its key.
    pub fn key_file(&self) -> PathBuf {
        self.folder().join("witness.key")
    }

    /// The file with what it remembers.
    pub fn state_file(&self) -> PathBuf {
        self.folder().join("witness.json")
    }

    /// Its output over all starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("witness.log")).unwrap_or_default()
    }

    /// Asks it to sign a checkpoint. After an error, such as its end, it is unknown what it did.
    pub async fn attempt(&self, body: impl Into<reqwest::Body>) -> Result<Asked, reqwest::Error> {
        read(self.client.post(self.url("/add-checkpoint")).body(body).send().await?).await
    }

    /// Asks it to sign a checkpoint.
    pub async fn add(&self, body: impl Into<reqwest::Body>) -> Asked {
        self.attempt(body).await.expect("the witness answers")
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> Asked {
        let response = self.client.get(self.url(path)).send().await.expect("the witness answers");
        read(response).await.expect("the witness answers")
    }
}

async fn read(response: reqwest::Response) -> Result<Asked, reqwest::Error> {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_owned();
    Ok(Asked { status, kind, text: response.text().await? })
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the witness's log:\n{log}");
        } else {
            assert!(!log.contains("panicked at"), "the witness panicked:\n{log}");
        }
    }
}
