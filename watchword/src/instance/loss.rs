//! What an instance does when its journal has lost events.

use event_store::{Lost, StoreError};

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
