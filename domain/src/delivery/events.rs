//! What happens to the mails of an event.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claims::{ClaimChange, Claimed, Claiming, Holding};
use crate::event::events;
use crate::ids::{EventId, UserId};
use crate::mail::MailKind;

/// Why a mail did not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The mail server could not be reached, or did not answer in time.
    Unreachable,
    /// The mail server would not take it now (a 4xx reply, RFC 5321 section 4.2.1).
    Deferred,
    /// The mail server will not take it (a 5xx reply).
    Rejected,
    /// The mail could not be made: the person was erased, say, or the address cannot stand in a mail.
    NotMade,
    /// What is in the mail had expired before it could be sent.
    Expired,
}

impl FailureReason {
    /// Whether trying again is in vain.
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

/// The mail server took a mail. That it arrived, nobody can know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MailSent {
    /// The event that asked for it.
    pub event_id: EventId,
    /// Whose mail.
    pub user_id: UserId,
    /// What for.
    pub mail: MailKind,
    /// How many tries it took.
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
}

/// A mail did not go out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MailFailed {
    /// The event that asked for it.
    pub event_id: EventId,
    /// Whose mail.
    pub user_id: UserId,
    /// What for.
    pub mail: MailKind,
    /// How often it was tried.
    pub attempt: u32,
    /// Why.
    pub reason: FailureReason,
    /// What the mail server answered, if it did (RFC 5321 section 4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp_code: Option<u16>,
    /// When it is tried again; absent if it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Whether nothing was tried now, but somebody asked for the mail to be tried again. The failure is that of before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked_again: bool,
    /// When.
    pub at: Timestamp,
}

events! {
    /// The events of a delivery.
    pub enum DeliveryEvent of "delivery", whose |event| Some(event.user_id);
    MailSent: open,
    MailFailed: open,
}

impl Claiming for DeliveryEvent {
    /// A mail is in one list at most.
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
        }
    }
}

impl DeliveryEvent {
    /// The event that asked for the mail.
    pub fn event_id(&self) -> EventId {
        match self {
            Self::MailSent(event) => event.event_id,
            Self::MailFailed(event) => event.event_id,
        }
    }
}
