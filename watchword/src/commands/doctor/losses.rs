//! What the journal has lost lately, for somebody may still have to look into it.

use domain::Timestamp;
use event_store::{Journal, epoch};

use super::Findings;

/// After so many days nobody is reminded.
const DAYS: i64 = 30;

pub(super) async fn examine(findings: &mut Findings, journal: &dyn Journal, now: Timestamp) {
    let Ok(losses) = epoch::losses(journal).await else { return };
    for loss in losses.iter().filter(|loss| now.duration_since(loss.at).as_hours() < 24 * DAYS) {
        findings.warning(
            "journal",
            format!(
                "at {} it had lost events up to position {}, which were acknowledged: bans, logouts and passwords may be among \
                 them. See \u{ab}Restoring\u{bb} in deploy/README.md",
                loss.at, loss.lost
            ),
        );
    }
}
