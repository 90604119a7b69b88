//! The delivery of the mails that an event asked for, and of the event itself to webhooks: tried, retried with growing pauses,
//! sent, or given up.
//!
//! The stream has the id of that event, so every node finds what any other has recorded. Messages to webhooks that were
//! accepted at once are recorded together, with the last one of them.

mod events;
mod webhooks;

use std::collections::BTreeMap;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::events::{
    DeliveryEvent, FailureReason, MailFailed, MailSent, WebhookDelivered, WebhookFailed, WebhookFailure,
};
pub use self::webhooks::{Attempted, FailedAttempt, WebhookPolicy};
use crate::event::{EventInfo as _, Stream, StreamId};
use crate::ids::{EventId, UserId};
use crate::mail::MailKind;
use crate::time::after;
use crate::webhook::WebhookId;

/// How often a mail is tried, and how long to wait in between. Each pause is four times the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryPolicy {
    /// How often a mail is tried before it is given up.
    pub attempts: u32,
    /// Seconds before the second attempt.
    pub first_pause: u32,
    /// Seconds of the longest pause.
    pub longest_pause: u32,
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self { attempts: 8, first_pause: 5, longest_pause: 3600 }
    }
}

/// The commands of a delivery.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum DeliveryCommand {
    /// The mail server accepted it.
    RecordSent { event_id: EventId, user_id: UserId, mail: MailKind, at: Timestamp },
    /// The mail server refused it or could not be reached.
    RecordFailure {
        event_id: EventId,
        user_id: UserId,
        mail: MailKind,
        reason: FailureReason,
        /// The mail server's reply code (RFC 5321 section 4.2), without its text, which may quote the address.
        smtp_code: Option<u16>,
        /// How often, and how long to wait.
        policy: DeliveryPolicy,
        /// When the token in it expires, which makes the mail useless.
        useless_after: Option<Timestamp>,
        at: Timestamp,
    },
    /// Retry now a mail that was given up, or waits.
    Retry {
        mail: MailKind,
        /// When the token in it expires.
        useless_after: Option<Timestamp>,
        at: Timestamp,
    },
    /// A webhook accepted this event, and as many messages since the last record.
    RecordDelivered { webhook_id: WebhookId, event_id: EventId, position: u64, count: u64, at: Timestamp },
    /// A webhook did not accept this event.
    RecordNotDelivered {
        webhook_id: WebhookId,
        event_id: EventId,
        position: u64,
        failure: FailedAttempt,
        /// How often, and how long to wait.
        policy: WebhookPolicy,
        at: Timestamp,
    },
    /// Send a webhook now what was given up, or waits.
    Redeliver { webhook_id: WebhookId, at: Timestamp },
}

/// Why a delivery refused a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// No such mail was ever tried.
    #[error("no such mail was tried")]
    Absent,
    /// It was sent.
    #[error("the mail was sent")]
    Sent,
    /// The token in it has expired: a new one must be requested.
    #[error("the token in the mail has expired")]
    Expired,
    /// The webhook accepted it.
    #[error("the webhook accepted the event")]
    Delivered,
}

/// The delivery of one mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct Tried {
    pub user_id: UserId,
    /// How often it was tried.
    pub attempts: u32,
    /// How often it had been tried when a retry was last requested.
    pub before: u32,
    pub outcome: Outcome,
    /// Why the last attempt failed, and the mail server's reply code; absent once it was sent.
    pub failure: Option<(FailureReason, Option<u16>)>,
}

/// How the last attempt to send a mail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was sent.
    Sent,
    /// It is retried at this time.
    Waits(Timestamp),
    /// It was given up.
    GivenUp,
}

/// The delivery of the mails of one event.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Delivery {
    /// The event; absent before the first attempt.
    pub event_id: Option<EventId>,
    /// Its mails that were tried.
    pub mails: BTreeMap<MailKind, Tried>,
    /// The webhooks that it was not delivered to at once, or that were recorded with it.
    #[serde(default)]
    pub webhooks: BTreeMap<WebhookId, Attempted>,
}

impl Delivery {
    /// The outcome for a mail so far; `None` if it was never tried.
    pub fn outcome(&self, mail: MailKind) -> Option<Outcome> {
        self.mails.get(&mail).map(|tried| tried.outcome)
    }

    /// Whether a mail is due at this time: it was never tried, or its pause is over.
    pub fn is_due(&self, mail: MailKind, at: Timestamp) -> bool {
        match self.outcome(mail) {
            None => true,
            Some(Outcome::Waits(until)) => at >= until,
            Some(Outcome::Sent | Outcome::GivenUp) => false,
        }
    }

    fn decide(&self, command: &DeliveryCommand) -> Result<Vec<DeliveryEvent>, DeliveryError> {
        match *command {
            DeliveryCommand::RecordSent { event_id, user_id, mail, at } => {
                if self.is_sent(mail) {
                    return Ok(vec![]);
                }
                let attempt = self.attempts(mail) + 1;
                Ok(vec![DeliveryEvent::MailSent(MailSent { event_id, user_id, mail, attempt, at })])
            }
            DeliveryCommand::RecordFailure {
                event_id,
                user_id,
                mail,
                reason,
                smtp_code,
                policy,
                useless_after,
                at,
            } => {
                // Another mailer has sent it meanwhile.
                if self.is_sent(mail) {
                    return Ok(vec![]);
                }
                let attempt = self.attempts(mail) + 1;
                let this_round = attempt - self.mails.get(&mail).map_or(0, |tried| tried.before);
                let retry_at = (!reason.is_final() && this_round < policy.attempts)
                    .then(|| after(at, pause(policy, this_round)))
                    .filter(|retry_at| useless_after.is_none_or(|end| *retry_at < end));
                Ok(vec![DeliveryEvent::MailFailed(MailFailed {
                    event_id,
                    user_id,
                    mail,
                    attempt,
                    reason,
                    smtp_code,
                    retry_at,
                    asked_again: false,
                    at,
                })])
            }
            DeliveryCommand::Retry { mail, useless_after, at } => self.retry(mail, useless_after, at),
            DeliveryCommand::RecordDelivered { webhook_id, event_id, position, count, at } => {
                let delivered = WebhookDelivered { webhook_id, event_id, position, count, at };
                Ok(vec![DeliveryEvent::WebhookDelivered(delivered)])
            }
            DeliveryCommand::RecordNotDelivered { webhook_id, event_id, position, failure, policy, at } => {
                Ok(self.not_delivered((webhook_id, event_id, position), failure, policy, at))
            }
            DeliveryCommand::Redeliver { webhook_id, at } => self.redeliver(webhook_id, at),
        }
    }

    /// Repeats the failure with a time to retry.
    fn retry(
        &self,
        mail: MailKind,
        useless_after: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<Vec<DeliveryEvent>, DeliveryError> {
        let event_id = self.event_id.ok_or(DeliveryError::Absent)?;
        let tried = self.mails.get(&mail).ok_or(DeliveryError::Absent)?;
        let Some((reason, smtp_code)) = tried.failure else { return Err(DeliveryError::Sent) };
        if useless_after.is_some_and(|end| at >= end) {
            return Err(DeliveryError::Expired);
        }
        Ok(vec![DeliveryEvent::MailFailed(MailFailed {
            event_id,
            user_id: tried.user_id,
            mail,
            attempt: tried.attempts,
            reason,
            smtp_code,
            retry_at: Some(at),
            asked_again: true,
            at,
        })])
    }

    fn is_sent(&self, mail: MailKind) -> bool {
        self.outcome(mail) == Some(Outcome::Sent)
    }

    fn attempts(&self, mail: MailKind) -> u32 {
        self.mails.get(&mail).map_or(0, |tried| tried.attempts)
    }
}

/// The pause after the failed attempt of this number.
fn pause(policy: DeliveryPolicy, attempt: u32) -> SignedDuration {
    growing(policy.first_pause, policy.longest_pause, attempt)
}

/// A pause, in seconds from the first to the longest.
fn growing(first: u32, longest: u32, attempt: u32) -> SignedDuration {
    let factor = 4_u64.saturating_pow(attempt.saturating_sub(1));
    let seconds = u64::from(first).saturating_mul(factor).min(longest.into());
    SignedDuration::from_secs(seconds.cast_signed())
}

impl StreamId {
    /// The stream of the delivery of an event's mails.
    pub fn delivery(id: EventId) -> Self {
        Self::new(DeliveryEvent::AGGREGATE, id)
    }
}

impl Stream for Delivery {
    type Id = EventId;

    fn stream(id: &EventId) -> StreamId {
        StreamId::delivery(*id)
    }
}

impl Aggregate for Delivery {
    const TYPE: &'static str = "delivery";
    type Command = DeliveryCommand;
    type Event = DeliveryEvent;
    type Error = DeliveryError;
    type Services = ();

    async fn handle(
        &mut self,
        command: DeliveryCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), DeliveryError> {
        for event in self.decide(&command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: DeliveryEvent) {
        let (event_id, mail, tried) = match event {
            event @ (DeliveryEvent::WebhookDelivered(_) | DeliveryEvent::WebhookFailed(_)) => {
                return self.apply_to_webhooks(event);
            }
            DeliveryEvent::MailSent(MailSent { event_id, user_id, mail, attempt, .. }) => {
                let outcome = Outcome::Sent;
                (event_id, mail, Tried { user_id, attempts: attempt, before: 0, outcome, failure: None })
            }
            DeliveryEvent::MailFailed(event) => {
                let MailFailed { event_id, user_id, mail, attempt, reason, smtp_code, retry_at, .. } = event;
                let before = self.mails.get(&mail).map_or(0, |tried| tried.before);
                let before = if event.asked_again { attempt } else { before };
                let outcome = retry_at.map_or(Outcome::GivenUp, Outcome::Waits);
                let failure = Some((reason, smtp_code));
                (event_id, mail, Tried { user_id, attempts: attempt, before, outcome, failure })
            }
        };
        self.event_id = Some(event_id);
        self.mails.insert(mail, tried);
    }
}

#[cfg(test)]
mod tests;
