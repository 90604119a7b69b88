//! `import-history`: fills an empty journal with an exported history.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use event_store::{Append, Journal, SystemClock};
use futures::TryStreamExt;
use futures::stream::FuturesOrdered;
use schemas::RecordedEvent;
use serde_json::json;
use tlog::{Checkpoint, Frontier, Hash, Note, VerifierKey};

use super::{Globals, Output, Run};
use crate::config::Config;
use crate::instance::{LostSigned, Stores, of_signed};
use crate::journal_check::Following;
use crate::progress::Progress;

/// How many appends are on their way to the journal at once.
const IN_FLIGHT: usize = 512;

/// How many events are read back at a time.
const PAGE: usize = 1000;

/// Fill an empty journal with an exported history
///
/// FILE is what `watchword export` wrote, and the checkpoint proves that it is that history: the journal gets the same events
/// at the same positions, and with them the same Merkle root, claims and read models. Events behind the checkpoint are left
/// out, as nothing proves them. The key store and the master key of the instance must be in place, because no export holds
/// keys. Idempotency keys and snapshots are in no export either: a request that is repeated across the import is a new one.
///
/// If it is interrupted, run it again: it goes on where it was. The server must be stopped; with PostgreSQL, every node.
#[derive(Debug, Args)]
pub struct ImportHistory {
    /// The exported history: one CloudEvent per line, from the first one on
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The signed checkpoint of that history
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// The key that signed the checkpoint: a vkey, as GET /v1/audit/key gives it
    #[arg(long, value_name = "VKEY")]
    key: VerifierKey,
    /// Record the loss of the events that this instance has signed a later checkpoint of, and that the history lacks
    #[arg(long)]
    record_loss: bool,
    #[command(flatten)]
    output: Output,
}

impl Run for ImportHistory {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| Box::pin(run(&config, &self)).await)
    }
}

async fn run(config: &Config, command: &ImportHistory) -> anyhow::Result<ExitCode> {
    let ImportHistory { file, checkpoint, key, record_loss, output } = command;
    let checkpoint = signed(checkpoint, key)?;
    // Before anything is opened: a file that is not that history changes nothing.
    let left_out = prove(file, &checkpoint)?;
    let stores = Stores::open_to_import(config).await?;
    let imported = async {
        let imported = import(config, &stores, file, &checkpoint).await?;
        Ok::<_, anyhow::Error>((imported, lost(&stores, *record_loss).await?))
    };
    let imported = imported.await;
    stores.close().await;
    let (imported, lost) = imported?;
    let mut out = std::io::stdout();
    let Checkpoint { size, root, .. } = &checkpoint;
    if output.json {
        let done =
            json!({ "imported": imported, "head": size, "root": root, "left_out": left_out, "lost": lost });
        writeln!(out, "{done}")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "imported {imported} events: the journal ends at {size}, and its root {root} is the checkpoint's"
    )?;
    if left_out > 0 {
        writeln!(out, "left out {left_out} events behind the checkpoint: nothing proves them")?;
    }
    if lost > 0 {
        let done = if *record_loss {
            "the journal says so now, in the event JournalWentBack"
        } else {
            "import a later export, or run `watchword record-loss`: until then no checkpoint is signed"
        };
        writeln!(
            out,
            "{lost} later events were signed by this instance, and are not in this history: {done}"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The checkpoint in a file, if this key signed it.
fn signed(path: &Path, key: &VerifierKey) -> anyhow::Result<Checkpoint> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let note: Note = text.parse().with_context(|| path.display().to_string())?;
    let checkpoint = Checkpoint::parse(&note.text).with_context(|| path.display().to_string())?;
    ensure!(key.signed(&note).is_some(), "{} is not signed with the key {key}", path.display());
    ensure!(
        checkpoint.origin == key.name(),
        "{} is of the log {}, and the key is of {}",
        path.display(),
        checkpoint.origin,
        key.name()
    );
    ensure!(checkpoint.size > 0, "{} is of an empty log: there is nothing to import", path.display());
    Ok(checkpoint)
}

/// The lines of a file, each without its end.
fn lines(path: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Vec<u8>>>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let read = move |line: std::io::Result<Vec<u8>>| line.context("cannot read the history");
    Ok(BufReader::with_capacity(1 << 20, file).split(b'\n').map(read))
}

/// Whether the first lines of a file are the events that the checkpoint covers; the number of lines behind them.
fn prove(path: &Path, checkpoint: &Checkpoint) -> anyhow::Result<u64> {
    let (mut tree, mut left_out) = (Frontier::default(), 0);
    for line in lines(path)? {
        let line = line?;
        if tree.size() < checkpoint.size {
            tree.push(Hash::leaf(&line), |_, _| {});
        } else {
            left_out += 1;
        }
    }
    let (size, path) = (tree.size(), path.display());
    ensure!(
        size == checkpoint.size,
        "{path} has {size} events and the checkpoint covers {}: export the whole history",
        checkpoint.size
    );
    ensure!(
        tree.root() == checkpoint.root,
        "{path} is not the history of the checkpoint: its root at {size} is {}, and should be {}. `watchword verify --file` \
         says what it can of where they differ",
        tree.root(),
        checkpoint.root
    );
    Ok(left_out)
}

/// Appends what the journal lacks, and compares the result with the checkpoint. How many events were appended.
async fn import(
    config: &Config,
    stores: &Stores,
    path: &Path,
    checkpoint: &Checkpoint,
) -> anyhow::Result<u64> {
    let (journal, repository) = (stores.journal(), stores.repository(config));
    let Checkpoint { size, root, .. } = checkpoint;
    let head = journal.head().await?;
    ensure!(
        head <= *size,
        "the journal has {head} events and the checkpoint covers {size}: only an empty journal can be filled, or one that \
         ends within that history"
    );
    let mut tree = Frontier::default();
    grow(&mut tree, journal, head).await?;
    let (mut given, mut following) = (Frontier::default(), Following::of(&repository));
    let mut on_their_way = FuturesOrdered::new();
    let progress = Progress::start(*size);
    for line in lines(path)? {
        let (line, position) = (line?, given.size() + 1);
        if position > *size {
            break;
        }
        if position == head + 1 {
            ensure!(
                given.root() == tree.root(),
                "the journal's {head} events are not the beginning of that history: only an empty journal can be filled"
            );
        }
        given.push(Hash::leaf(&line), |_, _| {});
        let recorded = RecordedEvent::from_canonical_json(&line);
        let recorded = recorded.with_context(|| format!("line {position} of the history"))?;
        let event = repository.decode(&recorded).await?;
        let append = following.append(recorded, &event);
        if position <= head {
            continue;
        }
        on_their_way.push_back(put(journal, append, position));
        if on_their_way.len() == IN_FLIGHT {
            on_their_way.try_next().await?;
            progress.at(position, position);
        }
    }
    while on_their_way.try_next().await?.is_some() {}
    grow(&mut tree, journal, *size).await?;
    progress.end();
    ensure!(
        tree.root() == *root,
        "the journal was filled, but its root {} is not the checkpoint's: do not use it, and report this",
        tree.root()
    );
    Ok(size - head)
}

/// How many events the journal lacks that this instance has signed a checkpoint of, after recording the loss if asked to.
async fn lost(stores: &Stores, record: bool) -> anyhow::Result<u64> {
    let newest = stores.key_store().checkpoint().await?;
    let Some(LostSigned { lost, .. }) = of_signed(stores.journal(), newest.as_ref()).await? else {
        return Ok(0);
    };
    if record {
        event_store::epoch::record(stores.journal(), &SystemClock, &lost).await?;
    }
    Ok(lost.position.saturating_sub(lost.head))
}

/// Appends an event at its position.
async fn put(journal: &dyn Journal, append: Append, position: u64) -> anyhow::Result<()> {
    let appended = journal.append(append).await.with_context(|| format!("event {position}"))?;
    ensure!(
        appended.first == position,
        "event {position} was appended at {}, as somebody else writes to the journal. Stop every node, empty the journal and \
         run this again",
        appended.first
    );
    Ok(())
}

/// Adds the journal's events to a tree until it has this size.
async fn grow(tree: &mut Frontier, journal: &dyn Journal, size: u64) -> anyhow::Result<()> {
    if tree.size() == size {
        return Ok(());
    }
    let origin = event_store::origin::read(journal).await?.context("the journal has no origin")?;
    while tree.size() < size {
        let events = journal.read_all(tree.size(), PAGE).await?;
        ensure!(!events.is_empty(), "the journal ends at {}", tree.size());
        for event in events.iter().take_while(|event| event.position <= size) {
            tree.push(Hash::leaf(event.to_canonical_json(&origin).as_bytes()), |_, _| {});
        }
    }
    Ok(())
}
