//! Who was a member of which organizations when an event happened.

use std::collections::{BTreeMap, BTreeSet};

use domain::organization::{InvitationAccepted, MemberAdded, OrganizationEvent};
use domain::user::UserEvent;
use domain::{Event, OrganizationId, UserId};

use crate::projector::{ProjectError, ProjectedEvent};
use crate::rows;
use crate::sql::{Rows, Transaction};

/// The memberships of the people of a batch, as they are at the event that was followed last.
#[derive(Default)]
pub(super) struct Members {
    of: BTreeMap<UserId, BTreeSet<OrganizationId>>,
    /// What the batch has changed, and whether it is a membership now.
    changed: BTreeMap<(OrganizationId, UserId), bool>,
    deleted: BTreeSet<OrganizationId>,
}

impl Members {
    /// As they were before the batch.
    pub async fn before(tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<Self, ProjectError> {
        let mut people = BTreeSet::new();
        for event in batch {
            let event = event.event()?;
            let is_looked_at =
                matches!(event, Event::Session(_) | Event::Lockout(_) | Event::Organization(_))
                    || matches!(event, Event::User(UserEvent::UserErased(_)));
            people.extend(event.person().filter(|_| is_looked_at));
        }
        let mut asked = Rows::new(["id"]);
        for person in people {
            asked.push([person.0.into()]);
        }
        let found = tx
            .run_for(
                &asked,
                "SELECT organization_id, user_id FROM {rows} JOIN stats_members_v2 ON stats_members_v2.user_id = id",
            )
            .await?;
        let mut of: BTreeMap<UserId, BTreeSet<OrganizationId>> = BTreeMap::new();
        for row in found {
            let organization = OrganizationId(rows::id(row.get(0)?)?);
            of.entry(UserId(rows::id(row.get(1)?)?)).or_default().insert(organization);
        }
        Ok(Self { of, ..Self::default() })
    }

    /// The organizations that a person is in.
    pub fn of(&self, person: UserId) -> impl Iterator<Item = OrganizationId> + '_ {
        self.of.get(&person).into_iter().flatten().copied()
    }

    /// Changes them as this event does. What an organization says counts, as in every decision.
    pub fn follow(&mut self, event: &Event) {
        match event {
            Event::Organization(event) => match event {
                OrganizationEvent::MemberAdded(MemberAdded { organization_id, user_id, .. })
                | OrganizationEvent::InvitationAccepted(InvitationAccepted {
                    organization_id,
                    user_id,
                    ..
                }) => {
                    self.of.entry(*user_id).or_default().insert(*organization_id);
                    self.changed.insert((*organization_id, *user_id), true);
                }
                OrganizationEvent::MemberRemoved(event) => {
                    self.of.entry(event.user_id).or_default().remove(&event.organization_id);
                    self.changed.insert((event.organization_id, event.user_id), false);
                }
                OrganizationEvent::OrganizationDeleted(event) => {
                    for organizations in self.of.values_mut() {
                        organizations.remove(&event.organization_id);
                    }
                    self.changed.retain(|(organization, _), _| *organization != event.organization_id);
                    self.deleted.insert(event.organization_id);
                }
                OrganizationEvent::OrganizationCreated(_)
                | OrganizationEvent::OrganizationRenamed(_)
                | OrganizationEvent::MemberRoleChanged(_)
                | OrganizationEvent::MemberInvited(_)
                | OrganizationEvent::InvitationRevoked(_)
                | OrganizationEvent::OrganizationKeyIssued(_)
                | OrganizationEvent::OrganizationKeyRevoked(_)
                | OrganizationEvent::OrganizationRoleSet(_)
                | OrganizationEvent::OrganizationRoleDeleted(_) => {}
            },
            // The organizations say so too, a moment later, but nothing may name the person meanwhile.
            Event::User(UserEvent::UserErased(event)) => {
                for organization in self.of.remove(&event.user_id).unwrap_or_default() {
                    self.changed.insert((organization, event.user_id), false);
                }
            }
            // Not what a person's own list of organizations says: that only tells where to look.
            _ => {}
        }
    }

    /// Writes what the batch has changed.
    pub async fn write(self, tx: &mut Transaction) -> Result<(), ProjectError> {
        let mut deleted = Rows::new(["id"]);
        for organization in &self.deleted {
            deleted.push([organization.0.into()]);
        }
        tx.run_for(&deleted, "DELETE FROM stats_members_v2 WHERE organization_id IN (SELECT id FROM {rows})")
            .await?;
        let (mut added, mut removed) =
            (Rows::new(["organization_id", "user_id"]), Rows::new(["organization", "person"]));
        for ((organization, person), is_member) in self.changed {
            let row = [organization.0.into(), person.0.into()];
            if is_member { added.push(row) } else { removed.push(row) }
        }
        tx.run_for(
            &added,
            "INSERT INTO stats_members_v2 ({columns}) SELECT * FROM {rows} WHERE true ON CONFLICT DO NOTHING",
        )
        .await?;
        tx.run_for(
            &removed,
            "DELETE FROM stats_members_v2 WHERE (organization_id, user_id) IN (SELECT organization, person FROM {rows})",
        )
        .await?;
        Ok(())
    }
}
