//! The mails that events ask for, beside what became of them: the mailer's cursor and lists are rows that whoever can write to
//! the store can change, so that a mail is passed over.

use std::collections::{BTreeSet, HashMap};

use domain::delivery::{DeliveryEvent, Outcome};
use domain::mail::{MailKind, mails_of};
use domain::{AppId, Event};
use effects::mailer;
use event_store::{Journal, StoreError};
use schemas::RecordedEvent;
use uuid::Uuid;

use super::Report;

/// The mails that were not sent, as far as the events say.
#[derive(Default)]
pub(super) struct Mails(HashMap<(Uuid, MailKind), Unsent>);

struct Unsent {
    /// Of the event that asked for it.
    position: u64,
    app_id: AppId,
    /// How the last try ended, if there was one.
    outcome: Option<Outcome>,
}

impl Mails {
    pub(super) fn see(&mut self, recorded: &RecordedEvent, event: &Event) {
        match event {
            Event::Delivery(DeliveryEvent::MailSent(sent)) => {
                self.0.remove(&(sent.event_id.0, sent.mail));
            }
            Event::Delivery(DeliveryEvent::MailFailed(failed)) => {
                if let Some(mail) = self.0.get_mut(&(failed.event_id.0, failed.mail)) {
                    mail.outcome = Some(failed.retry_at.map_or(Outcome::GivenUp, Outcome::Waits));
                }
            }
            event => {
                for mail in mails_of(event) {
                    let app_id = recorded.metadata.app_id.clone();
                    let unsent = Unsent { position: recorded.position, app_id, outcome: None };
                    self.0.insert((recorded.id, mail.kind), unsent);
                }
            }
        }
    }

    /// Compares them with the mailer's lists, and with where it stood before the events were read.
    pub(super) async fn compare(
        self,
        journal: &dyn Journal,
        cursor: Option<u64>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let mut lists = [BTreeSet::new(), BTreeSet::new()];
        for (list, kind) in lists.iter_mut().zip(mailer::LISTS) {
            list.extend(journal.claims(kind, "").await?.into_iter().map(|(claim, _)| claim.key));
        }
        let [waiting, given_up] = &mut lists;
        let mut unsent: Vec<_> = self.0.into_iter().map(|((_, kind), mail)| (mail, kind)).collect();
        unsent.sort_by_key(|(mail, kind)| (mail.position, *kind));
        for (Unsent { position, app_id, outcome }, kind) in unsent {
            let key = mailer::list_key(&app_id, position, kind);
            let kind = kind.as_str();
            match outcome {
                None if cursor.is_some_and(|cursor| position <= cursor) => {
                    report.unsent_mails.push(position);
                }
                Some(Outcome::Waits(_)) if !waiting.remove(&key) => report.fault(format!(
                    "the mail {kind} that event {position} asked for is to be tried again, but no claim lists it: it is not"
                )),
                Some(Outcome::GivenUp) if !given_up.remove(&key) => report.fault(format!(
                    "the mail {kind} that event {position} asked for was given up, but no claim lists it: nobody sees it"
                )),
                _ => {}
            }
        }
        for (list, what) in [(waiting, "mail that waits"), (given_up, "mail that was given up")] {
            for key in list.iter() {
                report.fault(format!("a claim lists {key} as a {what}, and no event says so"));
            }
        }
        Ok(())
    }
}
