//! Retries with a bounded rate and a time limit.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Pauses between attempts: from 10 ms, doubled up to a second, until time is up.
pub(crate) struct Pauses {
    until: Instant,
    pause: Duration,
}

impl Pauses {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, pause: Duration::from_millis(10) }
    }

    /// Waits, unless time is up.
    pub(crate) async fn next(&mut self) -> bool {
        if Instant::now() + self.pause > self.until {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (2 * self.pause).min(Duration::from_secs(1));
        true
    }

    /// Whether time is up.
    #[cfg(feature = "kurrentdb")]
    pub(crate) fn are_over(&self) -> bool {
        Instant::now() >= self.until
    }
}
