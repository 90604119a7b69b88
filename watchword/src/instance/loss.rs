//! What an instance does when its journal has lost events.

use event_store::checkpoint_keys::Standing;
use event_store::{Journal, KeptCheckpoint, Lost, StoreError};

use super::Instance;

impl Instance {
    /// Records that the journal has lost an event, for those who read events.
    pub async fn record_loss(&self, lost: &Lost) -> Result<(), StoreError> {
        event_store::epoch::record(&*self.stores.journal, &*self.clock, lost).await
    }

    /// Waits until the journal has lost an event that this process has seen. Then what the services know is worth nothing.
    pub async fn went_back(&self) -> Lost {
        self.stores.journal.went_back().await
    }
}

/// The journal lacks an event that the last signed checkpoint covers.
#[derive(Clone, Debug)]
pub struct LostSigned {
    /// The newest one, which is the last that the checkpoint covers.
    pub lost: Lost,
    /// Whether the journal has recorded a loss since that checkpoint, so that the next one is signed of what it is now.
    pub is_recorded: bool,
}

/// Whether the journal lacks an event that was signed; `None` if it has the last one that was.
pub async fn of_signed(
    journal: &dyn Journal,
    kept: Option<&KeptCheckpoint>,
) -> Result<Option<LostSigned>, StoreError> {
    let Some(newest) = kept.map(|kept| &kept.checkpoint) else { return Ok(None) };
    let found = journal.read_positions(&[newest.size]).await?;
    if found.first().is_some_and(|event| event.id == newest.last) {
        return Ok(None);
    }
    let lost = Lost { position: newest.size, event: newest.last, head: journal.head().await? };
    let epochs = Standing::read(journal).await?.map(|standing| standing.epochs).unwrap_or_default();
    let is_recorded = epochs.last().is_some_and(|epoch| !newest.epochs.contains(epoch));
    Ok(Some(LostSigned { lost, is_recorded }))
}
