//! `users import`.

use std::collections::HashMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::Method;
use clap::Args;
use domain::{AppId, Email};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::app_id;
use super::super::operator::{Target, open};
use crate::channel::{Answer, Channel};
use crate::config::Config;
use crate::data_dir;
use crate::progress::Progress;
use crate::user_formats::{Entry, Format, hash_config};

/// What is sent at once: so many people, and bytes.
const MOST_LINES: usize = 500;
const MOST_BYTES: usize = 4 << 20;
/// How many entries are read ahead.
const AHEAD: usize = 2 * MOST_LINES;
/// How many errors are shown.
const MOST_ERRORS: usize = 1000;
/// How often a part is sent while the service is busy, and how often it is asked for.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);
const FIRST_POLL: Duration = Duration::from_millis(10);
const LONGEST_POLL: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct Import {
    /// The app
    #[arg(value_parser = app_id)]
    app: AppId,
    /// The file
    file: PathBuf,
    /// The system that the file comes from
    #[arg(long, value_enum, default_value_t = Format::Watchword)]
    format: Format,
    /// A file with the parameters of Firebase's hashes: JSON, or the text that its console shows (Authentication, Users,
    /// Password hash parameters). It must not be world-readable
    #[arg(long, value_name = "FILE")]
    firebase_hash_config: Option<PathBuf>,
    /// Only check the file
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

/// What became of the entries.
#[derive(Default, Serialize)]
struct Report {
    lines: u64,
    imported: u64,
    skipped: u64,
    failed: u64,
    /// Imported with the app's admin role.
    admins: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opens: Option<String>,
    /// Identities and memberships that were left out.
    left_out: u64,
    errors: Vec<LineError>,
}

#[derive(Deserialize, Serialize)]
struct LineError {
    line: u64,
    pointer: String,
    code: String,
    detail: String,
}

/// The state of a part, as the service answers it.
#[derive(Deserialize)]
struct Answered {
    state: String,
    lines: u64,
    imported: u64,
    skipped: u64,
    failed: u64,
    admins: u64,
    opens: Option<String>,
    errors: Vec<LineError>,
}

/// Lines that are sent together.
#[derive(Default)]
struct Part {
    body: Vec<u8>,
    /// The number of each line in the file.
    numbers: Vec<u64>,
}

pub(super) async fn run(config: Config, command: Import) -> anyhow::Result<ExitCode> {
    let firebase = command.firebase_hash_config.as_ref().map(|path| {
        let text = data_dir::read_secret(path)?;
        hash_config(secrecy::ExposeSecret::expose_secret(&text)).with_context(|| path.display().to_string())
    });
    let firebase = firebase.transpose()?;
    let (channel, instance) = open(config, &command.target).await?;
    let mut importing = Importing::new(&channel, &command, firebase);
    let done = importing.run().await;
    let report = importing.report;
    drop(channel);
    if let Some(instance) = instance {
        instance.close().await;
    }
    report.print(&command)?;
    done?;
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Importing<'a> {
    channel: &'a Channel,
    command: &'a Import,
    /// The first line of each part, if there is one.
    first_line: Option<Vec<u8>>,
    part: Part,
    /// The line that had an address first. Only a hash of each is kept.
    seen: HashMap<[u8; 16], u64>,
    report: Report,
}

impl<'a> Importing<'a> {
    fn new(channel: &'a Channel, command: &'a Import, firebase: Option<Value>) -> Self {
        let first_line = firebase.map(|config| config.to_string().into_bytes());
        let (part, seen, report) = (Part::default(), HashMap::new(), Report::default());
        Self { channel, command, first_line, part, seen, report }
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let (format, file) = (self.command.format, self.command.file.clone());
        let size = std::fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?.len();
        let (sender, mut entries) = mpsc::channel(AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            format.read(&file, &mut |entry| match sender.blocking_send(entry) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let progress = Progress::of_bytes(size);
        while let Some(entry) = entries.recv().await {
            let read = entry.read;
            self.take(entry);
            if self.part.is_full() {
                self.send().await?;
                progress.at_person(read, self.report.lines);
            }
        }
        self.send().await?;
        progress.end();
        reading.await.context("the file was not read to its end")?
    }

    fn take(&mut self, entry: Entry) {
        self.report.left_out += entry.left_out;
        let number = entry.number;
        let line = match entry.line {
            Ok(line) => line,
            Err(wrong) => return self.report.fail(number, "", wrong.code, wrong.detail),
        };
        let is_config = number == 1 && line.windows(22).any(|part| part == b"\"firebase_hash_config\"");
        if is_config && self.command.format == Format::Watchword {
            self.first_line = Some(line);
            return;
        }
        if let Some(first) = self.repeated(number, &line) {
            let detail = format!("line {first} has the same");
            return self.report.fail(number, "/email", "repeated", detail);
        }
        self.part.add(number, &line);
    }

    /// The line that has the same address. The service compares only lines that come together.
    fn repeated(&mut self, number: u64, line: &[u8]) -> Option<u64> {
        #[derive(Deserialize)]
        struct Named {
            email: String,
        }
        let named: Named = serde_json::from_slice(line).ok()?;
        let email = Email::parse(&named.email).ok()?;
        let mut key = [0; 16];
        key.copy_from_slice(&digest(&SHA256, email.as_str().as_bytes()).as_ref()[..16]);
        match self.seen.entry(key) {
            std::collections::hash_map::Entry::Occupied(first) => Some(*first.get()),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(number);
                None
            }
        }
    }

    /// Sends what was collected, and waits until it is imported.
    async fn send(&mut self) -> anyhow::Result<()> {
        let part = std::mem::take(&mut self.part);
        if part.numbers.is_empty() {
            return Ok(());
        }
        let mut body = Vec::with_capacity(part.body.len() + MOST_LINES);
        if let Some(line) = &self.first_line {
            body.extend(line);
            body.push(b'\n');
        }
        body.extend(&part.body);
        let before = u64::from(self.first_line.is_some());
        // A node that was restarted, or another one, does not know the import: what it has done is skipped.
        for _ in 0..TRIES {
            let import = self.begin(&body).await?;
            let Some(answer) = self.wait_for(&import).await? else { continue };
            return self.count(answer, &part, before);
        }
        bail!("the service loses its imports: name one node with --url, not several behind a proxy")
    }

    async fn begin(&self, body: &[u8]) -> anyhow::Result<String> {
        let path =
            format!("/v1/apps/{}/admin/users/import?dry_run={}", self.command.app, self.command.dry_run);
        for _ in 0..TRIES {
            let answer = self.channel.send_lines(&path, body.to_vec()).await.context(AGAIN)?;
            if answer.is_success() {
                return answer.json["import_id"]
                    .as_str()
                    .map(str::to_owned)
                    .context("the answer names no import");
            }
            busy(answer).await?;
        }
        bail!("the service stays busy. {AGAIN}")
    }

    /// The end of an import; `None` if the service does not know it.
    async fn wait_for(&self, import: &str) -> anyhow::Result<Option<Answered>> {
        let path = format!("/v1/apps/{}/admin/users/import/{import}", self.command.app);
        let mut pause = FIRST_POLL;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_POLL);
            let answer = self.channel.send(Method::GET, &path, None).await.context(AGAIN)?;
            if answer.status == 404 {
                return Ok(None);
            }
            if !answer.is_success() {
                busy(answer).await?;
                continue;
            }
            let answered: Answered =
                serde_json::from_value(answer.json).context("the answer is no import")?;
            if answered.state != "running" {
                return Ok(Some(answered));
            }
        }
    }

    fn count(&mut self, answer: Answered, part: &Part, before: u64) -> anyhow::Result<()> {
        let report = &mut self.report;
        report.lines += answer.lines;
        report.imported += answer.imported;
        report.skipped += answer.skipped;
        report.failed += answer.failed;
        report.admins += answer.admins;
        report.opens = answer.opens.or(report.opens.take());
        let mut last = None;
        for error in answer.errors {
            let at = error.line.checked_sub(before + 1).and_then(|at| usize::try_from(at).ok());
            let Some(line) = at.and_then(|at| part.numbers.get(at)) else {
                bail!("the parameters of Firebase's hashes: {}: {}", error.pointer, error.detail);
            };
            last = Some(format!("line {line}: {} ({})", error.detail, error.code));
            report.note(LineError { line: *line, ..error });
        }
        if answer.state != "done" {
            bail!("the import stopped at {}. {AGAIN}", last.unwrap_or_else(|| "an unknown line".to_owned()));
        }
        Ok(())
    }
}

/// What to do about an import that was cut off.
const AGAIN: &str = "Run the command again: whoever was imported is skipped";

/// Waits as long as a refusal asks for, if another time may help.
async fn busy(answer: Answer) -> anyhow::Result<()> {
    if !matches!(answer.status, 429 | 503) {
        bail!("refused: {}", answer.refusal());
    }
    let asked = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    tokio::time::sleep(asked.map_or(PAUSE, Duration::from_secs)).await;
    Ok(())
}

impl Part {
    fn add(&mut self, number: u64, line: &[u8]) {
        self.numbers.push(number);
        self.body.extend(line);
        self.body.push(b'\n');
    }

    fn is_full(&self) -> bool {
        self.numbers.len() >= MOST_LINES || self.body.len() >= MOST_BYTES
    }
}

impl Report {
    fn fail(&mut self, line: u64, pointer: &str, code: &str, detail: String) {
        self.lines += 1;
        self.failed += 1;
        self.note(LineError { line, pointer: pointer.to_owned(), code: code.to_owned(), detail });
    }

    fn note(&mut self, error: LineError) {
        if self.errors.len() < MOST_ERRORS {
            let at = self.errors.partition_point(|known| known.line <= error.line);
            self.errors.insert(at, error);
        }
    }

    fn print(&self, command: &Import) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        if command.target.output.json {
            writeln!(out, "{}", json!(self))?;
            return Ok(());
        }
        for LineError { line, pointer, code, detail } in &self.errors {
            let place = if pointer.is_empty() { String::new() } else { format!(" {pointer}") };
            writeln!(out, "line {line}{place}: {detail} ({code})")?;
        }
        let Self { lines, imported, skipped, failed, admins, left_out, .. } = self;
        let done = if command.dry_run { "to import" } else { "imported" };
        let mut told = std::io::stderr();
        writeln!(
            told,
            "{lines} entries: {imported} {done}, {skipped} were there already, {failed} are wrong"
        )?;
        if *left_out > 0 {
            writeln!(
                told,
                "left out {left_out} identities of other providers, which cannot be imported yet"
            )?;
        }
        if let Some(opens) = self.opens.as_ref().filter(|_| *admins > 0) {
            writeln!(
                told,
                "{admins} of them have the app's admin role, which opens {opens}; they choose new passwords"
            )?;
        }
        Ok(())
    }
}
