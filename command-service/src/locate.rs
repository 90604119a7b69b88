//! Finding the user of an address. What is found is a hint: the decision is checked by the append.

use std::sync::Arc;

use async_trait::async_trait;
use domain::user::User;
use domain::{AppId, Email, StreamId, UserId};
use event_store::{LookupKey, Repository, StoreError};

/// How often to look again where a claim and its owner do not fit.
const LOOKS: usize = 3;

/// Finds the user of an address.
#[async_trait]
pub trait LocateUser: Send + Sync + 'static {
    /// The user who has this address in this app.
    async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError>;
}

/// Asks the journal who holds the claim on the address: always right, at the price of one look-up.
pub struct JournalClaims {
    repository: Arc<Repository>,
    lookup: Arc<LookupKey>,
}

impl JournalClaims {
    /// Looks up in the journal of this repository.
    pub fn new(repository: Arc<Repository>, lookup: Arc<LookupKey>) -> Self {
        Self { repository, lookup }
    }
}

#[async_trait]
impl LocateUser for JournalClaims {
    /// A claim is a row like any other, and could point at anybody: it counts if the events of its owner say that they have
    /// the address.
    async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError> {
        let claim = self.lookup.email_claim(app_id, email);
        for _ in 0..LOOKS {
            let Some(owner) = self.repository.journal().claim_owner(&claim).await? else { return Ok(None) };
            if let Some(user_id) = owner.uuid().map(UserId)
                && owner == StreamId::user(user_id)
            {
                let user = self.repository.load::<User>(&user_id).await?;
                // The address of an erased person cannot be read any more; nobody logs in as them.
                if user.state.is_of(app_id) && user.state.email.as_ref().is_none_or(|theirs| theirs == email)
                {
                    return Ok(Some(user_id));
                }
            }
            // It may have changed hands between the two looks.
        }
        Err(StoreError::Damaged(
            "the claim on an address is held by somebody who has another address".to_owned(),
        ))
    }
}
