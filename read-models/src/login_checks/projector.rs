//! Fills `login_checks`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use domain::Event;
use domain::user::UserEvent;
use event_store::LookupKey;

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::sql::{Rows, Transaction};
use crate::store::ReadModels;

/// Writes `login_checks`.
pub struct LoginChecksProjector {
    lookup: Arc<LookupKey>,
}

impl LoginChecksProjector {
    /// A projector with the keys of the read models.
    pub(crate) fn new(models: &ReadModels) -> Self {
        Self { lookup: Arc::clone(&models.lookup) }
    }
}

#[async_trait]
impl Projector for LoginChecksProjector {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["login_checks_v1"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    fn indexes_for_writing(&self) -> &'static [&'static str] {
        &["login_checks_v1_user"]
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut holders = BTreeMap::new();
        let mut moved = BTreeSet::new();
        for event in batch {
            let Event::User(happened) = event.event()? else { continue };
            match happened {
                UserEvent::UserRegistered(registered) => {
                    // Without an address the person is erased and cannot log in.
                    if let Some(email) = &registered.personal.email {
                        let key = self.lookup.email(&registered.app_id, email);
                        holders.insert((registered.app_id.as_str(), key), registered.user_id);
                    }
                }
                UserEvent::EmailChanged(changed) => {
                    holders.retain(|_, user_id| *user_id != changed.user_id);
                    moved.insert(changed.user_id);
                    if let Some(email) = &changed.personal.email {
                        let app_id = &event.recorded.metadata.app_id;
                        holders.insert((app_id.as_str(), self.lookup.email(app_id, email)), changed.user_id);
                    }
                }
                UserEvent::UserErased(erased) => {
                    holders.retain(|_, user_id| *user_id != erased.user_id);
                    moved.insert(erased.user_id);
                }
                UserEvent::EmailVerificationRequested(_)
                | UserEvent::EmailVerified(_)
                | UserEvent::EmailChangeRequested(_)
                | UserEvent::PasswordResetRequested(_)
                | UserEvent::PasswordReset(_)
                | UserEvent::PasswordChanged(_)
                | UserEvent::ProfileUpdated(_)
                | UserEvent::PasswordRehashed(_)
                | UserEvent::RoleGranted(_)
                | UserEvent::RoleRevoked(_)
                | UserEvent::UserBanned(_)
                | UserEvent::UserUnbanned(_)
                | UserEvent::AccessEnded(_)
                | UserEvent::WebhookNoticeRequested(_) => {}
            }
        }
        // Delete first, as another user may have taken the address that a person gave up.
        let mut rows = Rows::new(["id"]);
        for user_id in moved {
            rows.push([user_id.0.into()]);
        }
        tx.run_for(&rows, "DELETE FROM login_checks_v1 WHERE user_id IN (SELECT id FROM {rows})").await?;
        let mut rows = Rows::new(["app_id", "email", "user_id"]);
        for ((app_id, email), user_id) in holders {
            rows.push([app_id.into(), email.as_slice().into(), user_id.0.into()]);
        }
        tx.run_for(
            &rows,
            "INSERT INTO login_checks_v1 ({columns}) SELECT * FROM {rows} WHERE true
             ON CONFLICT (app_id, email) DO UPDATE SET user_id = excluded.user_id",
        )
        .await?;
        Ok(())
    }
}
