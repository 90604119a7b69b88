//! The delivery of an event to webhooks.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Delivery, DeliveryError, DeliveryEvent, Outcome, WebhookDelivered, WebhookFailed, WebhookFailure, growing,
};
use crate::ids::EventId;
use crate::time::after;
use crate::webhook::WebhookId;

/// How long an event is sent to a webhook that does not accept it, and how long to wait in between. Each pause is four times
/// the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookPolicy {
    /// Seconds before the second attempt.
    pub first_pause: u32,
    /// Seconds of the longest pause.
    pub longest_pause: u32,
    /// Seconds from the first failure until the event is given up.
    pub give_up_after: u32,
    /// Seconds of failures and nothing else, after which the webhook is disabled.
    pub disable_after: u32,
}

impl Default for WebhookPolicy {
    fn default() -> Self {
        let day = 24 * 60 * 60;
        Self { first_pause: 5, longest_pause: 4 * 60 * 60, give_up_after: 3 * day, disable_after: 5 * day }
    }
}

/// A failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Why it failed.
    pub reason: WebhookFailure,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Since when the webhook has accepted nothing at all.
    pub failing_since: Option<Timestamp>,
}

/// The delivery of one event to one webhook, as far as it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// The position of the event.
    pub position: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// How often it had been sent when another attempt was last asked for.
    pub before: u32,
    /// The outcome so far.
    pub outcome: Outcome,
    /// Why the last attempt failed, and the status of the answer; absent once it was accepted.
    pub failure: Option<(WebhookFailure, Option<u16>)>,
    /// When the first attempt failed, or the first since somebody asked for another.
    pub first_failed_at: Option<Timestamp>,
    /// Since when the webhook had accepted nothing at all.
    pub failing_since: Option<Timestamp>,
    /// Whether somebody asked for another attempt after it was given up. Later events of its stream do not wait for it.
    pub asked_again: bool,
    /// When this was recorded.
    pub at: Timestamp,
}

impl Delivery {
    pub(super) fn not_delivered(
        &self,
        (webhook_id, event_id, position): (WebhookId, EventId, u64),
        failure: FailedAttempt,
        policy: WebhookPolicy,
        at: Timestamp,
    ) -> Vec<DeliveryEvent> {
        let before = self.webhooks.get(&webhook_id).filter(|before| before.outcome != Outcome::Sent);
        let was_sent = failure.reason != WebhookFailure::Blocked;
        let attempt = before.map_or(0, |before| before.attempts) + u32::from(was_sent);
        let first_failed_at = before.and_then(|before| before.first_failed_at).unwrap_or(at);
        let seconds = |seconds: u32| SignedDuration::from_secs(seconds.into());
        let retry_at = if was_sent {
            let is_over = at >= after(first_failed_at, seconds(policy.give_up_after));
            let this_round = attempt - before.map_or(0, |before| before.before);
            (!is_over).then(|| after(at, growing(policy.first_pause, policy.longest_pause, this_round)))
        } else {
            Some(at)
        };
        vec![DeliveryEvent::WebhookFailed(WebhookFailed {
            webhook_id,
            event_id,
            position,
            attempt,
            reason: failure.reason,
            status: failure.status,
            first_failed_at,
            failing_since: failure.failing_since,
            retry_at,
            asked_again: false,
            at,
        })]
    }

    /// Repeats the failure with a time to retry.
    pub(super) fn redeliver(
        &self,
        webhook_id: WebhookId,
        at: Timestamp,
    ) -> Result<Vec<DeliveryEvent>, DeliveryError> {
        let event_id = self.event_id.ok_or(DeliveryError::Absent)?;
        let before = self.webhooks.get(&webhook_id).ok_or(DeliveryError::Absent)?;
        let Some((reason, status)) = before.failure else { return Err(DeliveryError::Delivered) };
        Ok(vec![DeliveryEvent::WebhookFailed(WebhookFailed {
            webhook_id,
            event_id,
            position: before.position,
            attempt: before.attempts,
            reason,
            status,
            // It gets as much time as a new one.
            first_failed_at: at,
            failing_since: before.failing_since,
            retry_at: Some(at),
            asked_again: true,
            at,
        })])
    }

    pub(super) fn apply_to_webhooks(&mut self, event: DeliveryEvent) {
        match event {
            DeliveryEvent::WebhookDelivered(WebhookDelivered {
                webhook_id, event_id, position, at, ..
            }) => {
                self.event_id = Some(event_id);
                let attempts = self.webhooks.get(&webhook_id).map_or(0, |before| before.attempts) + 1;
                self.webhooks.insert(
                    webhook_id,
                    Attempted {
                        position,
                        attempts,
                        before: 0,
                        outcome: Outcome::Sent,
                        failure: None,
                        first_failed_at: None,
                        failing_since: None,
                        asked_again: false,
                        at,
                    },
                );
            }
            DeliveryEvent::WebhookFailed(event) => {
                self.event_id = Some(event.event_id);
                let before = self.webhooks.get(&event.webhook_id);
                // What still waited for its turn keeps it.
                let was_given_up = before.is_some_and(|before| before.outcome == Outcome::GivenUp);
                let was_asked = before.is_some_and(|before| before.asked_again);
                let before = before.map_or(0, |before| before.before);
                let before = if event.asked_again { event.attempt } else { before };
                self.webhooks.insert(
                    event.webhook_id,
                    Attempted {
                        position: event.position,
                        attempts: event.attempt,
                        before,
                        outcome: event.retry_at.map_or(Outcome::GivenUp, Outcome::Waits),
                        failure: Some((event.reason, event.status)),
                        first_failed_at: Some(event.first_failed_at),
                        failing_since: event.failing_since,
                        asked_again: was_asked || (event.asked_again && was_given_up),
                        at: event.at,
                    },
                );
            }
            DeliveryEvent::MailSent(_) | DeliveryEvent::MailFailed(_) => {}
        }
    }
}
