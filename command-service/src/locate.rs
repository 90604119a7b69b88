//! Finding the user of an address. The result is a hint: the append checks the decision.

use std::sync::Arc;

use async_trait::async_trait;
use domain::user::User;
use domain::{AppId, Email, StreamId, UserId};
use event_store::{LookupKey, Repository, StoreError};

/// How often to retry if a claim and its owner do not match.
const LOOKS: usize = 3;

/// Finds the user of an address.
#[async_trait]
pub trait LocateUser: Send + Sync + 'static {
    /// The user of this app who has this address.
    async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError>;
}

/// Looks up the claim on the address in the journal: always current, at the cost of one look-up.
pub struct JournalClaims {
    repository: Arc<Repository>,
    lookup: Arc<LookupKey>,
}

impl JournalClaims {
    /// Looks up in this repository's journal.
    pub fn new(repository: Arc<Repository>, lookup: Arc<LookupKey>) -> Self {
        Self { repository, lookup }
    }
}

#[async_trait]
impl LocateUser for JournalClaims {
    /// A claim can be forged by anybody who can write to the store. It counts only if its owner's events say that they have
    /// the address.
    async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError> {
        let claim = self.lookup.email_claim(app_id, email);
        for _ in 0..LOOKS {
            let Some(owner) = self.repository.journal().claim_owner(&claim).await? else { return Ok(None) };
            if let Some(user_id) = owner.uuid().map(UserId)
                && owner == StreamId::user(user_id)
            {
                let user = self.repository.load::<User>(&user_id).await?;
                // An erased person's address cannot be read any more, and they cannot log in.
                if user.state.is_of(app_id) && user.state.email.as_ref().is_none_or(|theirs| theirs == email)
                {
                    return Ok(Some(user_id));
                }
            }
            // It may have changed hands between the two reads.
        }
        Err(StoreError::Damaged(
            "the claim on an address belongs to a user with a different address".to_owned(),
        ))
    }
}
