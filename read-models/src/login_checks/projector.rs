//! Fills `login_checks`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::Event;
use domain::user::UserEvent;
use event_store::LookupKey;

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::sql::{Rows, Transaction};

/// Writes `login_checks`.
pub struct LoginChecksProjector {
    lookup: Arc<LookupKey>,
}

impl LoginChecksProjector {
    /// A projector that looks addresses up with this key.
    pub fn new(lookup: Arc<LookupKey>) -> Self {
        Self { lookup }
    }
}

#[async_trait]
impl Projector for LoginChecksProjector {
    fn name(&self) -> &'static str {
        "login_checks"
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

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut users = BTreeMap::new();
        for event in batch {
            match event.event()? {
                Event::User(UserEvent::UserRegistered(registered)) => {
                    // Without an address the person is erased: nobody logs in with it any more.
                    if let Some(email) = &registered.personal.email {
                        let key = self.lookup.email(&registered.app_id, email);
                        users.insert((registered.app_id.as_str(), key), registered.user_id);
                    }
                }
                Event::User(
                    UserEvent::ProfileUpdated(_)
                    | UserEvent::PasswordRehashed(_)
                    | UserEvent::RoleGranted(_)
                    | UserEvent::RoleRevoked(_)
                    | UserEvent::UserBanned(_)
                    | UserEvent::UserUnbanned(_),
                )
                | Event::App(_)
                | Event::Lockout(_)
                | Event::Session(_) => {}
            }
        }
        let mut rows = Rows::new(["app_id", "email", "user_id"]);
        for ((app_id, email), user_id) in users {
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
