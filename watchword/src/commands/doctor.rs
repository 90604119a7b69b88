//! `doctor`: finds faults and says what to do about them. Changes nothing.

mod cluster;
mod compared;
mod elsewhere;
mod folder;
pub mod future;
#[cfg(feature = "kurrentdb")]
mod kurrentdb;
mod losses;
mod mail;
mod running;
mod signing_keys;
mod stores;
mod whose;
mod witnesses;

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use event_store::sqlite::file::integrity_faults;
use event_store::{Clock, Journal, KeyStore, Repository, Sealer, SystemClock};
use read_models::{Checkpoint, JournalError, ReadModels};
use running::port;
use serde_json::{Value, json};

use self::stores::{in_databases, stores};
use super::{Globals, Output, Run, rotate_master_key, runtime};
use crate::config::{Config, ConfigError, KEYS, file_variable, refuse_world_readable, variable};
use crate::data_dir::{self, State};
use crate::journal_check::{self, AdminCount, RESTORE};
use crate::progress::{self, Progress};
use crate::serving::Serving;
use crate::told::told_of;

/// Check configuration, key files, stores and read models; say what to do about each fault
///
/// Works on a stopped data folder, and reports if a running server holds it. Changes nothing.
#[derive(Debug, Args)]
pub struct Doctor {
    /// List every configuration key with its default and meaning, and check nothing
    #[arg(long)]
    keys: bool,
    #[command(flatten)]
    output: Output,
}

impl Run for Doctor {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        if self.keys {
            return list_keys(self.output.json);
        }
        // Without a log: its findings are all it prints.
        runtime()?.block_on(run(globals.config(), self.output.json))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Warning,
    Fault,
}

/// The findings, one line each.
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

    fn tell_of(&self, about: &str) -> bool {
        self.0.iter().any(|(_, of, _)| *of == about)
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
fn list_keys(as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    if as_json {
        let keys: Vec<Value> = KEYS
            .iter()
            .map(|key| {
                json!({
                    "key": key.name,
                    "variable": variable(key.name),
                    "file_variable": file_variable(key.name),
                    "default": key.default,
                    "meaning": key.meaning,
                })
            })
            .collect();
        writeln!(out, "{}", Value::from(keys))?;
        return Ok(ExitCode::SUCCESS);
    }
    for key in KEYS {
        let file =
            file_variable(key.name).map(|file| format!(", or from a file: {file}")).unwrap_or_default();
        writeln!(out, "{}  ({}{file})", key.name, variable(key.name))?;
        let default =
            if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
        writeln!(out, "    {}{default}", key.meaning)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run(config: Result<Config, ConfigError>, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    match config {
        Ok(config) => {
            examine(&mut findings, &config).await;
            // Whatever prevented a look at the stores is no reason to skip NATS.
            if let Some(nats) = &config.nats
                && !findings.tell_of("NATS")
            {
                elsewhere::bus(&mut findings, nats).await;
            }
        }
        Err(error) => findings.fault("configuration", error.to_string()),
    }
    findings.print(as_json)
}

async fn examine(findings: &mut Findings, config: &Config) {
    configuration(findings, config).await;
    elsewhere::examine(findings, config).await;
    folder::examine(findings, config);
    let state = match data_dir::inspect(config) {
        Ok(State::Fresh) => {
            no_stores(findings, config);
            port(findings, config.listen);
            return;
        }
        Ok(State::Present) => data_dir::master_key(config),
        Err(error) => {
            findings.fault("data folder", error.to_string());
            // A server may still have open what is no longer there.
            if let Some(Serving { instance, address }) = Serving::read(&config.data_dir) {
                running::running(findings, config, Some(address), Some(&instance)).await;
            }
            return;
        }
    };
    findings.fine("data folder", config.data_dir.display().to_string());
    key_files(findings, config);
    match state {
        Ok(Some(master_key)) if let Some(databases) = &config.databases => {
            in_databases(findings, config, databases, &master_key).await;
        }
        Ok(Some(master_key)) => stores(findings, config, master_key).await,
        Ok(None) => findings.fault("master key", "missing: restore it from its backup"),
        // A file that others can read was reported above.
        Err(data_dir::DataDirError::Config(_)) => {}
        Err(error) => findings.fault("master key", error.to_string()),
    }
}

/// Where our packages and units put the data folder.
const USUAL_FOLDERS: [&str; 4] = [
    "/var/lib/watchword",
    "/var/lib/private/watchword",
    "/var/lib/watchword-commands",
    "/var/lib/watchword-projections",
];

/// There are no stores in this folder. It may be the wrong one: the operator's own instead of the service's.
fn no_stores(findings: &mut Findings, config: &Config) {
    let folder = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let shown = folder.display();
    if config.names_data_dir {
        findings.fine("data folder", format!("{shown}: no stores yet; the first start creates them"));
        return;
    }
    // As far as this user can see.
    let service = USUAL_FOLDERS.map(Path::new).into_iter().find(|usual| usual.is_dir() && *usual != folder);
    let other = match service {
        Some(usual) => format!(
            "{} is there: to look at that one, run `watchword doctor --data {}` as root or as the service's user, with the service's \
             other settings (--config, or its environment)",
            usual.display(),
            usual.display()
        ),
        None => "If a service runs here, name its folder (--data, WATCHWORD_DATA_DIR or data_dir) and give this command its other \
                 settings (--config, or its environment)"
            .to_owned(),
    };
    findings.warning(
        "data folder",
        format!("{shown}, below the current folder because no other is configured: no stores yet; the first start creates them. {other}"),
    );
}

async fn configuration(findings: &mut Findings, config: &Config) {
    let from = match &config.file {
        Some(file) => format!("{} and the environment", file.display()),
        None => "the environment and defaults; no watchword.toml here".to_owned(),
    };
    findings.fine("configuration", from);
    if !config.limits.enabled {
        findings.warning(
            "rate limits",
            "off: passwords can be guessed quickly. Leave rate_limits out unless this is a load test",
        );
    }
    mail::address(findings, config).await;
    witnesses::examine(findings, config).await;
    match &config.public_url {
        Some(url) if url.scheme() == "http" && !url.is_local() => findings.warning("public_url", format!("{url} is not https: tokens travel unencrypted. Put a TLS proxy in front and set its address here")),
        None if !config.listen.ip().is_loopback() => findings.warning(
            "public_url",
            "not set, although the service accepts connections from other machines: tokens will name an issuer they cannot reach. Set public_url",
        ),
        Some(_) | None => {}
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

/// Reads every page of a file.
async fn pages(findings: &mut Findings, about: &'static str, path: &Path, remedy: &str) {
    let reading = progress::reading(path);
    let faults = integrity_faults(path).await;
    reading.finish_and_clear();
    match faults {
        Ok(faults) if faults.is_empty() => findings.fine(about, "every page of its file is intact"),
        Ok(faults) => findings.fault(about, format!("its file is damaged: {}. {remedy}", faults.join("; "))),
        Err(error) => findings.fault(about, format!("its file cannot be read: {error}. {remedy}")),
    }
}

/// Reads every event.
async fn events(
    findings: &mut Findings,
    config: &Config,
    journal: Arc<dyn Journal>,
    key_store: Arc<KeyStore>,
    head: u64,
) {
    losses::examine(findings, &*journal, SystemClock.now()).await;
    let repository = Arc::new(Repository::new(journal, Arc::new(Sealer::new(key_store)), 1));
    let progress = Progress::start(head);
    let at = |done, position| progress.at(done, position);
    let report = journal_check::check(&repository, SystemClock.now(), None, at).await;
    progress.end();
    signing_keys::examine(findings, &repository, SystemClock.now()).await;
    match report {
        Ok(report) => {
            report.future.tell(findings, config.lockout.longest_lock);
            for fault in &report.faults {
                findings.fault("events", format!("{fault}. {RESTORE}"));
            }
            mail::passed_over(findings, &report.unsent_mails);
            for AdminCount { app_id, role, admins, older } in &report.admins {
                let mut text = format!("app {app_id}: {admins} with the role {role}, which controls the app");
                if *older > 0 {
                    let _ = write!(
                        text,
                        "; {older} had it before the app named it, and are no admins until it is granted again"
                    );
                }
                findings.fine("admins", text);
            }
            if report.more > 0 {
                findings.fault("events", format!("{} more faults of this kind", report.more));
            }
            if report.faults.is_empty() {
                findings.fine(
                    "events",
                    format!(
                        "{} in {} streams: no gap, every one can be read, its sealed part opened (persons erased: {}), \
                         and the claims and {} snapshots are theirs",
                        report.events, report.streams, report.erased, report.snapshots
                    ),
                );
            }
        }
        Err(error) => findings.fault("events", format!("{error}. {RESTORE}")),
    }
}

async fn read_models(findings: &mut Findings, config: &Config, journal: &dyn Journal) {
    let file = config.read_models.file();
    if file.is_some_and(|path| !path.exists()) {
        findings.fine("read models", "absent; the next start builds them from the journal");
        return;
    }
    let what = match file {
        Some(path) => format!("delete {0}, {0}-wal and {0}-shm", path.display()),
        None => "drop the schema watchword_read".to_owned(),
    };
    let remedy = format!(
        "Stop the server and {what}: they hold derived data only, and the next start rebuilds them from the journal"
    );
    let checkpoints = match ReadModels::look(&config.read_models).await {
        Ok(checkpoints) => checkpoints,
        Err(error) => {
            findings.fault("read models", told_of(&error));
            return;
        }
    };
    match ReadModels::files(&config.read_models).await {
        Ok(files) => {
            for path in files {
                pages(findings, "read models", &path, &remedy).await;
            }
        }
        Err(error) => findings.fault("read models", told_of(&error)),
    }
    let head = match journal.head().await {
        Ok(head) => head,
        Err(error) => {
            findings.fault("journal", format!("{error}. {RESTORE}"));
            return;
        }
    };
    match (file, checkpoints.is_empty()) {
        (None, true) => findings.fine("read models", "absent; the first projection node builds them"),
        (None, false) => cluster::projectors(findings, config, head).await,
        (Some(_), _) => {}
    }
    for checkpoint in checkpoints {
        let Checkpoint { projector, position, .. } = &checkpoint;
        match checkpoint.check_journal(journal).await {
            // Their positions were reported above.
            Ok(()) if file.is_none() => {}
            Ok(()) if *position == head => {
                findings.fine("read models", format!("{projector} is at event {position}, like the journal"));
            }
            Ok(()) => findings.fine(
                "read models",
                format!(
                    "{projector} is at event {position}; it applies the remaining {} events at the next start",
                    head - position
                ),
            ),
            Err(JournalError::Other { .. }) => findings.fault(
                "read models",
                format!(
                    "{projector} was built from another journal, or the journal went back: event {position}, the last it has \
                     applied, is not the one that this journal has there. Put back the journal it belongs to; or, if this is \
                     the right one, just start the server, which fills the read model anew, and see \u{ab}Restoring\u{bb} in \
                     deploy/README.md: what was acknowledged after the journal's end is lost"
                ),
            ),
            Err(JournalError::Journal(error)) => {
                findings.fault("read models", format!("{projector} cannot be compared with the journal: {error}. {RESTORE}"));
            }
        }
    }
}
