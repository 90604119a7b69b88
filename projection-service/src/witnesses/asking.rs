//! Asks a witness to sign each new checkpoint: a task of its own for each, so that one that is slow or away holds up neither
//! the others nor the signing of checkpoints.
//!
//! Whichever node has signed a checkpoint asks at once. The others look now and then, and ask if nobody has, so that a node
//! that is gone is replaced, and a witness is not asked by all of them.

use std::sync::Arc;
use std::time::Duration;

use event_store::clock::random;
use event_store::{KeptCheckpoint, StoreError};
use read_models::ReadModels;
use tasks::{End, Task, Weight};
use tlog::proof::{Plan, extends};
use tlog::{Hash, Note};
use tokio::sync::watch;

use super::client::{Answer, Client, NoAnswer, Times};
use super::of_witness;
use crate::proofs::{NotSigned, Notary};

/// How often to look whether another node has signed a checkpoint.
const LOOK: Duration = Duration::from_secs(20);
/// How long a checkpoint of another node is left to that node.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(30);
/// The pause after a first failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: a witness that is back hears of the newest checkpoint so soon.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// How often the size is corrected before the witness counts as failed: another node may ask it meanwhile.
const CORRECTIONS: usize = 3;

/// Starts the task. It ends with the service.
pub(super) fn start(
    client: Client,
    notary: &Arc<Notary>,
    models: &Arc<ReadModels>,
    ending: watch::Receiver<bool>,
) -> Task {
    let (client, notary, models) = (Arc::new(client), Arc::clone(notary), Arc::clone(models));
    tasks::start(format!("witness {}", client.key().name()), Weight::Usual, move || {
        let asking = Asking {
            client: Arc::clone(&client),
            notary: Arc::clone(&notary),
            models: Arc::clone(&models),
            signed: notary.signed_here(),
            has: 0,
            failures: 0,
            said: None,
        };
        asking.run(ending.clone())
    })
}

/// Why a checkpoint has no signature of the witness.
#[derive(Debug, thiserror::Error)]
enum NotCosigned {
    #[error(transparent)]
    NoAnswer(NoAnswer),
    #[error(
        "it has signed a checkpoint of {0} events, and this log has signed none that large: the journal may have lost events, or \
         somebody else has the key that signs checkpoints"
    )]
    Ahead(u64),
    #[error("others ask it all the time")]
    Contended,
    #[error("{0}")]
    Here(NotSigned),
}

impl<E: Into<NotSigned>> From<E> for NotCosigned {
    fn from(error: E) -> Self {
        Self::Here(error.into())
    }
}

struct Asking {
    client: Arc<Client>,
    notary: Arc<Notary>,
    models: Arc<ReadModels>,
    /// The size of the newest checkpoint that this process signed.
    signed: watch::Receiver<u64>,
    /// The size of the newest checkpoint that the witness is known to have signed.
    has: u64,
    /// How often it failed in a row.
    failures: u32,
    /// Why it failed, as was logged.
    said: Option<String>,
}

impl Asking {
    async fn run(mut self, mut ending: watch::Receiver<bool>) -> End {
        loop {
            let looked = tokio::select! {
                // The sender is the service, which ends the task before it goes.
                _ = ending.wait_for(|ending| *ending) => return End::Asked,
                looked = self.look() => looked,
            };
            let pause = match looked {
                Ok(()) => jittered(LOOK),
                Err(error) => self.failed(&error),
            };
            // One that failed is left alone, whatever is signed meanwhile.
            let is_well = self.failures == 0;
            tokio::select! {
                _ = ending.wait_for(|ending| *ending) => return End::Asked,
                // Its sender lives as long as the notary.
                Ok(()) = self.signed.changed(), if is_well => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Counts and logs a failure, and says how long to leave the witness alone.
    fn failed(&mut self, error: &NotCosigned) -> Duration {
        let witness = self.client.key().name();
        if !matches!(error, NotCosigned::Here(_)) {
            metrics::counter!("watchword_witness_failures_total", "witness" => witness.to_owned())
                .increment(1);
        }
        // Once, and not again while it lasts.
        let why = error.to_string();
        if self.said.as_ref() != Some(&why) {
            tracing::warn!(witness, error = why, "a witness has not signed the newest checkpoint");
            self.said = Some(why);
        }
        self.failures += 1;
        jittered((FIRST_PAUSE * 2_u32.saturating_pow(self.failures - 1)).min(LONGEST_PAUSE))
    }

    /// Asks the witness, if there is a checkpoint that it has not signed.
    async fn look(&mut self) -> Result<(), NotCosigned> {
        let signed_here = *self.signed.borrow_and_update();
        let Some(kept) = self.notary.newest().await? else { return Ok(()) };
        let size = kept.checkpoint.size;
        if !of_witness(&kept, self.client.key()).is_empty() {
            self.signed(size);
            return Ok(());
        }
        // In either direction: clocks may have been wrong.
        let age = self.notary.clock().now().duration_since(kept.checkpoint.signed_at).unsigned_abs();
        if signed_here < size && age < LEFT_TO_OTHERS {
            return Ok(());
        }
        self.ask(&kept).await
    }

    async fn ask(&mut self, kept: &KeptCheckpoint) -> Result<(), NotCosigned> {
        let checkpoint = &kept.checkpoint;
        let note: Note = checkpoint
            .note
            .parse()
            .map_err(|_| StoreError::Damaged("the signed checkpoint is no note".to_owned()))?;
        let times = Times { from: checkpoint.signed_at, until: self.notary.clock().now() };
        // The journal may have gone back since.
        let mut old = self.has.min(checkpoint.size);
        for _ in 0..CORRECTIONS {
            let proof = self.proof(old, checkpoint.size, checkpoint.root).await?;
            match self.client.ask(old, &proof, &note, times).await.map_err(NotCosigned::NoAnswer)? {
                Answer::Signed(signature) => {
                    let (key, line) = (self.client.key().to_string(), signature.to_string());
                    self.signed(checkpoint.size);
                    // If there is a newer one by now, that is the next to be asked for.
                    self.notary.key_store().keep_cosignature(checkpoint, &key, &line).await?;
                    return Ok(());
                }
                Answer::Has(size) if size > checkpoint.size => {
                    let newest = self.notary.newest().await?;
                    if newest.is_some_and(|newest| newest.checkpoint.size >= size) {
                        self.has = size;
                        return Ok(());
                    }
                    return Err(NotCosigned::Ahead(size));
                }
                Answer::Has(size) => {
                    if size < self.has {
                        let (witness, was) = (self.client.key().name(), self.has);
                        tracing::error!(
                            witness,
                            was,
                            size,
                            "a witness does not remember what it has signed: do not rely on it"
                        );
                    }
                    (old, self.has) = (size, size);
                }
            }
        }
        Err(NotCosigned::Contended)
    }

    /// The proof that the checkpoint begins with so many events. What the tiles give is checked here: a witness would take a
    /// damaged read model for another history.
    async fn proof(&self, from: u64, to: u64, root: Hash) -> Result<Vec<Hash>, NotCosigned> {
        let damaged =
            || StoreError::Damaged("the Merkle tree does not have the signed checkpoint".to_owned());
        let tree = self.models.merkle_tree();
        let head = tree.head().await?;
        if head.frontier.size() < to {
            return Err(NotSigned::Behind.into());
        }
        let before = tree.root(from, &head).await?.ok_or_else(damaged)?;
        let plan = Plan::consistency(from, to).ok_or_else(damaged)?;
        let proof = tree.hashes(plan.nodes()).await?.proof(&plan)?;
        if extends(&proof, (from, before), (to, root)) { Ok(proof) } else { Err(damaged().into()) }
    }

    fn signed(&mut self, size: u64) {
        let witness = self.client.key().name();
        self.has = size;
        self.failures = 0;
        if self.said.take().is_some() {
            tracing::info!(witness, size, "a witness signs checkpoints again");
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53 events")]
        metrics::gauge!("watchword_witness_cosigned_size", "witness" => witness.to_owned()).set(size as f64);
    }
}

/// Between half and all of it, so that nodes do not ask in step.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause / 2 * u32::from(u16::from_be_bytes(random())) / u32::from(u16::MAX)
}
