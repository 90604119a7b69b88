//! Periodic tasks: deleting expired idempotency keys.

use std::sync::{Arc, Weak};
use std::time::Duration;

use event_store::StoreError;
use jiff::SignedDuration;
use tasks::{End, Weight};

use crate::CommandService;

/// How long a request can be repeated under its `Idempotency-Key`.
const IDEMPOTENCY: SignedDuration = SignedDuration::from_hours(24);
/// Pause between two steps of a round, each of which checks a thousand keys.
const STEP: Duration = Duration::from_secs(1);
/// Pause between two rounds.
const ROUND: Duration = Duration::from_hours(1);

/// Runs as long as the service is in use.
pub(crate) fn start(service: &Arc<CommandService>) {
    let service = Arc::downgrade(service);
    tasks::start("housekeeping", Weight::Usual, move || run(Weak::clone(&service)));
}

async fn run(service: Weak<CommandService>) -> End {
    loop {
        tokio::time::sleep(ROUND).await;
        match forget_idempotency(&service).await {
            Ok(true) => {}
            Ok(false) => return End::Asked,
            Err(error) => tracing::warn!(%error, "could not delete old idempotency keys"),
        }
    }
}

/// One round over all keys. False if the service is gone.
async fn forget_idempotency(service: &Weak<CommandService>) -> Result<bool, StoreError> {
    let mut after = None;
    loop {
        // Held for one step only, so that the service can be dropped.
        let Some(service) = service.upgrade() else { return Ok(false) };
        let before = service.clock.now() - IDEMPOTENCY;
        after = service.repository.journal().forget_idempotency(after, before).await?;
        drop(service);
        if after.is_none() {
            return Ok(true);
        }
        tokio::time::sleep(STEP).await;
    }
}
