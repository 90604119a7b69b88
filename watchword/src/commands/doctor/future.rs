//! Timestamps in the future: a clock was ahead when they were written, or is behind now.

use std::collections::BTreeMap;

use domain::lockout::LockoutEvent;
use domain::{Event, Timestamp};
use schemas::RecordedEvent;

use super::Findings;

/// The tolerated difference between clocks.
const LEEWAY_SECONDS: i64 = 60;

/// Events, and the credentials they issued, that lie in the future.
#[derive(Debug, Default)]
pub struct Future {
    events: u64,
    /// The first, and the furthest ahead.
    first: Option<u64>,
    last: Option<Timestamp>,
    /// Credentials issued by them: counts by type.
    tokens: BTreeMap<String, u64>,
    /// Locks that exceed the maximum, by stream: the last event on each counts.
    locks: BTreeMap<String, Timestamp>,
    now: Option<Timestamp>,
}

/// The types of events that issue a token, a link, a code or a key.
const TOKENS: [&str; 11] = [
    "SessionStarted",
    "SessionRefreshed",
    "ActiveOrganizationChosen",
    "MagicLinkIssued",
    "MagicLinkRedeemed",
    "PasswordResetRequested",
    "EmailVerificationRequested",
    "EmailChangeRequested",
    "ApiKeyIssued",
    "MemberInvited",
    "OrganizationKeyIssued",
];

impl Future {
    /// Relative to this time.
    pub fn from(now: Timestamp) -> Self {
        Self { now: Some(now), ..Self::default() }
    }

    /// Examines the next event.
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

    /// Reports the findings.
    pub(super) fn tell(&self, findings: &mut Findings, longest_lock: u32) {
        if let (Some(first), Some(last)) = (self.first, self.last) {
            let held = if self.tokens.is_empty() {
                String::new()
            } else {
                let tokens: Vec<String> =
                    self.tokens.iter().map(|(name, count)| format!("{count} {name}")).collect();
                format!(
                    ". Some of them issued tokens and links, which may last longer than they should: {}",
                    tokens.join(", ")
                )
            };
            findings.warning(
                "clock",
                format!(
                    "{} events are in the future, the first at position {first}, the latest of {last}: this machine's clock is \
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
                        "{stream} is locked until {until}, longer than lockout.longest_lock allows: a clock was ahead when it \
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
