//! The lists of mails waiting for a retry and of failed mails: claims of the journal, so that they change in the same append as
//! a mail's outcome.

use domain::AppId;
use domain::claims::ClaimKind;
use domain::mail::MailKind;
use event_store::lookup::mails_of;
use event_store::{Claim, Journal, StoreError};
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};

/// The kinds of claims that list mails: waiting for an automatic retry, and given up.
pub(super) const WAITING: &str = ClaimKind::MailWaiting.as_str();
pub(super) const FAILED: &str = ClaimKind::MailFailed.as_str();

/// A mail in one of these lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MailRef {
    /// The position of the requesting event.
    pub position: u64,
    /// Which of its mails.
    pub kind: MailKind,
}

impl MailRef {
    pub(super) fn of(claim: &Claim) -> Option<Self> {
        let mut parts = claim.key.split('/').skip(1);
        Some(Self { position: parts.next()?.parse().ok()?, kind: kind(parts.next()?)? })
    }
}

/// The kind of mail of this name.
pub fn kind(name: &str) -> Option<MailKind> {
    MailKind::deserialize(StrDeserializer::<ValueError>::new(name)).ok()
}

/// The mails of an app that were given up, oldest first.
pub async fn given_up(journal: &dyn Journal, app_id: &AppId) -> Result<Vec<MailRef>, StoreError> {
    let claims = journal.claims(FAILED, &mails_of(app_id)).await?;
    Ok(claims.iter().filter_map(|(claim, _)| MailRef::of(claim)).collect())
}

/// The number of mails of all apps that were given up.
pub async fn count_given_up(journal: &dyn Journal) -> Result<usize, StoreError> {
    Ok(journal.claims(FAILED, "").await?.len())
}
