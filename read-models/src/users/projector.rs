//! Fills `users`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use domain::user::{ProfileField, ProfileUpdated, UserEvent, UserRegistered};
use domain::{Event, Personal, Role, Timestamp, UserId};
use event_store::{LookupKey, Sealer};
use sqlx::{Row, SqliteConnection};

use super::{TABLE, words};
use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::rows::{self, hex, hex_id, json_rows, open, seal};

/// Writes `users`.
pub struct UsersProjector {
    sealer: Arc<Sealer>,
    lookup: Arc<LookupKey>,
}

/// A row while a batch changes it.
struct Draft {
    app_id: String,
    email: Option<Vec<u8>>,
    email_verified: bool,
    banned: bool,
    roles: BTreeSet<Role>,
    created_at: i64,
    updated_at: i64,
    personal: Personal,
    sealed: Option<Vec<u8>>,
    /// Whether the personal part differs from what is sealed.
    personal_changed: bool,
}

#[async_trait]
impl Projector for UsersProjector {
    fn name(&self) -> &'static str {
        "users"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["users_v1", "user_words_v1"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    async fn project(&self, tx: &mut SqliteConnection, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut events = Vec::new();
        for event in batch {
            match event.event()? {
                // A new hash of the same password changes nothing that is shown.
                Event::User(UserEvent::PasswordRehashed(_))
                | Event::App(_)
                | Event::Lockout(_)
                | Event::Session(_) => {}
                Event::User(user) => events.push(user),
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        let mut drafts = self.load(tx, &events).await?;
        for event in events {
            self.change(&mut drafts, event)?;
        }
        self.write(tx, drafts).await
    }
}

impl UsersProjector {
    /// A projector that seals and looks up with these.
    pub fn new(sealer: Arc<Sealer>, lookup: Arc<LookupKey>) -> Self {
        Self { sealer, lookup }
    }

    /// The rows, as they are, of the users that the events are about.
    async fn load(
        &self,
        tx: &mut SqliteConnection,
        events: &[&UserEvent],
    ) -> Result<BTreeMap<UserId, Draft>, ProjectError> {
        let new = |event: &&&UserEvent| matches!(event, UserEvent::UserRegistered(_));
        let ids: BTreeSet<String> =
            events.iter().filter(|event| !new(event)).map(|event| hex_id(event.user_id().0)).collect();
        let mut drafts = BTreeMap::new();
        if ids.is_empty() {
            return Ok(drafts);
        }
        let ids: Vec<String> = ids.into_iter().collect();
        let found =
            sqlx::query("SELECT * FROM users_v1 WHERE user_id IN (SELECT unhex(value) FROM json_each(?1))")
                .bind(json_rows(&ids))
                .fetch_all(tx)
                .await?;
        for row in &found {
            let user_id = UserId(rows::id(row.try_get("user_id")?)?);
            let sealed: Option<Vec<u8>> = row.try_get("sealed")?;
            let roles: String = row.try_get("roles")?;
            let draft = Draft {
                app_id: row.try_get("app_id")?,
                email: row.try_get("email")?,
                email_verified: row.try_get("email_verified")?,
                banned: row.try_get("banned")?,
                roles: serde_json::from_str(&roles).map_err(|_| ProjectError::Damaged("a user's roles"))?,
                created_at: row.try_get("created_at")?,
                updated_at: row.try_get("updated_at")?,
                personal: open(&self.sealer, TABLE, user_id.0, user_id, sealed.as_deref()).await?,
                sealed,
                personal_changed: false,
            };
            drafts.insert(user_id, draft);
        }
        Ok(drafts)
    }

    fn change(&self, drafts: &mut BTreeMap<UserId, Draft>, event: &UserEvent) -> Result<(), ProjectError> {
        if let UserEvent::UserRegistered(event) = event {
            drafts.insert(event.user_id, self.registered(event));
            return Ok(());
        }
        let missing = ProjectError::Damaged("an event of a user who is not in the table");
        let draft = drafts.get_mut(&event.user_id()).ok_or(missing)?;
        let mut touch = |at: Timestamp| draft.updated_at = at.as_microsecond();
        match event {
            UserEvent::UserRegistered(_) | UserEvent::PasswordRehashed(_) => {}
            UserEvent::ProfileUpdated(event) => {
                touch(event.at);
                change_profile(&mut draft.personal, event);
                draft.personal_changed = true;
            }
            UserEvent::RoleGranted(event) => {
                touch(event.at);
                draft.roles.insert(event.role.clone());
            }
            UserEvent::RoleRevoked(event) => {
                touch(event.at);
                draft.roles.remove(&event.role);
            }
            UserEvent::UserBanned(event) => {
                touch(event.at);
                draft.banned = true;
            }
            UserEvent::UserUnbanned(event) => {
                touch(event.at);
                draft.banned = false;
            }
        }
        Ok(())
    }

    fn registered(&self, event: &UserRegistered) -> Draft {
        let UserRegistered { app_id, at, personal, .. } = event;
        Draft {
            app_id: app_id.to_string(),
            email: personal.email.as_ref().map(|email| self.lookup.email(app_id, email).to_vec()),
            email_verified: false,
            banned: false,
            roles: BTreeSet::new(),
            created_at: at.as_microsecond(),
            updated_at: at.as_microsecond(),
            // Neither the password's hash nor where the person was has a place in a list of users.
            personal: Personal { ip: None, user_agent: None, password_hash: None, ..personal.clone() },
            sealed: None,
            personal_changed: true,
        }
    }

    async fn write(
        &self,
        tx: &mut SqliteConnection,
        drafts: BTreeMap<UserId, Draft>,
    ) -> Result<(), ProjectError> {
        let (mut users, mut reworded, mut words) = (vec![], vec![], vec![]);
        for (user_id, draft) in drafts {
            let id = hex_id(user_id.0);
            let mut sealed = draft.sealed;
            if draft.personal_changed {
                sealed = seal(&self.sealer, TABLE, user_id.0, user_id, &draft.personal).await?;
                for token in words::tokens(&self.lookup, &draft.app_id, &draft.personal) {
                    words.push((hex(&token), id.clone()));
                }
                reworded.push(id.clone());
            }
            users.push((
                id,
                draft.app_id,
                draft.email.map(|email| hex(&email)),
                u8::from(draft.email_verified),
                u8::from(draft.banned),
                serde_json::to_string(&draft.roles).expect("roles are texts"),
                draft.created_at,
                draft.updated_at,
                sealed.map(|sealed| hex(&sealed)),
            ));
        }
        sqlx::query(
            "INSERT INTO users_v1 (user_id, app_id, email, email_verified, banned, roles, created_at, updated_at, sealed)
             SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5,
               value ->> 6, value ->> 7, unhex(value ->> 8) FROM json_each(?1) WHERE true
             ON CONFLICT (user_id) DO UPDATE SET email = excluded.email, email_verified = excluded.email_verified,
               banned = excluded.banned, roles = excluded.roles, updated_at = excluded.updated_at,
               sealed = excluded.sealed",
        )
        .bind(json_rows(&users))
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM user_words_v1 WHERE user_id IN (SELECT unhex(value) FROM json_each(?1))")
            .bind(json_rows(&reworded))
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO user_words_v1 (word, user_id)
             SELECT unhex(value ->> 0), unhex(value ->> 1) FROM json_each(?1)",
        )
        .bind(json_rows(&words))
        .execute(tx)
        .await?;
        Ok(())
    }
}

fn change_profile(personal: &mut Personal, event: &ProfileUpdated) {
    let change = |field, old: &mut Option<String>, new: &Option<String>| {
        if event.cleared.contains(&field) {
            *old = None;
        } else if new.is_some() {
            old.clone_from(new);
        }
    };
    change(ProfileField::Name, &mut personal.name, &event.personal.name);
    change(ProfileField::Phone, &mut personal.phone, &event.personal.phone);
    change(ProfileField::AvatarUrl, &mut personal.avatar_url, &event.personal.avatar_url);
}
