//! Fills `users`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use domain::user::{ProfileField, ProfileUpdated, UserEvent, UserRegistered};
use domain::{AppId, Event, Personal, Role, Timestamp, UserId};
use event_store::{LookupKey, Sealer};

use super::TABLE;
use super::words::{self, Token};
use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::rows::{self, open, seal};
use crate::sql::{Query, Rows, Transaction};
use crate::store::ReadModels;

/// Writes `users`.
pub struct UsersProjector {
    sealer: Arc<Sealer>,
    lookup: Arc<LookupKey>,
}

/// What the tables have of a user.
struct Present {
    banned: bool,
    email_verified: bool,
    words: BTreeSet<Token>,
    marks: BTreeSet<Token>,
}

/// A row while a batch changes it.
#[expect(clippy::struct_excessive_bools, reason = "two are columns, two say what happens to the row")]
struct Draft {
    app_id: String,
    /// Before the batch; `None` if the batch makes the account.
    present: Option<Present>,
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
    /// Whether to delete the row.
    erased: bool,
}

#[async_trait]
impl Projector for UsersProjector {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn version(&self) -> u32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["users_v2", "user_words_v2", "user_counts_v2"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut events = Vec::new();
        for event in batch {
            let Event::User(event) = event.event()? else { continue };
            match event {
                // A new hash of the same password, or a mail whose link was not used, changes nothing that is shown.
                UserEvent::PasswordRehashed(_)
                | UserEvent::EmailVerificationRequested(_)
                | UserEvent::EmailChangeRequested(_)
                | UserEvent::PasswordResetRequested(_)
                | UserEvent::AccessEnded(_)
                | UserEvent::WebhookNoticeRequested(_) => {}
                event => events.push(event),
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
    /// A projector with the keys of the read models.
    pub(crate) fn new(models: &ReadModels) -> Self {
        Self { sealer: Arc::clone(&models.sealer), lookup: Arc::clone(&models.lookup) }
    }

    /// The current rows of the users that the events are about.
    async fn load(
        &self,
        tx: &mut Transaction,
        events: &[&UserEvent],
    ) -> Result<BTreeMap<UserId, Draft>, ProjectError> {
        let new = |event: &&&UserEvent| matches!(event, UserEvent::UserRegistered(_));
        let ids: BTreeSet<UserId> =
            events.iter().filter(|event| !new(event)).map(|event| event.user_id()).collect();
        let mut rows = Rows::new(["id"]);
        for id in ids {
            rows.push([id.0.into()]);
        }
        let found =
            tx.run_for(&rows, "SELECT * FROM users_v2 WHERE user_id IN (SELECT id FROM {rows})").await?;
        let mut drafts = BTreeMap::new();
        for row in &found {
            let user_id = UserId(rows::id(row.get("user_id")?)?);
            let sealed: Option<Vec<u8>> = row.get("sealed")?;
            let (app_id, roles): (String, String) = (row.get("app_id")?, row.get("roles")?);
            let roles: BTreeSet<Role> =
                serde_json::from_str(&roles).map_err(|_| ProjectError::Damaged("a user's roles"))?;
            let email_verified = row.get::<i64>("email_verified")? != 0;
            let banned = row.get::<i64>("banned")? != 0;
            let words = row.get::<&[u8]>("words")?.as_chunks::<8>().0.iter().copied().collect();
            let marks = words::marks(&self.lookup, &app_id, banned, email_verified, &roles);
            let draft = Draft {
                app_id,
                present: Some(Present { banned, email_verified, words, marks }),
                email: row.get("email")?,
                email_verified,
                banned,
                roles,
                created_at: row.get("created_at")?,
                updated_at: row.get("updated_at")?,
                personal: open(&self.sealer, TABLE, user_id.0, user_id, sealed.as_deref()).await?,
                sealed,
                personal_changed: false,
                erased: false,
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
        let missing = ProjectError::Damaged("an event is about a user who is not in the table");
        let draft = drafts.get_mut(&event.user_id()).ok_or(missing)?;
        let mut touch = |at: Timestamp| draft.updated_at = at.as_microsecond();
        match event {
            UserEvent::UserRegistered(_)
            | UserEvent::PasswordRehashed(_)
            | UserEvent::EmailVerificationRequested(_)
            | UserEvent::EmailChangeRequested(_)
            | UserEvent::PasswordResetRequested(_)
            | UserEvent::AccessEnded(_)
            | UserEvent::WebhookNoticeRequested(_) => {}
            UserEvent::UserErased(_) => draft.erased = true,
            UserEvent::EmailVerified(event) => {
                touch(event.at);
                draft.email_verified = true;
                if event.profile_cleared {
                    let personal = &mut draft.personal;
                    (personal.name, personal.phone, personal.avatar_url) = (None, None, None);
                    draft.personal_changed = true;
                }
            }
            UserEvent::EmailChanged(event) => {
                touch(event.at);
                draft.email_verified = true;
                // Absent once the person is erased.
                draft.email = match &event.personal.email {
                    Some(email) => Some(self.lookup.email(&app_of(&draft.app_id)?, email).to_vec()),
                    None => None,
                };
                draft.personal.email.clone_from(&event.personal.email);
                draft.personal_changed = true;
            }
            UserEvent::PasswordReset(event) => touch(event.at),
            UserEvent::PasswordChanged(event) => touch(event.at),
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
            present: None,
            email: personal.email.as_ref().map(|email| self.lookup.email(app_id, email).to_vec()),
            email_verified: false,
            banned: false,
            roles: BTreeSet::new(),
            created_at: personal.registered_at.unwrap_or(*at).as_microsecond(),
            updated_at: at.as_microsecond(),
            // Neither the password hash, the person's IP address and user agent, nor where they come from belong in a list
            // of users.
            personal: Personal {
                ip: None,
                user_agent: None,
                password_hash: None,
                external_id: None,
                registered_at: None,
                ..personal.clone()
            },
            sealed: None,
            personal_changed: true,
            erased: false,
        }
    }

    async fn write(&self, tx: &mut Transaction, drafts: BTreeMap<UserId, Draft>) -> Result<(), ProjectError> {
        let mut users = Rows::new([
            "user_id",
            "app_id",
            "email",
            "email_verified",
            "banned",
            "roles",
            "created_at",
            "updated_at",
            "words",
            "sealed",
        ]);
        let mut tokens = Tokens::new();
        let mut erased = Rows::new(["id"]);
        let mut counts = Counts::default();
        for (user_id, draft) in drafts {
            counts.change(&draft);
            let (former_words, former_marks) = match draft.present {
                Some(present) => (present.words, present.marks),
                None => Default::default(),
            };
            let place = (draft.created_at, user_id);
            if draft.erased {
                erased.push([user_id.0.into()]);
                tokens.change(place, &former_words, &BTreeSet::new());
                tokens.change(place, &former_marks, &BTreeSet::new());
                continue;
            }
            let (mut sealed, mut words) = (draft.sealed, former_words.clone());
            if draft.personal_changed {
                sealed = seal(&self.sealer, TABLE, user_id.0, user_id, &draft.personal).await?;
                words = words::tokens(&self.lookup, &draft.app_id, &draft.personal);
            }
            let marks =
                words::marks(&self.lookup, &draft.app_id, draft.banned, draft.email_verified, &draft.roles);
            tokens.change(place, &former_words, &words);
            tokens.change(place, &former_marks, &marks);
            users.push([
                user_id.0.into(),
                draft.app_id.into(),
                draft.email.into(),
                draft.email_verified.into(),
                draft.banned.into(),
                serde_json::to_string(&draft.roles).expect("roles are texts").into(),
                draft.created_at.into(),
                draft.updated_at.into(),
                words.into_iter().collect::<Vec<_>>().as_flattened().into(),
                sealed.into(),
            ]);
        }
        tx.run_for(
            &users,
            "INSERT INTO users_v2 ({columns}) SELECT * FROM {rows} WHERE true
             ON CONFLICT (user_id) DO UPDATE SET email = excluded.email, email_verified = excluded.email_verified,
               banned = excluded.banned, roles = excluded.roles, updated_at = excluded.updated_at,
               words = excluded.words, sealed = excluded.sealed",
        )
        .await?;
        tx.run_for(&erased, "DELETE FROM users_v2 WHERE user_id IN (SELECT id FROM {rows})").await?;
        tokens.write(tx).await?;
        counts.write(tx).await
    }
}

/// Changes of the index.
struct Tokens {
    gone: Rows<3>,
    new: Rows<3>,
}

impl Tokens {
    fn new() -> Self {
        Self { gone: Rows::new(["token", "at", "id"]), new: Rows::new(["word", "created_at", "owner_id"]) }
    }

    fn change(&mut self, (at, id): (i64, UserId), from: &BTreeSet<Token>, to: &BTreeSet<Token>) {
        let row = |token: &Token| [token.as_slice().into(), at.into(), id.0.into()];
        from.difference(to).for_each(|token| self.gone.push(row(token)));
        to.difference(from).for_each(|token| self.new.push(row(token)));
    }

    async fn write(self, tx: &mut Transaction) -> Result<(), ProjectError> {
        tx.run_for(
            &self.gone,
            "DELETE FROM user_words_v2 WHERE (word, created_at, owner_id) IN (SELECT token, at, id FROM {rows})",
        )
        .await?;
        tx.run_for(
            &self.new,
            "INSERT INTO user_words_v2 ({columns}) SELECT * FROM {rows} WHERE true ON CONFLICT DO NOTHING",
        )
        .await?;
        Ok(())
    }
}

/// Changes of the numbers of users: by app, and by whether they are banned, and verified.
#[derive(Default)]
struct Counts(BTreeMap<(String, bool, bool), i64>);

impl Counts {
    fn change(&mut self, draft: &Draft) {
        let mut add = |banned, verified, count| {
            *self.0.entry((draft.app_id.clone(), banned, verified)).or_default() += count;
        };
        if let Some(present) = &draft.present {
            add(present.banned, present.email_verified, -1);
        }
        if !draft.erased {
            add(draft.banned, draft.email_verified, 1);
        }
    }

    async fn write(self, tx: &mut Transaction) -> Result<(), ProjectError> {
        let mut changed = Rows::new(["app_id", "banned", "email_verified", "users"]);
        for ((app_id, banned, verified), count) in self.0.into_iter().filter(|(_, count)| *count != 0) {
            changed.push([app_id.into(), banned.into(), verified.into(), count.into()]);
        }
        // What somebody else has put there must not stop the projector.
        let written = tx
            .run_for(
                &changed,
                "INSERT INTO user_counts_v2 ({columns}) SELECT * FROM {rows} WHERE true
                 ON CONFLICT (app_id, banned, email_verified) DO UPDATE SET users = excluded.users
                   + CASE WHEN user_counts_v2.users BETWEEN 0 AND 1000000000000 THEN user_counts_v2.users ELSE 0 END
                 RETURNING users",
            )
            .await?;
        for row in &written {
            if row.get::<i64>("users")? == 0 {
                tx.run(Query::new("DELETE FROM user_counts_v2 WHERE users = 0")).await?;
                break;
            }
        }
        Ok(())
    }
}

fn app_of(name: &str) -> Result<AppId, ProjectError> {
    AppId::parse(name).map_err(|_| ProjectError::Damaged("a user's app"))
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
