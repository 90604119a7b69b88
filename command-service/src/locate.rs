//! Finding the user of an address. What is found is a hint: the decision is checked by the append.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{AppId, Email, UserId};
use event_store::{Journal, LookupKey, StoreError};

/// Finds the user of an address.
#[async_trait]
pub trait LocateUser: Send + Sync + 'static {
    /// The user who has this address in this app.
    async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError>;
}

/// Asks the journal who holds the claim on the address: always right, at the price of one look-up.
pub struct JournalClaims {
    journal: Arc<dyn Journal>,
    lookup: Arc<LookupKey>,
}

impl JournalClaims {
    /// Looks up in this journal.
    pub fn new(journal: Arc<dyn Journal>, lookup: Arc<LookupKey>) -> Self {
        Self { journal, lookup }
    }
}

#[async_trait]
impl LocateUser for JournalClaims {
    async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError> {
        let claim = self.lookup.email_claim(app_id, email);
        let owner = self.journal.claim_owner(&claim).await?;
        Ok(owner.and_then(|stream| stream.uuid()).map(UserId))
    }
}
