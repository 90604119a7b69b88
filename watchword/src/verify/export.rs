//! Checks an export offline: each line by itself on all cores, then all of them in their order, and at last the root of
//! their tree against checkpoints.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, anyhow};
use event_store::Sealer;
use schemas::ExportedEvent;
use serde::Deserialize;
use serde_json::{Value, json};
use tlog::{Checkpoint, Hash, Note, VerifierKey};
use uuid::Uuid;

use super::history::{History, StreamHash};
use super::trust::Trust;
use super::{Verdict, Witnesses};
use crate::progress::Progress;

/// How much a thread takes at a time, in bytes.
const BATCH: usize = 1 << 20;
/// The batches that wait for each thread.
const QUEUED: usize = 2;
/// The longest line that is read.
const LONGEST: usize = 1 << 24;

/// What a line says, and what is wrong with it.
pub struct Line {
    /// The hash of its bytes.
    pub leaf: Hash,
    /// `None` if it has none that could be read.
    pub place: Option<Place>,
    pub problem: Option<String>,
}

/// The place of an event in the history.
pub struct Place {
    pub position: u64,
    pub id: Uuid,
    pub stream: StreamHash,
    pub version: u64,
    /// The origin of the journal, if it may differ from that of the line before.
    pub origin: Option<String>,
    /// What it does to the keys of the log.
    pub keys: Option<KeyEvent>,
}

/// An event about a key of the log.
pub enum KeyEvent {
    Added(KeyData),
    Retired(KeyData),
}

#[derive(Deserialize)]
pub struct KeyData {
    key: String,
    #[serde(default)]
    endorsement: Option<String>,
}

impl KeyEvent {
    fn of(event: &ExportedEvent<'_>) -> Option<Self> {
        if !event.stream.starts_with("journal-") {
            return None;
        }
        let data = || serde_json::from_str(event.data).ok();
        match &*event.name {
            "CheckpointKeyAdded" => data().map(Self::Added),
            "CheckpointKeyRetired" => data().map(Self::Retired),
            _ => None,
        }
    }

    /// Believes the key from here on, or no longer.
    pub fn apply(&self, position: u64, trust: &mut Trust) {
        match self {
            Self::Added(KeyData { key, endorsement }) => trust.add(position, key, endorsement.as_deref()),
            Self::Retired(KeyData { key, .. }) => trust.retire(position, key),
        }
    }
}

/// Checks the export in a file against checkpoints, which are signed by these keys or by those that the history endorses.
pub fn verify(
    file: &Path,
    checkpoints: &[PathBuf],
    keys: Vec<VerifierKey>,
    witnesses: &Witnesses,
) -> anyhow::Result<Verdict> {
    let trust = Trust::new(keys).map_err(|error| anyhow!(error))?;
    let mut signed = checkpoints.iter().map(|path| Signed::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    signed.sort_by_key(|it| it.checkpoint.size);
    let mut verdict = Verdict::default();
    let mut history = History::new(trust, signed.iter().map(|it| it.checkpoint.size));
    let open = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let progress = Progress::of_bytes(open.metadata().map_or(0, |it| it.len()));
    let (mut done, mut bytes) = (0, 0);
    let read = each_line(open, |text, line| {
        bytes += text.len() as u64 + 1;
        done += 1;
        history.see(text, line, &mut verdict);
        if done % 4096 == 0 {
            progress.at_byte(bytes, done, done);
        }
    });
    progress.end();
    read.with_context(|| format!("{} cannot be read", file.display()))?;
    history.end(&mut verdict);
    let (events, streams) = history.counts();
    verdict.fact("events", events);
    verdict.fact("streams", streams);
    verdict.fact("origin", history.origin());
    verdict.fact("root", history.roots().root().map(|root| root.to_string()));
    if verdict.is_fine() {
        verdict.say(format!(
            "{events} events in {streams} streams: canonical, decodable, their sealed parts well-formed, without a gap. Whether \
             the sealed parts open only the instance can tell"
        ));
    }
    compare(&signed, &history, witnesses, &mut verdict);
    Ok(verdict)
}

/// A checkpoint in a file.
struct Signed {
    path: PathBuf,
    note: Note,
    checkpoint: Checkpoint,
}

impl Signed {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let of_file = || format!("the checkpoint {}", path.display());
        let text = std::fs::read_to_string(path).with_context(of_file)?;
        let note: Note = text.parse().with_context(of_file)?;
        let checkpoint = Checkpoint::parse(&note.text).with_context(of_file)?;
        Ok(Self { path: path.to_owned(), note, checkpoint })
    }
}

/// Compares the roots of checkpoints, the smallest first, with those of the history.
fn compare(signed: &[Signed], history: &History, witnesses: &Witnesses, verdict: &mut Verdict) {
    let (events, _) = history.counts();
    let mut proven = 0;
    let mut facts = Vec::new();
    for Signed { path, note, checkpoint } in signed {
        let Checkpoint { origin, size, root } = checkpoint;
        let name = path.display();
        let mut is_fine = true;
        let mut fault = |verdict: &mut Verdict, text: String| {
            is_fine = false;
            verdict.fault(None, format!("the checkpoint {name} of {size} events: {text}"));
        };
        let of = history.origin().and_then(|origin| domain::LogOrigin::parse(origin).ok());
        if let Some(of) = of.map(|of| of.log_name())
            && of != *origin
        {
            fault(verdict, format!("it is about the log {origin}, but the events are of {of}"));
        }
        let signers = history.trust.signers(note, checkpoint);
        let times = witnesses.times(note);
        for problem in [signers.as_ref().err(), times.as_ref().err()].into_iter().flatten() {
            fault(verdict, problem.clone());
        }
        match history.roots().at(*size) {
            Some(found) if found == *root => {}
            Some(found) => fault(
                verdict,
                format!(
                    "the tree of the first {size} events has the root {found}, but what was signed is {root}: at least one \
                     event from {} to {size} was changed, or belongs to another history. A root does not say which; \
                     `watchword verify` at the instance does, or a smaller checkpoint beside this one narrows it down",
                    proven + 1
                ),
            ),
            None if *size > events => fault(
                verdict,
                format!("the file has only {events} events: at least {} are missing", size - events),
            ),
            None => {
                fault(verdict, "its root cannot be compared, because the events are not in order".to_owned());
            }
        }
        if is_fine {
            proven = *size;
            verdict.say(format!(
                "checkpoint {name}: the first {size} events have the root {root}, signed by {}{}",
                signers.clone().unwrap_or_default().join(" and "),
                told(times.as_deref().unwrap_or_default())
            ));
        }
        facts.push(json!({
            "file": name.to_string(), "size": size, "root": root, "ok": is_fine,
            "signed_by": signers.unwrap_or_default(),
            "cosigned": times.unwrap_or_default().into_iter()
                .map(|(witness, time)| json!({ "witness": witness, "time": time })).collect::<Vec<Value>>(),
        }));
    }
    verdict.fact("checkpoints", facts);
    verdict.fact("proven_events", proven);
    if proven < events && verdict.is_fine() {
        verdict.say(format!(
            "events {} to {events} came after the checkpoint: no signature covers them yet",
            proven + 1
        ));
    }
}

/// Who co-signed and when.
pub fn told(times: &[(String, u64)]) -> String {
    let told = |(witness, time): &(String, u64)| {
        let at = i64::try_from(*time).ok().and_then(|time| domain::Timestamp::from_second(time).ok());
        let at = at.map_or_else(|| time.to_string(), |at| at.to_string());
        format!(", co-signed by {witness} at {at}")
    };
    times.iter().map(told).collect()
}

/// Reads the lines of a file: each is examined on one of several threads, and handed over in the order of the file.
fn each_line(file: impl Read + Send, mut each: impl FnMut(&[u8], Line)) -> io::Result<()> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let (mut to, mut from) = (Vec::new(), Vec::new());
        for _ in 0..threads {
            let (batches, queue) = sync_channel::<Vec<u8>>(QUEUED);
            let (examined, results) = sync_channel::<(Vec<u8>, Vec<(Range<usize>, Line)>)>(QUEUED);
            scope.spawn(move || {
                for batch in queue {
                    let lines = examine_all(&batch);
                    if examined.send((batch, lines)).is_err() {
                        break;
                    }
                }
            });
            to.push(batches);
            from.push(results);
        }
        let reader = scope.spawn(move || feed(file, &to));
        // Batches go to the threads in turns, so they come back in turns.
        for results in from.iter().cycle() {
            let Ok((batch, lines)) = results.recv() else { break };
            for (range, line) in lines {
                each(&batch[range], line);
            }
        }
        drop(from);
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Hands out whole lines, a batch to each thread in turns.
fn feed(mut file: impl Read, to: &[SyncSender<Vec<u8>>]) -> io::Result<()> {
    let mut rest = Vec::new();
    for thread in to.iter().cycle() {
        let mut batch = std::mem::take(&mut rest);
        loop {
            let before = batch.len();
            let read = file.by_ref().take(BATCH as u64).read_to_end(&mut batch)?;
            if let Some(end) = batch[before..].iter().rposition(|byte| *byte == b'\n') {
                rest = batch.split_off(before + end + 1);
                break;
            }
            if read == 0 {
                if !batch.is_empty() {
                    let _ = thread.send(batch);
                }
                return Ok(());
            }
            if batch.len() > LONGEST {
                let text = "it has a line of more than 16 MiB, so it is no export of events";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        if thread.send(batch).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn examine_all(batch: &[u8]) -> Vec<(Range<usize>, Line)> {
    let (mut lines, mut start, mut origin) = (Vec::new(), 0, String::new());
    while start < batch.len() {
        let length = batch[start..].iter().position(|byte| *byte == b'\n').unwrap_or(batch.len() - start);
        let range = start..start + length;
        start = range.end + 1;
        lines.push((range.clone(), examine(&batch[range], &mut origin)));
    }
    lines
}

/// Checks a line by itself. `origin` is that of the line before.
fn examine(text: &[u8], origin: &mut String) -> Line {
    let leaf = Hash::leaf(text);
    let event = match ExportedEvent::read(text) {
        Ok(event) => event,
        Err(error) => return Line { leaf, place: place_only(text), problem: Some(error.to_string()) },
    };
    let problem = match event.decode() {
        Err(error) => Some(told_with_cause(&error)),
        Ok(domain::Event::Journal(domain::journal::JournalEvent::JournalCreated(created)))
            if created.origin.as_str() != event.origin =>
        {
            Some(format!(
                "it says that the origin is {}, but names its schema at {}",
                created.origin, event.origin
            ))
        }
        Ok(_) if event.personal.as_deref().is_some_and(|sealed| !Sealer::is_sealed(sealed)) => {
            Some("its sealed part is not one".to_owned())
        }
        Ok(_) => None,
    };
    let is_another = event.origin != origin.as_str();
    if is_another {
        event.origin.as_ref().clone_into(origin);
    }
    let place = Place {
        position: event.position,
        id: event.id,
        stream: stream_hash(&event.stream),
        version: event.version,
        origin: is_another.then(|| origin.clone()),
        keys: KeyEvent::of(&event),
    };
    Line { leaf, place: Some(place), problem }
}

fn told_with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The place that a line claims which is not as it should be: so that nothing seems to be missing.
fn place_only(text: &[u8]) -> Option<Place> {
    let event: HashMap<String, Value> = serde_json::from_slice(text).ok()?;
    let number = |name: &str| event.get(name)?.as_u64().filter(|number| *number > 0);
    let text = |name: &str| event.get(name)?.as_str();
    Some(Place {
        position: number("position")?,
        id: text("id")?.parse().ok()?,
        stream: stream_hash(text("subject")?),
        version: number("streamversion")?,
        origin: None,
        keys: None,
    })
}

fn stream_hash(name: &str) -> StreamHash {
    let Hash(hash) = Hash::leaf(name.as_bytes());
    *hash.first_chunk().expect("it is longer")
}
