//! Timing of answers that must not reveal whether an address is known.

use std::time::Duration;

use tokio::time::Instant;

/// Such answers are given at a multiple of this time after the request, which hides the write that a known address
/// costs.
const STEP: Duration = Duration::from_millis(100);

/// Waits until the time since `started` is a multiple of [`STEP`].
pub(crate) async fn even_out(started: Instant) {
    even_out_beyond(started, Duration::ZERO).await;
}

/// The same, but no earlier than `least` after `started`.
pub(crate) async fn even_out_beyond(started: Instant, least: Duration) {
    let steps = started.elapsed().max(least).as_millis() / STEP.as_millis() + 1;
    let until = started + STEP * u32::try_from(steps).unwrap_or(u32::MAX);
    tokio::time::sleep_until(until).await;
}
