//! Errors that prevent a mail from being sent, and damage in the journal.

use std::panic::AssertUnwindSafe;

use domain::delivery::{DeliveryCommand, DeliveryPolicy};
use domain::mail::MailKind;
use domain::{EventId, Timestamp, UserId};
use event_store::StoreError;
use futures::FutureExt;

use super::transport::Unsent;
use crate::cursor::Stop;

/// A damaged event is skipped, counted and logged: later mails must not wait until the journal is repaired.
pub(super) fn unless_damaged<T>(position: u64, outcome: Result<T, Stop>) -> Result<Option<T>, Stop> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Store(StoreError::Damaged(what))) => {
            tracing::error!(
                position,
                what,
                "an event that may request a mail, or its delivery, cannot be read: no mail is sent"
            );
            metrics::counter!("watchword_mail_unreadable_total").increment(1);
            Ok(None)
        }
        Err(stop) => Err(stop),
    }
}

/// A mail whose handling panics is given up like one that cannot be made, and the others are sent. Otherwise the task
/// would start again, meet it again, and end the process at last.
pub(super) async fn unless_it_panics<T>(
    sending: impl Future<Output = Result<Result<T, Unsent>, Stop>>,
) -> Result<Result<T, Unsent>, Stop> {
    let outcome = AssertUnwindSafe(sending).catch_unwind().await;
    // The panic hook has logged it already.
    outcome.unwrap_or_else(|_| {
        let detail = "making or sending it panicked: the log of the process has the message before this one";
        Ok(Err(Unsent::not_made(detail)))
    })
}

/// As [`unless_damaged`], also for an event that cannot be looked at without a panic: nothing can be recorded of it.
pub(super) async fn unless_unreadable<T>(
    position: u64,
    handling: impl Future<Output = Result<T, Stop>>,
) -> Result<Option<T>, Stop> {
    let outcome = AssertUnwindSafe(handling).catch_unwind().await;
    let panicked = |_| Err(Stop::Store(StoreError::Damaged("handling it panicked".to_owned())));
    unless_damaged(position, outcome.unwrap_or_else(panicked))
}

/// The data recorded with a mail's outcome.
pub(super) struct Failed {
    pub(super) user_id: UserId,
    pub(super) kind: MailKind,
    pub(super) useless_after: Option<Timestamp>,
}

impl Failed {
    pub(super) fn command(
        &self,
        event_id: EventId,
        outcome: &Result<(), Unsent>,
        policy: DeliveryPolicy,
        at: Timestamp,
    ) -> DeliveryCommand {
        let Self { user_id, kind: mail, useless_after } = *self;
        match outcome {
            Ok(()) => DeliveryCommand::RecordSent { event_id, user_id, mail, at },
            Err(Unsent { reason, code, .. }) => DeliveryCommand::RecordFailure {
                event_id,
                user_id,
                mail,
                reason: *reason,
                smtp_code: *code,
                policy,
                useless_after,
                at,
            },
        }
    }
}
