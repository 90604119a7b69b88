//! What a witness remembers: of each log, the newest checkpoint that it signed, in one file.
//!
//! A witness that forgets could sign two histories. So the file is replaced as a whole and durably before a signature leaves
//! the process, one process has it at a time, and a start on a file that is missing, damaged or of another witness is
//! refused. Each note in it has the witness's own signature, by which changes are noticed. An older copy is not: a state file
//! must never be restored from a backup.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use event_store::durable;
use serde_json::{Value, json};
use tlog::{Checkpoint, Hash, Note, VerifierKey};

/// The format of the file.
const VERSION: u64 = 1;

/// The newest signed checkpoint of each log, also of logs that the witness knows no more: it may know them again.
pub struct State {
    path: PathBuf,
    signed: BTreeMap<String, Signed>,
    /// The last refused checkpoint of each log, by which repetitions are known. It is not in the file.
    refused: BTreeMap<String, Checkpoint>,
    /// The operating system releases them when the process ends, however it ends.
    _locks: Vec<File>,
}

struct Signed {
    checkpoint: Checkpoint,
    /// With the signatures of the log and of the witness.
    note: Note,
}

/// A state file that is locked and was read, but not yet compared with the key.
pub struct Unverified {
    path: PathBuf,
    lock: File,
    /// `None` if there is no file.
    notes: Option<Vec<Note>>,
}

impl Unverified {
    /// Locks and reads a file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let lock = lock(path)?;
        let notes = match std::fs::read_to_string(path) {
            Ok(text) => Some(read(&text).with_context(|| {
                format!(
                    "the state file {} is damaged: what it remembers is lost. Begin as a new witness, with a new key and a \
                     new state file; an older copy of it would let the witness sign two histories",
                    path.display()
                )
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("the state file {} cannot be read: give it to the user that runs the witness", path.display())
                });
            }
        };
        Ok(Self { path: path.to_owned(), lock, notes })
    }

    /// Makes the file if it is not there. A key that exists may have signed what a new file does not know.
    pub fn made(mut self, key_file: &Path) -> anyhow::Result<Self> {
        if self.notes.is_none() {
            if key_file.exists() {
                bail!(
                    "the state file {} is missing, but the key in {} may have signed checkpoints that were in it. Name the \
                     right file, or begin as a new witness: with a new key and a new state file",
                    self.path.display(),
                    key_file.display()
                );
            }
            write(&self.path, std::iter::empty())
                .with_context(|| format!("the state file {} cannot be written", self.path.display()))?;
            self.notes = Some(Vec::new());
        }
        Ok(self)
    }

    /// Whether nothing was signed yet.
    pub fn is_new(&self) -> bool {
        self.notes.as_ref().is_none_or(Vec::is_empty)
    }

    /// The state, if all of it was signed with this key, whose lock it keeps.
    pub fn verified(self, key: &VerifierKey, key_lock: File) -> anyhow::Result<State> {
        let mut signed = BTreeMap::new();
        for note in self.notes.unwrap_or_default() {
            let is_ours = note.verified(std::slice::from_ref(key)).is_ok_and(|own| !own.is_empty());
            let checkpoint = Checkpoint::parse(&note.text).ok().filter(|_| is_ours);
            let Some(checkpoint) = checkpoint else {
                bail!(
                    "the state file {} has a checkpoint that was not signed with the key {key}: it belongs to another key, or \
                     was changed. Name the files of one witness, or begin as a new one: with a new key and a new state file",
                    self.path.display()
                );
            };
            if signed.insert(checkpoint.origin.clone(), Signed { checkpoint, note }).is_some() {
                bail!(
                    "the state file {} has two checkpoints of one log, so it was changed",
                    self.path.display()
                );
            }
        }
        Ok(State { path: self.path, signed, refused: BTreeMap::new(), _locks: vec![self.lock, key_lock] })
    }
}

impl State {
    /// The size and the root of the newest signed checkpoint of a log; of the empty tree if there is none.
    pub fn tree_of(&self, origin: &str) -> (u64, Hash) {
        let signed = self.signed.get(origin).map(|signed| (signed.checkpoint.size, signed.checkpoint.root));
        signed.unwrap_or_else(|| (0, Hash::of_nothing()))
    }

    /// The newest signed checkpoint of a log.
    pub fn note_of(&self, origin: &str) -> Option<&Note> {
        self.signed.get(origin).map(|signed| &signed.note)
    }

    /// Whether another checkpoint of the log than this was the last to be refused.
    pub fn is_new_refusal(&mut self, checkpoint: &Checkpoint) -> bool {
        let last = self.refused.insert(checkpoint.origin.clone(), checkpoint.clone());
        last.as_ref() != Some(checkpoint)
    }

    /// Durably remembers a checkpoint. After an error the former one holds: whatever the disk has, no signature was given
    /// for it.
    pub fn remember(&mut self, checkpoint: Checkpoint, note: Note) -> io::Result<()> {
        let origin = &checkpoint.origin;
        // Signing the same tree again only tells a later time, and anybody can ask for it: it costs no write.
        let known = self.signed.get(origin).map(|signed| (signed.checkpoint.size, signed.checkpoint.root));
        if known != Some((checkpoint.size, checkpoint.root)) {
            let others =
                self.signed.iter().filter(|(other, _)| *other != origin).map(|(_, signed)| &signed.note);
            fail::fail_point!("before-witness-write", |_| std::process::abort());
            write(&self.path, others.chain([&note]))?;
            fail::fail_point!("after-witness-write", |_| std::process::abort());
        }
        self.signed.insert(origin.clone(), Signed { checkpoint, note });
        Ok(())
    }
}

fn write<'a>(path: &Path, notes: impl Iterator<Item = &'a Note>) -> io::Result<()> {
    let notes: Vec<String> = notes.map(Note::to_string).collect();
    let file = format!("{:#}\n", json!({ "version": VERSION, "signed": notes }));
    durable::put(path, file.as_bytes())
}

fn read(text: &str) -> anyhow::Result<Vec<Note>> {
    let file: Value = serde_json::from_str(text)?;
    match file["version"].as_u64() {
        Some(VERSION) => {}
        Some(other) => bail!("it has the format {other}, and this program writes format {VERSION}"),
        None => bail!("it has no format"),
    }
    let notes = file["signed"].as_array().context("it has no list of checkpoints")?;
    let note = |note: &Value| note.as_str().and_then(|note| note.parse().ok());
    notes.iter().map(note).collect::<Option<_>>().context("one of its checkpoints is no signed note")
}

/// Locks the file beside the state: the state itself is replaced by each write.
fn lock(path: &Path) -> anyhow::Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let file = File::options().create(true).truncate(false).write(true).open(&beside);
    let file = file.with_context(|| format!("the lock {} cannot be made", beside.display()))?;
    hold(&file, path)?;
    Ok(file)
}

/// Takes the lock on behalf of a file.
pub(super) fn hold(lock: &File, path: &Path) -> anyhow::Result<()> {
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            bail!("another process uses {}: a witness runs once", path.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}
