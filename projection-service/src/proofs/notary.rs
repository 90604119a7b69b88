//! Signs checkpoints of the tree, and never two that contradict each other.
//!
//! Whoever can write to the read models can offer a tree: it counts only with a head that this instance computed. Whoever can
//! put an older journal in place, or another one of this instance, offers a history that contradicts the checkpoint that was
//! signed last, which is in the key store. So before anything is signed, the tree proves that it begins with that one.
//!
//! There is one exception. A journal that lost its newest events cannot prove that; if that was recorded in it
//! ([`event_store::epoch`]), as nodes do when they notice, the record is signed with the rest, for all to see.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{LogOrigin, Timestamp};
use event_store::checkpoint_keys::{CheckpointKeyring, Standing};
use event_store::{Clock, Journal, KeptCheckpoint, KeyStore, Repository, SignedCheckpoint, StoreError};
use http_kit::Problem;
use jiff::SignedDuration;
use read_models::merkle_tree::TreeHead;
use read_models::{ReadError, ReadModels};
use schemas::problems;
use tlog::{Checkpoint, Note};
use tokio::sync::watch;

/// How often to look again because another node was first.
const TRIES: usize = 8;

/// When checkpoints are signed without being asked for, and by which keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// The longest that events wait for one.
    pub interval: Duration,
    /// The most events that wait for one.
    pub events: u64,
    /// How long a key signs beside the next one.
    pub key_overlap: Duration,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        let key_overlap = Duration::from_hours(30 * 24);
        Self { interval: Duration::from_mins(1), events: 10_000, key_overlap }
    }
}

impl CheckpointSettings {
    /// The overlap, as times are reckoned with.
    pub(super) fn overlap(&self) -> SignedDuration {
        SignedDuration::try_from(self.key_overlap).unwrap_or(SignedDuration::MAX)
    }
}

/// The newest checkpoint that this process knows of, and why it signs none, if it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotaryStatus {
    /// The number of events that the newest checkpoint covers; 0 before the first.
    pub size: u64,
    /// When it was signed.
    pub signed_at: Option<Timestamp>,
    /// Why nothing is signed.
    pub refused: Option<String>,
}

/// Why nothing was signed.
#[derive(Clone, Debug)]
pub(crate) enum NotSigned {
    /// The tree does not have the events yet.
    Behind,
    /// A store does not answer.
    Store(StoreError),
    /// What would be signed contradicts what was signed.
    Refused(String),
}

impl fmt::Display for NotSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind => f.write_str("the tree does not have all events yet"),
            Self::Store(error) => error.fmt(f),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl From<StoreError> for NotSigned {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(what) => Self::Refused(what),
            error => Self::Store(error),
        }
    }
}

impl From<ReadError> for NotSigned {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            error => Self::Store(StoreError::Unavailable(error.to_string().into())),
        }
    }
}

impl From<NotSigned> for Problem {
    fn from(why: NotSigned) -> Self {
        match why {
            NotSigned::Behind => Self::new(problems::PROJECTION_BEHIND).retry_after(1),
            NotSigned::Store(error) => error.into(),
            NotSigned::Refused(why) => Self::new(problems::CHECKPOINT_REFUSED).detail(why),
        }
    }
}

/// Signs checkpoints.
pub(crate) struct Notary {
    repository: Arc<Repository>,
    models: Arc<ReadModels>,
    clock: Arc<dyn Clock>,
    origin: LogOrigin,
    pub(super) settings: CheckpointSettings,
    status: Mutex<NotaryStatus>,
    /// The size of the newest checkpoint that was signed here.
    signed: watch::Sender<u64>,
    /// One at a time: the others find that it was done.
    turn: tokio::sync::Mutex<()>,
}

impl Notary {
    pub(crate) fn new(
        repository: Arc<Repository>,
        models: Arc<ReadModels>,
        clock: Arc<dyn Clock>,
        origin: LogOrigin,
        settings: CheckpointSettings,
    ) -> Self {
        let (status, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        let signed = watch::Sender::new(0);
        Self { repository, models, clock, origin, settings, status, signed, turn }
    }

    pub(super) fn journal(&self) -> &dyn Journal {
        &**self.repository.journal()
    }

    /// Where checkpoints are kept.
    pub(crate) fn key_store(&self) -> &KeyStore {
        self.repository.sealer().keys()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The keys that sign.
    pub(crate) fn keyring(&self) -> CheckpointKeyring<'_> {
        CheckpointKeyring { instance: self.key_store().instance_key(), origin: &self.origin }
    }

    /// The size of the newest checkpoint that this process signed itself, as it changes; 0 before the first.
    pub(crate) fn signed_here(&self) -> watch::Receiver<u64> {
        self.signed.subscribe()
    }

    /// What is known of the newest checkpoint here.
    pub(crate) fn status(&self) -> NotaryStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest signed checkpoint; `None` before the first.
    pub(crate) async fn newest(&self) -> Result<Option<KeptCheckpoint>, NotSigned> {
        let newest = self.key_store().checkpoint().await?;
        if let Some(newest) = &newest {
            self.saw(&newest.checkpoint);
        }
        Ok(newest)
    }

    /// Signs a checkpoint of the tree as it is, unless it has not grown since the newest one. Either covers at least so many
    /// events.
    pub(crate) async fn sign(&self, least: u64) -> Result<KeptCheckpoint, NotSigned> {
        let _turn = self.turn.lock().await;
        let signed = self.sign_in_turn(least).await;
        match &signed {
            Ok(kept) => {
                self.saw(&kept.checkpoint);
                self.refuses(None);
            }
            Err(NotSigned::Refused(why)) => self.refuses(Some(why)),
            Err(NotSigned::Behind | NotSigned::Store(_)) => {}
        }
        signed
    }

    async fn sign_in_turn(&self, least: u64) -> Result<KeptCheckpoint, NotSigned> {
        for _ in 0..TRIES {
            // First: what it says of epochs must not be newer than the tree.
            let standing = Standing::of(self.journal()).await?;
            let kept = self.key_store().checkpoint().await?;
            let head = self.head().await?;
            let covers = |kept: &KeptCheckpoint| kept.checkpoint.size >= least;
            let before = match &kept {
                Some(kept) => self.compare(&kept.checkpoint, &head, &standing).await?,
                None => Before::Begins,
            };
            match (before, kept) {
                (Before::Is | Before::Exceeds, Some(kept)) if covers(&kept) => return Ok(kept),
                (Before::Begins, _) if head.frontier.size() < least => return Err(NotSigned::Behind),
                (Before::Begins, kept) => {
                    let signed = self.signed(&head, &standing, kept.as_ref())?;
                    fail::fail_point!("before-checkpoint-kept", |_| std::process::abort());
                    if self.key_store().advance_checkpoint(kept.as_ref(), &signed).await? {
                        self.signed.send_replace(signed.size);
                        let newest = self.key_store().checkpoint().await?;
                        return newest.ok_or(NotSigned::Behind);
                    }
                }
                (Before::Is | Before::Exceeds, _) => return Err(NotSigned::Behind),
            }
        }
        Err(NotSigned::Store(StoreError::Unavailable("other nodes sign checkpoints all the time".into())))
    }

    /// The head of the tree, if it is one of this journal.
    pub(super) async fn head(&self) -> Result<TreeHead, NotSigned> {
        let head = self.models.merkle_tree().head().await?;
        // One of a history that the journal has lost, which is about to be filled anew.
        if head.frontier.size() == 0 || !self.has(head.frontier.size(), head.last).await? {
            return Err(NotSigned::Behind);
        }
        Ok(head)
    }

    /// Whether the journal has this event at this position.
    async fn has(&self, position: u64, event: uuid::Uuid) -> Result<bool, StoreError> {
        let found = self.journal().read_positions(&[position]).await?;
        Ok(found.first().is_some_and(|found| found.id == event))
    }

    /// How the newest checkpoint and the tree relate. Refuses a tree that contradicts it, unless the journal says openly that
    /// it went back since.
    async fn compare(
        &self,
        newest: &SignedCheckpoint,
        head: &TreeHead,
        standing: &Standing,
    ) -> Result<Before, NotSigned> {
        let size = head.frontier.size();
        let contradiction = if newest.size > size {
            if self.has(newest.size, newest.last).await? {
                return Ok(Before::Exceeds);
            }
            let end = self.journal().head().await?;
            format!("the journal does not have event {} as it was signed, and ends at {end}", newest.size)
        } else {
            let root = self.models.merkle_tree().root(newest.size, head).await?;
            if root == Some(newest.root) {
                return Ok(if newest.size == size { Before::Is } else { Before::Begins });
            }
            format!("its first {} events are not those that were signed", newest.size)
        };
        let is_open = standing.epochs.last().is_some_and(|epoch| !newest.epochs.contains(epoch));
        if !is_open {
            return Err(NotSigned::Refused(format!(
                "the journal is not the one that the last checkpoint was signed of: {contradiction}. Restore the newest backup \
                 of the journal, or, if none has those events, run `watchword record-loss`"
            )));
        }
        // The record must be in what is signed.
        if standing.position > size {
            return Err(NotSigned::Behind);
        }
        tracing::warn!(
            "{contradiction}. The journal says that it went back, so a checkpoint is signed of what it is now"
        );
        Ok(Before::Begins)
    }

    fn signed(
        &self,
        head: &TreeHead,
        standing: &Standing,
        before: Option<&KeptCheckpoint>,
    ) -> Result<SignedCheckpoint, NotSigned> {
        let signers = self.keyring().signers(&standing.keys)?;
        if signers.is_empty() {
            return Err(NotSigned::Store(StoreError::Unavailable(
                "there is no key for checkpoints yet".into(),
            )));
        }
        let (size, root) = (head.frontier.size(), head.frontier.root());
        let text = Checkpoint { origin: self.origin.log_name(), size, root }.to_string();
        let signatures = signers.iter().map(|signer| signer.sign(&text, 0)).collect();
        let note = Note { text, signatures }.to_string();
        let mut epochs = before.map(|before| before.checkpoint.epochs.clone()).unwrap_or_default();
        epochs.extend(
            standing.epochs.iter().filter(|epoch| !epochs.contains(epoch)).copied().collect::<Vec<_>>(),
        );
        Ok(SignedCheckpoint { size, root, last: head.last, note, epochs, signed_at: self.clock.now() })
    }

    fn saw(&self, newest: &SignedCheckpoint) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        (status.size, status.signed_at) = (newest.size, Some(newest.signed_at));
    }

    /// Notes why nothing is signed, and says so when that changes.
    pub(super) fn refuses(&self, why: Option<&str>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.refused.as_deref() == why {
            return;
        }
        if let Some(why) = why {
            tracing::error!("no checkpoint is signed: {why}");
        } else {
            tracing::info!("checkpoints are signed again");
        }
        status.refused = why.map(str::to_owned);
    }

    /// Updates gauges.
    pub(crate) fn measure(&self) {
        let NotaryStatus { size, signed_at, refused } = self.status();
        #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53 events")]
        metrics::gauge!("watchword_checkpoint_size").set(size as f64);
        metrics::gauge!("watchword_checkpoint_refused").set(f64::from(u8::from(refused.is_some())));
        if let Some(signed_at) = signed_at {
            let age = self.clock.now().duration_since(signed_at).as_secs_f64();
            metrics::gauge!("watchword_checkpoint_age_seconds").set(age.max(0.0));
        }
    }
}

/// How the newest checkpoint and the tree relate.
enum Before {
    /// The tree begins with what was signed, and has more.
    Begins,
    /// It is what was signed.
    Is,
    /// What was signed has more events, all of which the journal has.
    Exceeds,
}
