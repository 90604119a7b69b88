//! The events of a delivery.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claims::{ClaimChange, Claimed, Claiming, Holding};
use crate::event::events;
use crate::ids::{EventId, UserId};
use crate::mail::MailKind;
use crate::webhook::WebhookId;

/// Why a mail was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The mail server could not be reached, or did not answer in time.
    Unreachable,
    /// The mail server deferred it (a 4xx reply, RFC 5321 section 4.2.1).
    Deferred,
    /// The mail server rejected it (a 5xx reply).
    Rejected,
    /// The mail could not be composed: for example, the person was erased, or the address is not valid in a mail.
    NotMade,
    /// The link or token in the mail expired before it could be sent.
    Expired,
}

impl FailureReason {
    /// Whether a retry is pointless.
    pub fn is_final(self) -> bool {
        match self {
            Self::Rejected | Self::NotMade | Self::Expired => true,
            Self::Unreachable | Self::Deferred => false,
        }
    }

    /// The name it is stored under.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Deferred => "deferred",
            Self::Rejected => "rejected",
            Self::NotMade => "not_made",
            Self::Expired => "expired",
        }
    }
}

/// The mail server accepted a mail. Whether it arrived is unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MailSent {
    /// The event that requested it.
    pub event_id: EventId,
    /// The recipient.
    pub user_id: UserId,
    /// The purpose of the mail.
    pub mail: MailKind,
    /// The number of attempts, including this one.
    pub attempt: u32,
    /// When it happened.
    pub at: Timestamp,
}

/// A mail could not be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MailFailed {
    /// The event that requested it.
    pub event_id: EventId,
    /// The recipient.
    pub user_id: UserId,
    /// The purpose of the mail.
    pub mail: MailKind,
    /// The number of attempts so far.
    pub attempt: u32,
    /// Why the attempt failed.
    pub reason: FailureReason,
    /// The mail server's reply code, if there was a reply (RFC 5321 section 4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp_code: Option<u16>,
    /// The time of the next attempt; absent if delivery was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Whether this records a manual retry instead of an attempt. The failure is then the previous one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked_again: bool,
    /// When it happened.
    pub at: Timestamp,
}

/// Why a message to a webhook was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookFailure {
    /// Its host has no address, or does not accept a connection.
    Unreachable,
    /// It did not answer in time.
    Timeout,
    /// It answered with another status than 2xx.
    Status,
    /// It is at an address that the operator does not allow.
    Forbidden,
    /// The message could not be made.
    NotMade,
    /// An earlier event of the same stream was not delivered.
    Blocked,
}

impl WebhookFailure {
    /// The name it is stored under.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Forbidden => "forbidden",
            Self::NotMade => "not_made",
            Self::Blocked => "blocked",
        }
    }
}

/// A webhook accepted events. One record stands for all that were delivered since the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookDelivered {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// The last event that it accepted.
    pub event_id: EventId,
    /// The position of that event.
    pub position: u64,
    /// The number of messages that it accepted since the last record, repeated ones included.
    pub count: u64,
    /// When it happened.
    pub at: Timestamp,
}

/// A webhook did not accept an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookFailed {
    /// The webhook.
    pub webhook_id: WebhookId,
    /// The event.
    pub event_id: EventId,
    /// The position of the event.
    pub position: u64,
    /// The number of attempts so far.
    pub attempt: u32,
    /// Why the attempt failed.
    pub reason: WebhookFailure,
    /// The status of its answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// When the first attempt failed.
    pub first_failed_at: Timestamp,
    /// Since when it has accepted nothing at all; absent if it accepts other events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// The time of the next attempt; absent if delivery was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Whether this records a manual retry instead of an attempt. The failure is then the previous one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked_again: bool,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of a delivery.
    pub enum DeliveryEvent of "delivery", whose |event| event.recipient();
    MailSent: open,
    MailFailed: open,
    WebhookDelivered: open,
    WebhookFailed: open,
}

/// A delivery to a person is that person's event.
trait Recipient {
    fn recipient(&self) -> Option<UserId>;
}

impl Recipient for MailSent {
    fn recipient(&self) -> Option<UserId> {
        Some(self.user_id)
    }
}

impl Recipient for MailFailed {
    fn recipient(&self) -> Option<UserId> {
        Some(self.user_id)
    }
}

impl Recipient for WebhookDelivered {
    fn recipient(&self) -> Option<UserId> {
        None
    }
}

impl Recipient for WebhookFailed {
    fn recipient(&self) -> Option<UserId> {
        None
    }
}

impl Claiming for DeliveryEvent {
    /// A mail is in at most one list, and so is a message.
    fn claims(&self, _: &Holding) -> Vec<ClaimChange> {
        match *self {
            Self::MailSent(MailSent { event_id, mail, .. }) => vec![
                ClaimChange::Release(Claimed::MailWaiting(event_id, mail)),
                ClaimChange::Release(Claimed::MailFailed(event_id, mail)),
            ],
            Self::MailFailed(MailFailed { event_id, mail, retry_at, .. }) => {
                let (waiting, failed) =
                    (Claimed::MailWaiting(event_id, mail), Claimed::MailFailed(event_id, mail));
                let (left, entered) = if retry_at.is_some() { (failed, waiting) } else { (waiting, failed) };
                vec![ClaimChange::Release(left), ClaimChange::Take(entered)]
            }
            Self::WebhookDelivered(WebhookDelivered { webhook_id, position, .. }) => vec![
                ClaimChange::Release(Claimed::WebhookWaiting(webhook_id, position)),
                ClaimChange::Release(Claimed::WebhookFailed(webhook_id, position)),
            ],
            Self::WebhookFailed(WebhookFailed { webhook_id, position, retry_at, .. }) => {
                let (waiting, failed) = (
                    Claimed::WebhookWaiting(webhook_id, position),
                    Claimed::WebhookFailed(webhook_id, position),
                );
                let (left, entered) = if retry_at.is_some() { (failed, waiting) } else { (waiting, failed) };
                vec![ClaimChange::Release(left), ClaimChange::Take(entered)]
            }
        }
    }
}

impl DeliveryEvent {
    /// The event that requested the mail, or was sent to a webhook.
    pub fn event_id(&self) -> EventId {
        match self {
            Self::MailSent(event) => event.event_id,
            Self::MailFailed(event) => event.event_id,
            Self::WebhookDelivered(event) => event.event_id,
            Self::WebhookFailed(event) => event.event_id,
        }
    }
}
