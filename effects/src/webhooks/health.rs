//! How a webhook's receiver fares, and how much it is sent at a time because of that.

use std::time::Duration;

use domain::Timestamp;
use domain::delivery::WebhookPolicy;
use tokio::time::Instant;

/// The most requests to one webhook at a time.
const MOST: usize = 8;
/// After how many failures in a row a receiver counts as down. One event that it refuses is no sign of that.
const DOWN: u32 = 3;
/// A receiver that answers faster than this gets more requests at a time, a slower one fewer.
const QUICK: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(15);

/// The health of a receiver.
pub(super) struct Health {
    /// Failures since the last success.
    failures: u32,
    /// Since when it has accepted nothing.
    pub failing_since: Option<Timestamp>,
    /// The requests that it gets at a time.
    at_a_time: usize,
    pause: Duration,
    longest_pause: Duration,
    /// When it is asked again, if it is down.
    not_before: Instant,
}

impl Health {
    /// Of a receiver about which nothing is known but what was recorded.
    pub fn new(failing_since: Option<Timestamp>, policy: WebhookPolicy) -> Self {
        let longest_pause = LONGEST_PAUSE.min(Duration::from_secs(policy.longest_pause.into()));
        Self {
            failures: 0,
            failing_since,
            at_a_time: 1,
            pause: FIRST_PAUSE.min(longest_pause),
            longest_pause,
            not_before: Instant::now(),
        }
    }

    /// Whether it accepts nothing.
    pub fn is_down(&self) -> bool {
        self.failures >= DOWN
    }

    /// Whether the last request failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// How many requests it gets at a time.
    pub fn room(&self) -> usize {
        if self.is_down() { 1 } else { self.at_a_time }
    }

    /// When it may be sent something; none: at once.
    pub fn waits_until(&self) -> Option<Instant> {
        Some(self.not_before).filter(|until| self.is_down() && Instant::now() < *until)
    }

    /// It accepted a message after this long. Returns whether it was down before.
    pub fn accepted(&mut self, took: Duration) -> bool {
        let was_down = self.is_down();
        self.failures = 0;
        self.failing_since = None;
        self.pause = FIRST_PAUSE.min(self.longest_pause);
        self.at_a_time =
            if took < QUICK { (self.at_a_time + 1).min(MOST) } else { (self.at_a_time - 1).max(1) };
        was_down
    }

    /// It did not accept a message.
    pub fn refused(&mut self, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.at_a_time = 1;
        if self.is_down() {
            self.not_before = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(self.longest_pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_accepts_nothing_is_asked_seldom_and_one_at_a_time() {
        let now = Timestamp::from_second(1_800_000_000).expect("in range");
        let mut health = Health::new(None, WebhookPolicy::default());
        for _ in 0..20 {
            health.accepted(Duration::from_millis(5));
        }
        assert_eq!(health.room(), MOST);
        health.refused(now);
        assert!(!health.is_down() && health.is_failing() && health.waits_until().is_none());
        assert_eq!((health.room(), health.failing_since), (1, Some(now)));
        health.refused(now);
        health.refused(now);
        assert!(health.is_down() && health.waits_until().is_some());
        for _ in 0..40 {
            health.refused(now);
        }
        assert_eq!(health.pause, LONGEST_PAUSE);
        assert!(health.accepted(Duration::from_secs(2)), "it was down");
        assert_eq!((health.room(), health.failing_since, health.waits_until()), (1, None, None));
    }
}
