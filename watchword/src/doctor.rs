//! `doctor`: what is wrong, and what to do about it. Changes nothing.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use axum::http::Method;
use event_store::{Journal, KeyStore, LookupKey, MasterKey, OpenError, Sealer, SqliteJournal};
use read_models::ReadModels;
use serde_json::{Value, json};

use crate::channel::HttpClient;
use crate::config::{Config, ConfigError, KEYS, refuse_world_readable, variable};
use crate::data_dir::{self, State};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Warning,
    Fault,
}

/// What was found, one line each.
#[derive(Default)]
struct Findings(Vec<(Verdict, &'static str, String)>);

impl Findings {
    fn fine(&mut self, about: &'static str, text: impl Into<String>) {
        self.0.push((Verdict::Fine, about, text.into()));
    }

    fn warning(&mut self, about: &'static str, text: impl Into<String>) {
        self.0.push((Verdict::Warning, about, text.into()));
    }

    fn fault(&mut self, about: &'static str, text: impl Into<String>) {
        self.0.push((Verdict::Fault, about, text.into()));
    }

    fn print(&self, as_json: bool) -> anyhow::Result<ExitCode> {
        let faults = self.0.iter().filter(|(verdict, ..)| *verdict == Verdict::Fault).count();
        let mut out = std::io::stdout();
        if as_json {
            let checks: Vec<Value> = self
                .0
                .iter()
                .map(|(verdict, about, text)| {
                    let verdict = match verdict {
                        Verdict::Fine => "ok",
                        Verdict::Warning => "warning",
                        Verdict::Fault => "fault",
                    };
                    json!({ "check": about, "verdict": verdict, "detail": text })
                })
                .collect();
            writeln!(out, "{}", json!({ "ok": faults == 0, "checks": checks }))?;
        } else {
            for (verdict, about, text) in &self.0 {
                let mark = match verdict {
                    Verdict::Fine => "ok     ",
                    Verdict::Warning => "warning",
                    Verdict::Fault => "FAULT  ",
                };
                writeln!(out, "{mark}  {about:<13}  {text}")?;
            }
            match faults {
                0 => writeln!(out, "No faults.")?,
                1 => writeln!(out, "1 fault.")?,
                n => writeln!(out, "{n} faults.")?,
            }
        }
        Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Lists every key of the configuration.
pub fn list_keys(as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    if as_json {
        let keys: Vec<Value> = KEYS
            .iter()
            .map(|key| {
                json!({ "key": key.name, "variable": variable(key.name), "default": key.default, "meaning": key.meaning })
            })
            .collect();
        writeln!(out, "{}", Value::from(keys))?;
        return Ok(ExitCode::SUCCESS);
    }
    for key in KEYS {
        writeln!(out, "{}  ({})", key.name, variable(key.name))?;
        let default =
            if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
        writeln!(out, "    {}{default}", key.meaning)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn run(config: Result<Config, ConfigError>, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    match config {
        Ok(config) => examine(&mut findings, &config).await,
        Err(error) => findings.fault("configuration", error.to_string()),
    }
    findings.print(as_json)
}

async fn examine(findings: &mut Findings, config: &Config) {
    configuration(findings, config);
    let state = match data_dir::inspect(config) {
        Ok(State::Fresh) => {
            findings.fine(
                "data folder",
                format!("{}: no stores yet; the first start makes them", config.data_dir.display()),
            );
            port(findings, config.listen);
            return;
        }
        Ok(State::Present) => data_dir::master_key(config),
        Err(error) => {
            findings.fault("data folder", error.to_string());
            return;
        }
    };
    findings.fine("data folder", config.data_dir.display().to_string());
    key_files(findings, config);
    match state {
        Ok(Some(master_key)) => stores(findings, config, master_key).await,
        Ok(None) => findings.fault("master key", "it is missing: restore it from its backup"),
        // A file that others can read was found above.
        Err(data_dir::DataDirError::Config(_)) => {}
        Err(error) => findings.fault("master key", error.to_string()),
    }
}

fn configuration(findings: &mut Findings, config: &Config) {
    let from = match &config.file {
        Some(file) => format!("{} and the environment", file.display()),
        None => "the environment and defaults; no watchword.toml here".to_owned(),
    };
    findings.fine("configuration", from);
    if !config.limits.enabled {
        findings.warning(
            "rate limits",
            "off: passwords can be guessed fast. Leave rate_limits out unless this is a load test",
        );
    }
    match &config.public_url {
        Some(url) => {
            let local = url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
            if url.scheme() == "http" && !local {
                findings.warning("public_url", format!("{url} is not https: tokens travel readable. Put a TLS proxy in front and name its address"));
            }
        }
        None if !config.listen.ip().is_loopback() => findings.warning(
            "public_url",
            "not set, though the service listens for other machines: tokens will name an issuer they cannot reach. Set public_url",
        ),
        None => {}
    }
}

fn key_files(findings: &mut Findings, config: &Config) {
    let mut look = |about: &'static str, path: &Path| match refuse_world_readable(path) {
        Ok(()) => findings.fine(about, format!("{}, readable by its owner", path.display())),
        Err(error) => findings.fault(about, error.to_string()),
    };
    if config.master_key.is_none() {
        look("master key", &config.master_key_file());
    }
    if config.admin_key_file().exists() {
        look("platform key", &config.admin_key_file());
    }
}

async fn stores(findings: &mut Findings, config: &Config, master_key: MasterKey) {
    let journal = match SqliteJournal::open(&config.journal).await {
        Ok(journal) => journal,
        Err(OpenError::InUse(_)) => {
            findings.fine("journal", format!("{} is in use by a running server", config.journal.display()));
            running(findings, config.listen).await;
            return;
        }
        Err(error) => {
            findings.fault("journal", error.to_string());
            return;
        }
    };
    port(findings, config.listen);
    let Ok(head) = journal.head().await else {
        findings.fault("journal", "it cannot be read: restore it from a backup");
        return;
    };
    findings.fine("journal", format!("{}: {head} events", config.journal.display()));
    match data_dir::require_key_store(config, head) {
        Err(error) => findings.fault("key store", error.to_string()),
        Ok(()) if !config.key_store.exists() => {
            findings.fine("key store", "not there yet; the next start makes it");
        }
        Ok(()) => match KeyStore::open(&config.key_store, &master_key).await {
            Ok(key_store) => {
                findings
                    .fine("key store", format!("{}: opens with the master key", config.key_store.display()));
                read_models(findings, config, key_store, &master_key, head).await;
            }
            Err(error) => findings.fault("key store", error.to_string()),
        },
    }
    journal.close().await;
}

async fn read_models(
    findings: &mut Findings,
    config: &Config,
    key_store: KeyStore,
    master_key: &MasterKey,
    head: u64,
) {
    if !config.read_models.exists() {
        findings.fine("read models", "not there; the next start builds them from the journal");
        return;
    }
    let sealer = Arc::new(Sealer::new(Arc::new(key_store)));
    let lookup = Arc::new(LookupKey::new(master_key));
    let models = match ReadModels::open(&config.read_models, sealer, lookup).await {
        Ok(models) => models,
        Err(error) => {
            findings.fault("read models", error.to_string());
            return;
        }
    };
    for projector in models.projectors() {
        let name = projector.name();
        match models.checkpoint(&*projector).await {
            Ok(checkpoint) if checkpoint == head => findings.fine(name, format!("at event {checkpoint}, as the journal")),
            Ok(checkpoint) if checkpoint < head => findings.fine(
                name,
                format!("at event {checkpoint}; {} events are caught up with at the next start", head - checkpoint),
            ),
            Ok(checkpoint) => findings.fault(
                name,
                format!(
                    "at event {checkpoint}, which the journal does not have: it belongs to another journal. Delete {}; \
                     it is built anew at the next start",
                    config.read_models.display()
                ),
            ),
            Err(error) => findings.fault(name, format!("its checkpoint cannot be read: {error}")),
        }
    }
    models.close().await;
}

/// Asks the server that holds the data folder.
async fn running(findings: &mut Findings, listen: SocketAddr) {
    let host = if listen.ip().is_unspecified() {
        format!("127.0.0.1:{}", listen.port())
    } else {
        listen.to_string()
    };
    let url = format!("http://{host}");
    let asked = async {
        let client = HttpClient::new(url.parse()?)?;
        client.send(Method::GET, "/readyz", None, &[], None).await
    };
    let Ok(answer) = asked.await else {
        findings.warning(
                "server",
                format!("does not answer at {url}. If it listens elsewhere, run this with the same configuration (WATCHWORD_LISTEN)"),
            );
        return;
    };
    if answer.is_success() {
        findings.fine("server", format!("ready at {url}"));
    } else {
        findings.fault("server", format!("answers at {url} but is not ready; its log says why"));
    }
    for projector in answer.json["checks"]["projectors"].as_array().into_iter().flatten() {
        let name = projector["name"].as_str().unwrap_or("?");
        let state = projector["state"].as_str().unwrap_or("?");
        let text =
            format!("{name}: {state}, at event {}, {} behind", projector["position"], projector["lag"]);
        if state == "failed" {
            findings.fault("projector", format!("{text}. The server's log says which event it cannot apply"));
        } else {
            findings.fine("projector", text);
        }
    }
}

fn port(findings: &mut Findings, listen: SocketAddr) {
    match std::net::TcpListener::bind(listen) {
        Ok(_) => findings.fine("listen", format!("{listen} is free")),
        Err(error) => findings.fault(
            "listen",
            format!("cannot listen on {listen}: {error}. Stop what listens there, or set listen (WATCHWORD_LISTEN) to another address"),
        ),
    }
}
