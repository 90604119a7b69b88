//! Compares requested mails with their outcome: anybody who can write to the store can change the mailer's cursor, so that it
//! skips a mail.

use std::collections::HashMap;

use domain::delivery::DeliveryEvent;
use domain::mail::{MailKind, mails_of};
use domain::{AppId, Event, EventId};
use schemas::RecordedEvent;
use uuid::Uuid;

use super::Report;

/// The mails without an outcome so far.
#[derive(Default)]
pub(super) struct Mails(HashMap<(Uuid, MailKind), Unsent>);

struct Unsent {
    /// The position of the requesting event.
    position: u64,
    app_id: AppId,
    /// Whether an event records an attempt.
    is_tried: bool,
}

impl Mails {
    pub(super) fn see(&mut self, recorded: &RecordedEvent, event: &Event) {
        match event {
            Event::Delivery(DeliveryEvent::MailSent(sent)) => {
                self.0.remove(&(sent.event_id.0, sent.mail));
            }
            Event::Delivery(DeliveryEvent::MailFailed(failed)) => {
                if let Some(mail) = self.0.get_mut(&(failed.event_id.0, failed.mail)) {
                    mail.is_tried = true;
                }
            }
            event => {
                for mail in mails_of(event) {
                    let app_id = recorded.metadata.app_id.clone();
                    let unsent = Unsent { position: recorded.position, app_id, is_tried: false };
                    self.0.insert((recorded.id, mail.kind), unsent);
                }
            }
        }
    }

    /// The app of an unsent mail, and the position of the event that requested it.
    pub(super) fn asked(&self, event: EventId, kind: MailKind) -> Option<(AppId, u64)> {
        self.0.get(&(event.0, kind)).map(|unsent| (unsent.app_id.clone(), unsent.position))
    }

    /// Reports mails that the mailer skipped, judged by its cursor before the events were read. Waiting and failed mails are
    /// listed by claims.
    pub(super) fn tell(self, cursor: Option<u64>, report: &mut Report) {
        let passed_over = |position: u64| cursor.is_some_and(|cursor| position <= cursor);
        let untried = self.0.into_values().filter(|unsent| !unsent.is_tried);
        report.unsent_mails.extend(untried.map(|unsent| unsent.position).filter(|it| passed_over(*it)));
        report.unsent_mails.sort_unstable();
    }
}
