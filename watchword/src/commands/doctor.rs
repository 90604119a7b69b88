//! `doctor`: what is wrong, and what to do about it. Changes nothing.

use clap::Args;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use event_store::sqlite::file::integrity_faults;
use event_store::{
    Clock, Journal, JournalLock, KeyStore, MasterKey, MessageKey, OpenError, Repository, Sealer,
    SqliteJournal, SystemClock,
};
use read_models::{Checkpoint, JournalError, ReadModels};
use serde_json::{Value, json};

use super::{Globals, Output, Run, rotate_master_key, runtime};
use crate::config::{Config, ConfigError, KEYS, file_variable, refuse_world_readable, variable};
use crate::data_dir::{self, State};
use crate::databases::{Databases, will_do};
use crate::journal_check;
use crate::progress::{self, Progress};
use crate::serving::Serving;
use crate::told::{told, told_of};

mod cluster;
mod compared;
mod elsewhere;
mod folder;
pub mod future;
#[cfg(feature = "kurrentdb")]
mod kurrentdb;
mod mail;
mod running;
mod whose;

use running::{port, running};

/// Check configuration, key files, stores and read models; say what to do about each fault
///
/// Works on a stopped data folder, and says so when a running server holds it. Changes nothing.
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
        // Without a log: what it finds is all that it prints.
        runtime()?.block_on(run(globals.config(), self.output.json))
    }
}

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
            // Whatever kept the stores from being looked at is no reason not to look there.
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
        Ok(None) => findings.fault("master key", "it is missing: restore it from its backup"),
        // A file that others can read was found above.
        Err(data_dir::DataDirError::Config(_)) => {}
        Err(error) => findings.fault("master key", error.to_string()),
    }
}

/// Where packages and units of ours put the data folder.
const USUAL_FOLDERS: [&str; 4] = [
    "/var/lib/watchword",
    "/var/lib/private/watchword",
    "/var/lib/watchword-commands",
    "/var/lib/watchword-projections",
];

/// There are none in the folder that was looked at, which may be the wrong one: an operator's own, beside a service's.
fn no_stores(findings: &mut Findings, config: &Config) {
    let folder = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let shown = folder.display();
    if config.names_data_dir {
        findings.fine("data folder", format!("{shown}: no stores yet; the first start makes them"));
        return;
    }
    // As far as this user may see.
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
        format!("{shown}, below the current folder as nobody named another: no stores yet; the first start makes them. {other}"),
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
            "off: passwords can be guessed fast. Leave rate_limits out unless this is a load test",
        );
    }
    mail::address(findings, config).await;
    match &config.public_url {
        Some(url) if url.scheme() == "http" && !url.is_local() => findings.warning("public_url", format!("{url} is not https: tokens travel readable. Put a TLS proxy in front and name its address")),
        None if !config.listen.ip().is_loopback() => findings.warning(
            "public_url",
            "not set, though the service listens for other machines: tokens will name an issuer they cannot reach. Set public_url",
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

/// Looks at the stores under the journal's lock, so that no server starts on them meanwhile.
async fn stores(findings: &mut Findings, config: &Config, master_key: MasterKey) {
    let lock = match JournalLock::take(&config.journal) {
        Ok(lock) => lock,
        Err(OpenError::InUse(_)) => {
            findings.fine("journal", format!("{} is in use by a running server", config.journal.display()));
            let serving = Serving::read(&config.data_dir);
            let address = serving.as_ref().map(|serving| serving.address);
            let instance = serving.as_ref().map(|serving| serving.instance.as_str());
            running(findings, config, address, instance).await;
            return;
        }
        Err(error) => {
            findings.fault("journal", error.to_string());
            return;
        }
    };
    port(findings, config.listen);
    let head = match lock.head().await {
        Ok(Some(head)) => head,
        Ok(None) => {
            findings.fault("journal", format!("{} is not there. {RESTORE}", config.journal.display()));
            return;
        }
        Err(error) => {
            findings.fault("journal", error.to_string());
            return;
        }
    };
    findings.fine("journal", format!("{}: {head} events", config.journal.display()));
    pages(findings, "journal", &config.journal, RESTORE).await;
    if let Err(error) = data_dir::require_key_store(config, head) {
        findings.fault("key store", error.to_string());
        return;
    }
    if !config.key_store.exists() {
        findings.fine("key store", "not there yet; the next start makes it");
        return;
    }
    let master_key = match rotate_master_key::opening(config, master_key).await {
        Ok((master_key, rotated)) => {
            if rotated {
                findings.warning("master key", "its rotation was cut short; the next start completes it");
            }
            master_key
        }
        Err(error) => {
            findings.fault("key store", error.to_string());
            return;
        }
    };
    let key_store = match KeyStore::look(&config.key_store, &master_key).await {
        Ok(key_store) => Arc::new(key_store),
        Err(error) => {
            findings.fault("key store", error.to_string());
            return;
        }
    };
    findings.fine("key store", format!("{}: opens with the master key", config.key_store.display()));
    pages(findings, "key store", &config.key_store, RESTORE).await;
    if !key_store.is_marked() {
        findings.warning(
            "journal",
            "its events carry checksums, which prove nothing; the next start gives them MACs",
        );
    }
    let journal: Arc<dyn Journal> = match SqliteJournal::look(&lock, &key_store.macs()).await {
        Ok(journal) => Arc::new(journal),
        Err(error) => {
            findings.fault("journal", error.to_string());
            return;
        }
    };
    read_models(findings, config, &*journal).await;
    mail::failures(findings, &*journal).await;
    mail::senders(findings, config, &*journal).await;
    match &config.nats {
        Some(nats) if head > 0 => {
            let key = MessageKey::new(key_store.instance_key());
            cluster::stream(findings, nats, Arc::clone(&journal), key).await;
        }
        Some(_) | None => {}
    }
    events(findings, config, Arc::clone(&journal), Arc::clone(&key_store), head).await;
    compared::read_models(findings, config, journal, key_store, head).await;
}

/// Looks at stores that other nodes may be using meanwhile.
async fn in_databases(
    findings: &mut Findings,
    config: &Config,
    databases: &Databases,
    master_key: &MasterKey,
) {
    let is_free = std::net::TcpListener::bind(config.listen).is_ok();
    if is_free {
        findings.fine("listen", format!("{} is free", config.listen));
    }
    cluster::servers(findings, config, databases).await;
    let found = match databases.look().await {
        Ok(found) => found,
        Err(error) => {
            findings.fault("databases", told(&error));
            return;
        }
    };
    if let Err(error) = databases.check_has_macs(&found, master_key).await {
        findings.fault("journal", told(&error));
        return;
    }
    let mut complete = true;
    let stores = [
        ("journal", databases.journal.to_string(), found.journal),
        ("key store", databases.key_store.to_string(), Some(found.key_store)),
    ];
    for (about, url, migrated) in stores {
        if let Some(migrated) = migrated
            && migrated.from < migrated.to
        {
            complete = false;
            let will = will_do(migrated);
            findings.warning(
                about,
                format!("{url}: is {will} by `watchword migrate`, or the next start by its owner"),
            );
        }
    }
    if !complete {
        return;
    }
    match databases.is_marked(master_key).await {
        Ok(true) => {}
        Ok(false) => {
            findings.warning(
                "journal",
                format!(
                    "{}: its events carry checksums, which prove nothing. `watchword migrate` gives them MACs; until then \
                     no node opens it",
                    databases.journal
                ),
            );
            return;
        }
        Err(error) => {
            findings.fault("key store", told(&error));
            return;
        }
    }
    // Everything is there: opening changes nothing.
    let folder = match temporary_folder(config, databases) {
        Ok(folder) => folder,
        Err(fault) => {
            findings.fault("databases", fault);
            return;
        }
    };
    let place = folder.as_ref().map_or(config.data_dir.as_path(), tempfile::TempDir::path);
    match databases.to_look(place).open(master_key).await {
        Ok((journal, key_store)) => {
            if !is_free {
                let instance = key_store.instance_key().public_id();
                running(findings, config, None, Some(&instance)).await;
            }
            let head = match journal.head().await {
                Ok(head) => head,
                Err(error) => {
                    findings.fault("journal", format!("{}: {error}", databases.journal));
                    return;
                }
            };
            findings.fine("journal", format!("{}: {head} events", databases.journal));
            findings.fine("key store", format!("{}: opens with the master key", databases.key_store));
            cluster::rights(findings, databases).await;
            read_models(findings, config, &*journal).await;
            if let Some(nats) = &config.nats {
                let key = MessageKey::new(key_store.instance_key());
                cluster::stream(findings, nats, journal.clone(), key).await;
            }
            mail::failures(findings, &*journal).await;
            mail::senders(findings, config, &*journal).await;
            events(findings, config, journal.clone(), key_store.clone(), head).await;
            compared::read_models(findings, config, journal.clone(), key_store.clone(), head).await;
            journal.close().await;
            key_store.close().await;
        }
        Err(error) => findings.fault("databases", told(&error)),
    }
}

/// Where somebody who only looks keeps what a node keeps for itself: below the data folder, as there may be no other place that can
/// be written. Nothing, where nothing is kept.
fn temporary_folder(config: &Config, databases: &Databases) -> Result<Option<tempfile::TempDir>, String> {
    if !databases.keeps_a_replica() {
        return Ok(None);
    }
    data_dir::create(&config.data_dir).map_err(|error| error.to_string())?;
    let made = tempfile::Builder::new().prefix(".doctor-").tempdir_in(&config.data_dir);
    made.map(Some)
        .map_err(|error| format!("{} is no place for temporary files: {error}", config.data_dir.display()))
}

const RESTORE: &str = "Stop the server, keep a copy of the data folder, and restore journal.db and keys.db from a \
    backup of the same moment, then run this again";

/// Reads every page of a file.
async fn pages(findings: &mut Findings, about: &'static str, path: &Path, remedy: &str) {
    let reading = progress::reading(path);
    let faults = integrity_faults(path).await;
    reading.finish_and_clear();
    match faults {
        Ok(faults) if faults.is_empty() => findings.fine(about, "every page of its file is as it should be"),
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
    let repository = Repository::new(journal, Arc::new(Sealer::new(key_store)), 1);
    let progress = Progress::start(head);
    let report =
        journal_check::check(&repository, SystemClock.now(), |done, position| progress.at(done, position))
            .await;
    progress.end();
    match report {
        Ok(report) => {
            report.future.tell(findings, config.lockout.longest_lock);
            for fault in &report.faults {
                findings.fault("events", format!("{fault}. {RESTORE}"));
            }
            mail::passed_over(findings, &report.unsent_mails);
            if report.more > 0 {
                findings.fault("events", format!("{} faults more of this sort", report.more));
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
        findings.fine("read models", "not there; the next start builds them from the journal");
        return;
    }
    let what = match file {
        Some(path) => format!("delete {0}, {0}-wal and {0}-shm", path.display()),
        None => "drop the schema watchword_read".to_owned(),
    };
    let remedy = format!(
        "Stop the server and {what}: they hold derived data only, and are built anew from the journal at the next start"
    );
    let checkpoints = match ReadModels::look(&config.read_models).await {
        Ok(checkpoints) => checkpoints,
        Err(error) => {
            findings.fault("read models", told_of(&error));
            return;
        }
    };
    if let Some(path) = file {
        pages(findings, "read models", path, &remedy).await;
    }
    let head = match journal.head().await {
        Ok(head) => head,
        Err(error) => {
            findings.fault("journal", format!("{error}. {RESTORE}"));
            return;
        }
    };
    match (file, checkpoints.is_empty()) {
        (None, true) => findings.fine("read models", "not there; the first projection node builds them"),
        (None, false) => cluster::projectors(findings, config, head).await,
        (Some(_), _) => {}
    }
    for checkpoint in checkpoints {
        let Checkpoint { projector, position, .. } = &checkpoint;
        match checkpoint.check_journal(journal).await {
            // Where they stand was told above.
            Ok(()) if file.is_none() => {}
            Ok(()) if *position == head => {
                findings.fine("read models", format!("{projector} is at event {position}, as the journal"));
            }
            Ok(()) => findings.fine(
                "read models",
                format!(
                    "{projector} is at event {position}; {} events are caught up with at the next start",
                    head - position
                ),
            ),
            Err(JournalError::Other { .. }) => findings.fault(
                "read models",
                format!(
                    "{projector} was built from another journal: event {position}, the last it has applied, is not the \
                     one that this journal has there. Put back the journal it belongs to; or, if this is the right one: {remedy}"
                ),
            ),
            Err(JournalError::Journal(error)) => {
                findings.fault("read models", format!("{projector} cannot be compared with the journal: {error}. {RESTORE}"));
            }
        }
    }
}
