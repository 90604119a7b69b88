//! The lists of mails that wait for another try, and of those that were given up: claims of the journal, so that they change in
//! the same append as what became of a mail.

use domain::delivery::{Delivery, Outcome};
use domain::mail::MailKind;
use domain::{AppId, EventId, Stream};
use event_store::{Claim, Journal, StoreError};
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};

use dispatcher::Work;

/// The kinds of the claims that list mails: those that are tried again by themselves, and those that were given up.
pub(super) const WAITING: &str = "mail_waiting";
pub(super) const FAILED: &str = "mail_failed";

/// Both.
pub const LISTS: [&str; 2] = [WAITING, FAILED];

/// The key of the claim that has a mail of an app in a list, by the position of the event that asked for it.
pub fn list_key(app_id: &AppId, position: u64, kind: MailKind) -> String {
    // With leading zeros, so that the order of the keys is that of the positions.
    format!("{app_id}/{position:020}/{}", kind.as_str())
}

/// A mail in the lists of those that wait or were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MailRef {
    /// The position of the event that asked for it.
    pub position: u64,
    /// Which of its mails.
    pub kind: MailKind,
}

impl MailRef {
    /// The claim that has it in a list of an app.
    fn claim(self, list: &str, app_id: &AppId) -> Claim {
        Claim { kind: list.to_owned(), key: list_key(app_id, self.position, self.kind) }
    }

    pub(super) fn of(claim: &Claim) -> Option<Self> {
        let mut parts = claim.key.split('/').skip(1);
        Some(Self { position: parts.next()?.parse().ok()?, kind: kind(parts.next()?)? })
    }

    /// Puts the mail into the list where it belongs by what was decided, and takes it out of the other.
    pub fn list(self, work: &mut Work, app_id: &AppId, id: EventId) {
        let (waiting, failed) = (self.claim(WAITING, app_id), self.claim(FAILED, app_id));
        let owner = Delivery::stream(&id);
        match work.get::<Delivery>(&id).outcome(self.kind) {
            Some(Outcome::Waits(_)) => {
                work.release(failed);
                work.take(waiting, &owner);
            }
            Some(Outcome::GivenUp) => {
                work.release(waiting);
                work.take(failed, &owner);
            }
            Some(Outcome::Sent) | None => {
                work.release(waiting);
                work.release(failed);
            }
        }
    }
}

/// The kind of mail of this name.
pub fn kind(name: &str) -> Option<MailKind> {
    MailKind::deserialize(StrDeserializer::<ValueError>::new(name)).ok()
}

/// The mails of an app that were given up, oldest first.
pub async fn given_up(journal: &dyn Journal, app_id: &AppId) -> Result<Vec<MailRef>, StoreError> {
    let claims = journal.claims(FAILED, &format!("{app_id}/")).await?;
    Ok(claims.iter().filter_map(|(claim, _)| MailRef::of(claim)).collect())
}

/// How many mails of all apps were given up.
pub async fn count_given_up(journal: &dyn Journal) -> Result<usize, StoreError> {
    Ok(journal.claims(FAILED, "").await?.len())
}
