//! Whether this machine's clock is behind the events. Nothing is refused for it, as nobody can tell whether a clock is
//! behind now or another was ahead then; but an operator should know.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use domain::Timestamp;
use event_store::{Clock, Journal, Repository, StoreError};
use serde_json::{Value, json};

/// The tolerated difference between clocks.
const LEEWAY_SECONDS: i64 = 60;
/// How many of the newest events are looked at when a service starts: those of a clock that was behind for a while may
/// be the very newest.
const LOOKED_AT: u64 = 500;

/// The latest time of an event, and the clock that should be past it.
pub struct LatestTime {
    second: AtomicI64,
    clock: Arc<dyn Clock>,
}

impl LatestTime {
    /// Looks at the newest events, and says if the clock is behind them.
    pub async fn at_start(journal: &dyn Journal, clock: &Arc<dyn Clock>) -> Result<Self, StoreError> {
        let latest = Self { second: AtomicI64::new(i64::MIN), clock: Arc::clone(clock) };
        let head = journal.head().await?;
        // Events that cannot be read are reported elsewhere.
        let after = head.saturating_sub(LOOKED_AT);
        let size = usize::try_from(LOOKED_AT).unwrap_or(usize::MAX);
        for event in journal.read_all(after, size).await.unwrap_or_default() {
            latest.see(event.at);
        }
        if let Some(check) = latest.check() {
            tracing::warn!("{}", check["detail"].as_str().unwrap_or_default());
        }
        Ok(latest)
    }

    /// Tells the latest time, from which sessions last that start while the clock is behind.
    pub fn tell(&self, repository: &Repository) {
        if let Ok(latest) = Timestamp::from_second(self.second.load(Ordering::Relaxed)) {
            repository.saw(latest);
        }
    }

    /// Keeps the time of an event, if it is later.
    pub fn see(&self, at: Timestamp) {
        self.second.fetch_max(at.as_second(), Ordering::Relaxed);
    }

    /// For `/readyz`, if the clock is behind.
    pub fn check(&self) -> Option<Value> {
        let behind = self.second.load(Ordering::Relaxed).saturating_sub(self.clock.now().as_second());
        if behind <= LEEWAY_SECONDS {
            return None;
        }
        let detail = format!(
            "the newest events are {behind} seconds ahead: this machine's clock is behind, or that of a node was ahead when \
             they were written. Have NTP set all clocks; `watchword doctor` names the events while the service is stopped"
        );
        Some(json!({ "ok": false, "state": "behind", "behind_seconds": behind, "detail": detail }))
    }
}
