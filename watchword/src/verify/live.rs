//! Checks the stores of an instance, with its keys: who changed an event without them is found at that event.

use read_models::merkle_tree;
use tlog::Hash;

use super::roots::Roots;
use super::signatures::Signed;
use super::{Fault, Verdict};
use crate::config::Config;
use crate::instance::{Looked, of_signed};
use crate::journal_check::{self, Report, Tree};
use crate::progress::Progress;
use event_store::checkpoint_keys::{self, CheckpointKeyring};
use event_store::{Clock, SignedCheckpoint, StoreError, SystemClock, TreeKey};

/// What the tree of the events is compared with.
struct Expected {
    what: &'static str,
    size: u64,
    root: Hash,
    /// What to do if they differ.
    otherwise: &'static str,
}

/// Reads the whole journal, and changes nothing.
pub async fn verify(config: &Config) -> anyhow::Result<Verdict> {
    let looked = Looked::open(config).await?;
    let verdict = check(config, &looked).await;
    looked.close().await;
    verdict
}

async fn check(config: &Config, looked: &Looked) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let journal = looked.repository.journal();
    let expected = expected(config, looked, &mut verdict).await;
    let origin = event_store::origin::read(&**journal).await.unwrap_or_else(|error| {
        verdict.fault(None, format!("the origin of the journal: {error}"));
        None
    });
    let head = journal.head().await?;
    let tree = origin
        .map(|origin| Tree { origin, roots: Roots::wanted(expected.iter().map(|expected| expected.size)) });
    let progress = Progress::start(head);
    let report = journal_check::check(&looked.repository, SystemClock.now(), tree, |done, position| {
        progress.at(done, position);
    })
    .await;
    progress.end();
    let report = report?;
    verdict.fact("events", report.events);
    verdict.fact("streams", report.streams);
    verdict.fact("snapshots", report.snapshots);
    verdict.fact("erased", report.erased);
    if report.faults.is_empty() {
        verdict.say(format!(
            "{} events in {} streams: each has its MAC and its place, can be decoded, and its sealed part opens (persons \
             erased: {}). The claims and {} snapshots are theirs",
            report.events, report.streams, report.erased, report.snapshots
        ));
    }
    compare(&expected, head, &report, &mut verdict);
    for journal_check::Fault { position, text } in report.faults {
        verdict.note(Fault { position, problem: text });
    }
    verdict.more += report.more as u64;
    Ok(verdict)
}

/// The tree of the read models, and the last signed checkpoint. They are read before the journal, which is never behind them.
async fn expected(config: &Config, looked: &Looked, verdict: &mut Verdict) -> Vec<Expected> {
    let key = TreeKey::new(looked.repository.sealer().keys().instance_key());
    let tree = match merkle_tree::look(&config.read_models, &key).await {
        Ok(Some(head)) => Some(Expected {
            what: "the read model merkle_tree",
            size: head.frontier.size(),
            root: head.frontier.root(),
            otherwise: "If the journal is right, `watchword rebuild merkle_tree` makes the tree anew",
        }),
        Ok(None) => {
            verdict.say(
                "there is no read model merkle_tree yet: the root of the events was compared with nothing",
            );
            None
        }
        Err(error) => {
            verdict.fault(
                None,
                format!(
                    "the read model merkle_tree: {}. `watchword rebuild merkle_tree` makes it anew",
                    told(&error)
                ),
            );
            None
        }
    };
    let signed = signed(config, looked, verdict).await.unwrap_or_else(|error| {
        verdict.fault(None, format!("the last signed checkpoint: {error}"));
        None
    });
    tree.into_iter().chain(signed).collect()
}

/// The last signed checkpoint, if there is one that the journal does not say to have lost events of.
async fn signed(
    config: &Config,
    looked: &Looked,
    verdict: &mut Verdict,
) -> Result<Option<Expected>, StoreError> {
    let (journal, key_store) = (&**looked.repository.journal(), looked.repository.sealer().keys());
    let Some(kept) = key_store.checkpoint().await? else {
        verdict.say("no checkpoint is signed yet");
        return Ok(None);
    };
    let SignedCheckpoint { size, root, .. } = kept.checkpoint;
    if let Some(origin) = event_store::origin::read(journal).await? {
        let keyring = CheckpointKeyring { instance: key_store.instance_key(), origin: &origin };
        let (keys, others): (Vec<_>, Vec<_>) = checkpoint_keys::history(journal)
            .await?
            .into_iter()
            .partition(|record| keyring.has_made(record.id, &record.key));
        for other in others {
            let what = format!("it adds the checkpoint key {}, which this instance did not make", other.key);
            verdict.fault(other.added, what);
        }
        let witnesses = config.witnesses.iter().map(|witness| witness.key.clone()).collect();
        let (checkpoint, cosignatures) = (&kept.checkpoint, kept.cosignatures.as_slice());
        Signed { checkpoint, cosignatures, log: origin.log_name(), keys, witnesses }.check(verdict);
    }
    if of_signed(journal, Some(&kept)).await?.is_some_and(|lost| lost.is_recorded) {
        verdict.say(format!(
            "the last signed checkpoint: it has {size} events, and the journal has lost the last of them since. That is on record \
             in its event JournalWentBack, and the next checkpoint is signed of what it is now"
        ));
        return Ok(None);
    }
    Ok(Some(Expected {
        what: "the last signed checkpoint",
        size,
        root,
        otherwise: "The journal went back, or somebody who has the keys of the instance changed it. If it was restored from the \
                    newest backup, `watchword record-loss` puts the loss on record",
    }))
}

fn told(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn compare(expected: &[Expected], head: u64, report: &Report, verdict: &mut Verdict) {
    let Some(roots) = &report.roots else { return };
    verdict.fact("root", roots.root().map(|root| root.to_string()));
    for Expected { what, size, root, otherwise } in expected {
        match roots.at(*size) {
            Some(found) if found == *root => {
                verdict.say(format!("{what}: the first {size} events have its root, {root}"));
            }
            Some(found) => verdict.fault(
                None,
                format!("{what}: it has the root {root} for {size} events, but the journal's have {found}. {otherwise}"),
            ),
            None if *size > head => verdict.fault(
                None,
                format!(
                    "{what}: it has {size} events, but the journal only {head}: the last {} were removed, or the journal \
                     went back. {}. {otherwise}",
                    size - head,
                    journal_check::RESTORE
                ),
            ),
            None => verdict.say(format!("{what}: not compared, because the journal's events cannot all be read")),
        }
    }
}
