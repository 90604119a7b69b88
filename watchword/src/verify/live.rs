//! Checks the stores of an instance, with its keys: who changed an event without them is found at that event.

use read_models::merkle_tree;
use tlog::Hash;

use super::roots::Roots;
use super::{Fault, Verdict};
use crate::config::Config;
use crate::instance::Looked;
use crate::journal_check::{self, Report, Tree};
use crate::progress::Progress;
use event_store::{Clock, SystemClock, TreeKey};

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
    let mut expected = Vec::new();
    let key = TreeKey::new(looked.repository.sealer().keys().instance_key());
    match merkle_tree::look(&config.read_models, &key).await {
        Ok(Some(head)) => expected.push(Expected {
            what: "the read model merkle_tree",
            size: head.frontier.size(),
            root: head.frontier.root(),
            otherwise: "If the journal is right, `watchword rebuild merkle_tree` makes the tree anew",
        }),
        Ok(None) => {
            verdict.say(
                "there is no read model merkle_tree yet: the root of the events was compared with nothing",
            );
        }
        Err(error) => verdict.fault(
            None,
            format!(
                "the read model merkle_tree: {}. `watchword rebuild merkle_tree` makes it anew",
                told(&error)
            ),
        ),
    }
    match looked.repository.sealer().keys().checkpoint().await {
        Ok(Some(kept)) => expected.push(Expected {
            what: "the last signed checkpoint",
            size: kept.checkpoint.size,
            root: kept.checkpoint.root,
            otherwise: "The journal went back, or somebody who has the keys of the instance changed it",
        }),
        Ok(None) => verdict.say("no checkpoint is signed yet"),
        Err(error) => verdict.fault(None, format!("the last signed checkpoint: {error}")),
    }
    expected
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
                     went back. {}",
                    size - head,
                    journal_check::RESTORE
                ),
            ),
            None => verdict.say(format!("{what}: not compared, because the journal's events cannot all be read")),
        }
    }
}
