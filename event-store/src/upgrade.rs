//! What the upgrades of a journal share, whatever store it is in.

use std::time::Duration;

/// How often progress is logged.
pub(crate) const TELL: Duration = Duration::from_secs(5);

/// How many rows are upgraded together, unless a test wants more batches of a short journal.
pub(crate) fn batch_size() -> i64 {
    const BATCH: i64 = 2000;
    fail::fail_point!("upgrade-batch", |size| size.and_then(|size| size.parse().ok()).unwrap_or(BATCH));
    BATCH
}
