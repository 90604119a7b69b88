//! Fills `members`.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use domain::organization::OrganizationEvent;
use domain::user::UserEvent;
use domain::{Event, OrganizationId, Role, Timestamp, UserId};

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::sql::{Rows, Transaction};
use crate::store::ReadModels;

/// Writes `members`.
pub struct MembersProjector;

impl MembersProjector {
    pub(crate) fn new(_: &ReadModels) -> Self {
        Self
    }
}

/// The sum of a batch's changes to one membership.
enum Change<'a> {
    Began { app_id: &'a str, role: &'a Role, at: Timestamp },
    Role(&'a Role),
    Ended,
}

/// The sum of a batch's changes. No membership begins in an organization that is deleted, or of a person who is erased.
#[derive(Default)]
struct Changes<'a> {
    memberships: BTreeMap<(OrganizationId, UserId), Change<'a>>,
    deleted: BTreeSet<OrganizationId>,
    erased: BTreeSet<UserId>,
}

#[async_trait]
impl Projector for MembersProjector {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["members_v1"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    fn indexes_for_writing(&self) -> &'static [&'static str] {
        &["members_v1_user"]
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut changes = Changes::default();
        for event in batch {
            match event.event()? {
                Event::Organization(decoded) => {
                    changes.add(decoded, event.recorded.metadata.app_id.as_str());
                }
                // The end of each membership follows as an event of its organization, but not at once.
                Event::User(UserEvent::UserErased(event)) => {
                    changes.memberships.retain(|(_, user_id), _| *user_id != event.user_id);
                    changes.erased.insert(event.user_id);
                }
                _ => {}
            }
        }
        changes.write(tx).await
    }
}

impl<'a> Changes<'a> {
    fn add(&mut self, event: &'a OrganizationEvent, app_id: &'a str) {
        match event {
            OrganizationEvent::OrganizationCreated(_)
            | OrganizationEvent::OrganizationRenamed(_)
            | OrganizationEvent::MemberInvited(_)
            | OrganizationEvent::InvitationRevoked(_)
            | OrganizationEvent::OrganizationKeyIssued(_)
            | OrganizationEvent::OrganizationKeyRevoked(_)
            | OrganizationEvent::OrganizationRoleSet(_)
            | OrganizationEvent::OrganizationRoleDeleted(_) => {}
            OrganizationEvent::OrganizationDeleted(event) => {
                self.memberships.retain(|(id, _), _| *id != event.organization_id);
                self.deleted.insert(event.organization_id);
            }
            OrganizationEvent::MemberAdded(event) => {
                let began = Change::Began { app_id, role: &event.role, at: event.at };
                self.memberships.insert((event.organization_id, event.user_id), began);
            }
            OrganizationEvent::InvitationAccepted(event) => {
                let began = Change::Began { app_id, role: &event.role, at: event.at };
                self.memberships.insert((event.organization_id, event.user_id), began);
            }
            OrganizationEvent::MemberRoleChanged(event) => {
                let key = (event.organization_id, event.user_id);
                match self.memberships.get_mut(&key) {
                    Some(Change::Began { role, .. } | Change::Role(role)) => *role = &event.role,
                    Some(Change::Ended) | None => {
                        self.memberships.insert(key, Change::Role(&event.role));
                    }
                }
            }
            OrganizationEvent::MemberRemoved(event) => {
                self.memberships.insert((event.organization_id, event.user_id), Change::Ended);
            }
        }
    }

    async fn write(self, tx: &mut Transaction) -> Result<(), ProjectError> {
        let mut deleted = Rows::new(["id"]);
        for id in self.deleted {
            deleted.push([id.0.into()]);
        }
        let mut erased = Rows::new(["id"]);
        for id in self.erased {
            erased.push([id.0.into()]);
        }
        let mut began = Rows::new(["organization_id", "user_id", "app_id", "role", "joined_at"]);
        let mut changed = Rows::new(["organization", "person", "new_role"]);
        let mut ended = Rows::new(["organization", "person"]);
        for ((organization_id, user_id), change) in self.memberships {
            let (organization, user) = (organization_id.0, user_id.0);
            match change {
                Change::Began { app_id, role, at } => began.push([
                    organization.into(),
                    user.into(),
                    app_id.into(),
                    role.as_str().into(),
                    at.into(),
                ]),
                Change::Role(role) => changed.push([organization.into(), user.into(), role.as_str().into()]),
                Change::Ended => ended.push([organization.into(), user.into()]),
            }
        }
        tx.run_for(&deleted, "DELETE FROM members_v1 WHERE organization_id IN (SELECT id FROM {rows})")
            .await?;
        tx.run_for(&erased, "DELETE FROM members_v1 WHERE user_id IN (SELECT id FROM {rows})").await?;
        tx.run_for(
            &ended,
            "DELETE FROM members_v1
             WHERE (organization_id, user_id) IN (SELECT organization, person FROM {rows})",
        )
        .await?;
        tx.run_for(
            &changed,
            "UPDATE members_v1 SET role = new_role FROM {rows}
             WHERE organization_id = organization AND user_id = person",
        )
        .await?;
        tx.run_for(
            &began,
            "INSERT INTO members_v1 ({columns}) SELECT * FROM {rows} WHERE true
             ON CONFLICT (organization_id, user_id) DO UPDATE SET role = excluded.role, joined_at = excluded.joined_at",
        )
        .await?;
        Ok(())
    }
}
