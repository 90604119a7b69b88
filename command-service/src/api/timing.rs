//! When answers are given that must not tell whether an address is known.

use std::time::Duration;

use tokio::time::Instant;

/// Answers that must not tell whether an address is known are given at a multiple of this time after the request: the
/// write that a known address costs disappears in it.
const STEP: Duration = Duration::from_millis(100);

/// Waits until the time since `started` is a multiple of [`STEP`].
pub(crate) async fn even_out(started: Instant) {
    let steps = started.elapsed().as_millis() / STEP.as_millis() + 1;
    let until = started + STEP * u32::try_from(steps).unwrap_or(u32::MAX);
    tokio::time::sleep_until(until).await;
}
