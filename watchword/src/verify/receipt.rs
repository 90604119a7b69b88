//! Checks a receipt offline: one event, and the proof that it is in a signed tree.

use std::path::Path;

use anyhow::{Context, anyhow};
use schemas::ExportedEvent;
use serde::Deserialize;
use serde_json::Value;
use tlog::proof::includes;
use tlog::{Checkpoint, Hash, Note, VerifierKey};

use super::export::told;
use super::trust::Trust;
use super::{Verdict, Witnesses};

/// An event, and what proves that it is in the log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipt {
    /// The position of the event.
    position: u64,
    /// The event as it is exported.
    event: Value,
    /// The size of the tree.
    size: u64,
    /// The hashes from the event to the root.
    hashes: Vec<Hash>,
    /// The signed note about the tree.
    checkpoint: String,
}

/// Checks the receipt in a file, whose checkpoint must be signed by one of these keys.
pub fn verify(file: &Path, keys: Vec<VerifierKey>, witnesses: &Witnesses) -> anyhow::Result<Verdict> {
    let trust = Trust::new(keys).map_err(|error| anyhow!(error))?;
    let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    read(&text, &trust, witnesses).with_context(|| format!("{} is no receipt", file.display()))
}

/// Checks a receipt, whose checkpoint must be signed by one of these keys.
pub fn verify_text(text: &str, keys: Vec<VerifierKey>) -> anyhow::Result<Verdict> {
    let trust = Trust::new(keys).map_err(|error| anyhow!(error))?;
    read(text.as_bytes(), &trust, &Witnesses::default())
}

fn read(text: &[u8], trust: &Trust, witnesses: &Witnesses) -> anyhow::Result<Verdict> {
    let receipt: Receipt = serde_json::from_slice(text)?;
    let note: Note = receipt.checkpoint.parse()?;
    let checkpoint = Checkpoint::parse(&note.text)?;
    Ok(check(&receipt, trust, &note, &checkpoint, witnesses))
}

fn check(
    receipt: &Receipt,
    trust: &Trust,
    note: &Note,
    checkpoint: &Checkpoint,
    witnesses: &Witnesses,
) -> Verdict {
    let mut verdict = Verdict::default();
    let Receipt { position, event, size, hashes, .. } = receipt;
    let position = *position;
    verdict.fact("position", position);
    verdict.fact("size", *size);
    let line = schemas::canonical::text(event);
    let read = ExportedEvent::read(line.as_bytes());
    match &read {
        Ok(read) if read.position != position => {
            verdict.fault(position, format!("the event in the receipt is event {}", read.position));
        }
        Ok(read) => {
            if let Err(error) = read.decode() {
                verdict.fault(position, error.to_string());
            }
        }
        Err(error) => verdict.fault(position, error.to_string()),
    }
    if *size != checkpoint.size {
        verdict.fault(
            None,
            format!("the proof is for {size} events, but the checkpoint is about {}", checkpoint.size),
        );
    }
    let index = position.checked_sub(1);
    let leaf = Hash::leaf(line.as_bytes());
    if !index.is_some_and(|index| includes(hashes, index, leaf, checkpoint.size, checkpoint.root)) {
        verdict.fault(
            position,
            "the hashes do not lead from this event to the signed root: the event is not in that tree at that position",
        );
    }
    let signers = trust.signers(note, checkpoint);
    let times = witnesses.times(note);
    for problem in [signers.as_ref().err(), times.as_ref().err()].into_iter().flatten() {
        verdict.fault(None, format!("the checkpoint: {problem}"));
    }
    verdict.fact("signed_by", signers.clone().unwrap_or_default());
    if let (true, Ok(read), Ok(signers), Ok(times)) = (verdict.is_fine(), read, signers, times) {
        let time = event["time"].as_str().unwrap_or_default();
        verdict.say(format!(
            "event {position}, {} of {} at {time}, is in the log {}: the tree of {size} events signed by {}{}",
            read.name,
            read.stream,
            checkpoint.origin,
            signers.join(" and "),
            told(&times)
        ));
        verdict.fact("event", event.clone());
    }
    verdict
}
