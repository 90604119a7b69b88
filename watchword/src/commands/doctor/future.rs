//! What says that it happens in the future: a clock was ahead when it was written, or is behind now.

use std::collections::BTreeMap;

use domain::lockout::LockoutEvent;
use domain::{Event, Timestamp};
use schemas::RecordedEvent;

use super::Findings;

/// How far clocks may be apart.
const LEEWAY_SECONDS: i64 = 60;

/// Events, and what they gave out, that lie ahead of now.
#[derive(Debug, Default)]
pub struct Future {
    events: u64,
    /// The first, and the one that is furthest ahead.
    first: Option<u64>,
    last: Option<Timestamp>,
    /// What people and programs hold of them: how many by type.
    tokens: BTreeMap<String, u64>,
    /// Locks that end later than the longest may, by stream: the last word on each counts.
    locks: BTreeMap<String, Timestamp>,
    now: Option<Timestamp>,
}

/// The types of events that give out a token, a link, a code or a key.
const TOKENS: [&str; 8] = [
    "SessionStarted",
    "SessionRefreshed",
    "MagicLinkIssued",
    "MagicLinkRedeemed",
    "PasswordResetRequested",
    "EmailVerificationRequested",
    "EmailChangeRequested",
    "ApiKeyIssued",
];

impl Future {
    /// Seen from this moment.
    pub fn from(now: Timestamp) -> Self {
        Self { now: Some(now), ..Self::default() }
    }

    /// Looks at the next event.
    pub fn see(&mut self, recorded: &RecordedEvent, event: &Event) {
        let Some(now) = self.now else { return };
        match event {
            Event::Lockout(LockoutEvent::AccountLocked(lock)) => {
                self.locks.insert(recorded.stream.to_string(), lock.until);
            }
            Event::Lockout(LockoutEvent::AccountUnlocked(_)) => {
                self.locks.remove(recorded.stream.as_str());
            }
            _ => {}
        }
        if seconds_between(now, recorded.at) <= LEEWAY_SECONDS {
            return;
        }
        self.events += 1;
        self.first.get_or_insert(recorded.position);
        self.last = self.last.max(Some(recorded.at));
        if TOKENS.contains(&recorded.name.as_str()) {
            *self.tokens.entry(recorded.name.clone()).or_default() += 1;
        }
    }

    /// Says what was found.
    pub(super) fn tell(&self, findings: &mut Findings, longest_lock: u32) {
        if let (Some(first), Some(last)) = (self.first, self.last) {
            let held = if self.tokens.is_empty() {
                String::new()
            } else {
                let tokens: Vec<String> =
                    self.tokens.iter().map(|(name, count)| format!("{count} {name}")).collect();
                format!(
                    ". Tokens and links came from some of them and may last longer than they should: {}",
                    tokens.join(", ")
                )
            };
            findings.warning(
                "clock",
                format!(
                    "{} events are of the future, the first at position {first}, the last of {last}: this machine's clock is \
                     behind, or that of a node was ahead when they were written. Have NTP set all clocks{held}",
                    self.events
                ),
            );
        }
        let Some(now) = self.now else { return };
        for (stream, until) in &self.locks {
            if seconds_between(now, *until) > i64::from(longest_lock) + LEEWAY_SECONDS {
                findings.warning(
                    "clock",
                    format!(
                        "{stream} has a lock until {until}, which is longer than lockout.longest_lock allows: a clock was ahead when it \
                         was made. `watchword user unlock` lifts it"
                    ),
                );
            }
        }
    }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}
