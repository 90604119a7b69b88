//! Fills `login_checks`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::Event;
use domain::user::UserEvent;
use event_store::LookupKey;
use sqlx::SqliteConnection;

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::rows::{hex, hex_id, json_rows};

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

    async fn project(&self, tx: &mut SqliteConnection, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut rows = BTreeMap::new();
        for event in batch {
            match event.event()? {
                Event::User(UserEvent::UserRegistered(registered)) => {
                    // Without an address the person is erased: nobody logs in with it any more.
                    if let Some(email) = &registered.personal.email {
                        let key = hex(&self.lookup.email(&registered.app_id, email));
                        rows.insert((registered.app_id.as_str(), key), hex_id(registered.user_id.0));
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
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> =
            rows.into_iter().map(|((app_id, email), user_id)| (app_id, email, user_id)).collect();
        sqlx::query(
            "INSERT INTO login_checks_v1 (app_id, email, user_id)
             SELECT value ->> 0, unhex(value ->> 1), unhex(value ->> 2) FROM json_each(?1) WHERE true
             ON CONFLICT (app_id, email) DO UPDATE SET user_id = excluded.user_id",
        )
        .bind(json_rows(&rows))
        .execute(tx)
        .await?;
        Ok(())
    }
}
