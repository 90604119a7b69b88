//! An organization: users of one app who belong together, each with a role.
//!
//! Nobody changes what ranks above them, or makes anybody more than they are, and there is always an owner. All of it is
//! decided here, on the organization's own events: what was taken away is gone with the acknowledgement.

mod error;
mod events;
mod invitations;
mod keys;
mod permission;
mod roles;
mod slug;

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::error::OrganizationError;
pub use self::events::{
    InvitationAccepted, InvitationRevoked, MemberAdded, MemberInvited, MemberRemoved, MemberRoleChanged,
    OrganizationCreated, OrganizationDeleted, OrganizationEvent, OrganizationKeyIssued,
    OrganizationKeyRevoked, OrganizationRenamed, OrganizationRoleDeleted, OrganizationRoleSet, RemovalReason,
};
pub use self::invitations::{Invitation, InvitationId, Invite, Inviter, MAX_INVITATIONS};
pub use self::keys::{IssueKey, MAX_KEY_PERMISSIONS, MAX_KEYS, OrganizationKey, OrganizationKeyId};
pub use self::permission::{InvalidRolePermission, RolePermission};
pub use self::roles::{
    MAX_PERMISSIONS, MAX_ROLES, RoleProblem, check_permissions, is_confusing, require_no_reserved,
};
pub use self::slug::{InvalidSlug, Slug};
use crate::app_id::AppId;
use crate::claims::{Claimed, Holding};
use crate::event::{EventInfo as _, Stream, StreamId};
use crate::ids::{UserId, id};
use crate::role::Role;

id!(
    /// An organization of an app.
    OrganizationId
);

/// The most members of an organization.
pub const MAX_MEMBERS: usize = 10_000;

/// The roles of every organization.
pub const BUILT_IN: [&str; 3] = ["owner", "admin", "member"];

/// What a role is worth when members act on one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Acts on nobody else.
    Member,
    /// Acts on members and admins, and changes the organization.
    Admin,
    /// May do everything. There is always one.
    Owner,
}

impl Rank {
    /// The rank of a role. It compares exactly: `Owner` is not `owner`.
    pub fn of(role: &Role) -> Self {
        match role.as_str() {
            "owner" => Self::Owner,
            "admin" => Self::Admin,
            _ => Self::Member,
        }
    }
}

/// Who acts on an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acting {
    /// A user, who may do what their role there allows.
    User(UserId),
    /// An admin of the app or one of its API keys, who may do everything.
    App,
}

/// The commands of an organization. Where they give a role, `is_template` says whether the app has one of that name.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum OrganizationCommand {
    /// Create it.
    Create { organization_id: OrganizationId, app_id: AppId, name: String, slug: Slug, at: Timestamp },
    /// Give it another name, or another slug, or both.
    Rename { acting: Acting, name: Option<String>, slug: Option<Slug>, at: Timestamp },
    /// Delete it.
    Delete { acting: Acting, at: Timestamp },
    /// Make a user a member.
    AddMember { acting: Acting, user_id: UserId, role: Role, is_template: bool, at: Timestamp },
    /// Invite somebody.
    Invite(Invite),
    /// Revoke an invitation.
    RevokeInvitation { acting: Acting, invitation_id: InvitationId, at: Timestamp },
    /// Accept an invitation, as the user who has its address.
    AcceptInvitation { invitation_id: InvitationId, user_id: UserId, at: Timestamp },
    /// Make an API key.
    IssueKey(IssueKey),
    /// Revoke an API key.
    RevokeKey { acting: Acting, key_id: OrganizationKeyId, at: Timestamp },
    /// Give a member another role.
    ChangeRole { acting: Acting, user_id: UserId, role: Role, is_template: bool, at: Timestamp },
    /// End a membership.
    RemoveMember { acting: Acting, user_id: UserId, at: Timestamp },
    /// Say what a role of the organization's own allows.
    SetRole { acting: Acting, role: Role, permissions: BTreeSet<RolePermission>, at: Timestamp },
    /// Delete a role of the organization's own.
    DeleteRole { acting: Acting, role: Role, at: Timestamp },
    /// End the membership of a person who was erased: even of the last owner, as nobody may keep a person's data alive.
    RemoveErased { user_id: UserId, at: Timestamp },
}

/// A member of an organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Their role.
    pub role: Role,
    /// Since when they are a member.
    pub joined_at: Timestamp,
}

/// An organization.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Organization {
    /// Its id; absent before [`OrganizationCreated`].
    pub id: Option<OrganizationId>,
    /// Its app.
    pub app_id: Option<AppId>,
    /// The name shown to people.
    pub name: String,
    /// Its name in URLs; absent once it is deleted.
    pub slug: Option<Slug>,
    /// Its members; none once it is deleted.
    pub members: BTreeMap<UserId, Member>,
    /// Its open invitations, and some that have expired.
    #[serde(default)]
    pub invitations: BTreeMap<InvitationId, Invitation>,
    /// The version at which somebody ceased to be a member, as long as an older invitation is open: it is not for them.
    #[serde(default)]
    pub departed: BTreeMap<UserId, u64>,
    /// Its API keys that are not revoked, and some that have expired; none once it is deleted.
    #[serde(default)]
    pub keys: BTreeMap<OrganizationKeyId, OrganizationKey>,
    /// The version of its stream.
    pub version: u64,
    /// The roles of its own, and what each allows.
    #[serde(default)]
    pub roles: BTreeMap<Role, BTreeSet<RolePermission>>,
    /// Whether it was deleted.
    pub deleted: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it, or one of its members, was last changed.
    pub updated_at: Timestamp,
}

impl Organization {
    /// Whether this is an organization of that app. A deleted one belongs to no app.
    pub fn is_of(&self, app_id: &AppId) -> bool {
        self.app_id.as_ref() == Some(app_id) && !self.deleted
    }

    /// The role of a member.
    pub fn role_of(&self, user_id: UserId) -> Option<&Role> {
        self.members.get(&user_id).map(|member| &member.role)
    }

    /// The rank of who acts: to those who are no members the organization does not exist.
    ///
    /// # Errors
    /// [`OrganizationError::Absent`].
    pub fn rank_of(&self, acting: Acting) -> Result<Rank, OrganizationError> {
        match acting {
            _ if self.id.is_none() || self.deleted => Err(OrganizationError::Absent),
            Acting::App => Ok(Rank::Owner),
            Acting::User(user_id) => self.role_of(user_id).map(Rank::of).ok_or(OrganizationError::Absent),
        }
    }

    /// The rank of who acts, if it is at least this one.
    ///
    /// # Errors
    /// [`OrganizationError::Absent`] and [`OrganizationError::NotAllowed`].
    pub fn require(&self, acting: Acting, least: Rank) -> Result<Rank, OrganizationError> {
        let rank = self.rank_of(acting)?;
        if rank >= least { Ok(rank) } else { Err(OrganizationError::NotAllowed) }
    }

    fn decide(&self, command: OrganizationCommand) -> Result<Option<OrganizationEvent>, OrganizationError> {
        match command {
            OrganizationCommand::Create { organization_id, app_id, name, slug, at } => {
                if self.id.is_some() {
                    return Err(OrganizationError::Exists);
                }
                let created = OrganizationCreated { organization_id, app_id, name, slug, at };
                Ok(Some(OrganizationEvent::OrganizationCreated(created)))
            }
            OrganizationCommand::Rename { acting, name, slug, at } => {
                self.require(acting, Rank::Admin)?;
                self.rename(name, slug, at)
            }
            OrganizationCommand::Delete { acting, at } => {
                self.require(acting, Rank::Owner)?;
                let organization_id = self.id()?;
                let deleted = OrganizationDeleted { organization_id, at };
                Ok(Some(OrganizationEvent::OrganizationDeleted(deleted)))
            }
            OrganizationCommand::AddMember { acting, user_id, role, is_template, at } => {
                let rank = self.require(acting, Rank::Admin)?;
                self.require_role(&role, is_template)?;
                if Rank::of(&role) > rank {
                    return Err(OrganizationError::AboveOneself);
                }
                if self.members.len() >= MAX_MEMBERS {
                    return Err(OrganizationError::TooManyMembers);
                }
                let organization_id = self.id()?;
                let added = MemberAdded { organization_id, user_id, role, at };
                Ok(Some(OrganizationEvent::MemberAdded(added)))
            }
            OrganizationCommand::Invite(invite) => self.invite(invite),
            OrganizationCommand::RevokeInvitation { acting, invitation_id, at } => {
                self.revoke(acting, invitation_id, at)
            }
            OrganizationCommand::AcceptInvitation { invitation_id, user_id, at } => {
                self.accept(invitation_id, user_id, at)
            }
            OrganizationCommand::IssueKey(issue) => self.issue_key(issue),
            OrganizationCommand::RevokeKey { acting, key_id, at } => self.revoke_key(acting, key_id, at),
            OrganizationCommand::ChangeRole { acting, user_id, role, is_template, at } => {
                self.change_role(acting, user_id, (role, is_template), at)
            }
            OrganizationCommand::RemoveMember { acting, user_id, at } => self.remove(acting, user_id, at),
            OrganizationCommand::SetRole { acting, role, permissions, at } => {
                self.set_role(acting, (role, permissions), at)
            }
            OrganizationCommand::DeleteRole { acting, role, at } => self.delete_role(acting, role, at),
            OrganizationCommand::RemoveErased { user_id, at } => {
                if self.role_of(user_id).is_none() {
                    return Ok(None);
                }
                self.removed(user_id, RemovalReason::Erased, at)
            }
        }
    }

    fn id(&self) -> Result<OrganizationId, OrganizationError> {
        self.id.ok_or(OrganizationError::Absent)
    }

    fn rename(
        &self,
        name: Option<String>,
        slug: Option<Slug>,
        at: Timestamp,
    ) -> Result<Option<OrganizationEvent>, OrganizationError> {
        let (Some(app_id), Some(former)) = (self.app_id.clone(), self.slug.clone()) else {
            return Err(OrganizationError::Absent);
        };
        let name = name.unwrap_or_else(|| self.name.clone());
        let slug = slug.unwrap_or_else(|| former.clone());
        if name == self.name && slug == former {
            return Ok(None);
        }
        let renamed = OrganizationRenamed { organization_id: self.id()?, app_id, name, slug, at };
        Ok(Some(OrganizationEvent::OrganizationRenamed(renamed)))
    }

    fn change_role(
        &self,
        acting: Acting,
        user_id: UserId,
        (role, is_template): (Role, bool),
        at: Timestamp,
    ) -> Result<Option<OrganizationEvent>, OrganizationError> {
        let rank = self.require(acting, Rank::Admin)?;
        let former = self.role_of(user_id).ok_or(OrganizationError::NoSuchMember)?;
        self.require_role(&role, is_template)?;
        if Rank::of(former) > rank || Rank::of(&role) > rank {
            return Err(OrganizationError::AboveOneself);
        }
        if *former == role {
            return Ok(None);
        }
        if Rank::of(&role) < Rank::Owner {
            self.require_another_owner(user_id)?;
        }
        let organization_id = self.id()?;
        let changed = MemberRoleChanged { organization_id, user_id, role, at };
        Ok(Some(OrganizationEvent::MemberRoleChanged(changed)))
    }

    /// Everybody may leave; admins and owners may remove others.
    fn remove(
        &self,
        acting: Acting,
        user_id: UserId,
        at: Timestamp,
    ) -> Result<Option<OrganizationEvent>, OrganizationError> {
        let leaves = acting == Acting::User(user_id);
        let rank = self.require(acting, if leaves { Rank::Member } else { Rank::Admin })?;
        let role = self.role_of(user_id).ok_or(OrganizationError::NoSuchMember)?;
        if Rank::of(role) > rank {
            return Err(OrganizationError::AboveOneself);
        }
        self.require_another_owner(user_id)?;
        self.removed(user_id, if leaves { RemovalReason::Left } else { RemovalReason::Removed }, at)
    }

    fn removed(
        &self,
        user_id: UserId,
        reason: RemovalReason,
        at: Timestamp,
    ) -> Result<Option<OrganizationEvent>, OrganizationError> {
        let removed = MemberRemoved { organization_id: self.id()?, user_id, reason, at };
        Ok(Some(OrganizationEvent::MemberRemoved(removed)))
    }

    fn require_another_owner(&self, user_id: UserId) -> Result<(), OrganizationError> {
        let is_owner = |member: &Member| Rank::of(&member.role) == Rank::Owner;
        let would_be_none = self.members.get(&user_id).is_some_and(is_owner)
            && !self.members.iter().any(|(other, member)| *other != user_id && is_owner(member));
        if would_be_none { Err(OrganizationError::LastOwner) } else { Ok(()) }
    }
}

impl StreamId {
    /// The stream of an organization.
    pub fn organization(id: OrganizationId) -> Self {
        Self::new(OrganizationEvent::AGGREGATE, id)
    }
}

impl Stream for Organization {
    type Id = OrganizationId;

    fn stream(id: &OrganizationId) -> StreamId {
        StreamId::organization(*id)
    }

    fn held(&self) -> Holding {
        let slug = self.app_id.clone().zip(self.slug.clone());
        slug.map(|(app_id, slug)| Claimed::Slug { app_id, slug }).into_iter().collect()
    }
}

impl Aggregate for Organization {
    const TYPE: &'static str = "organization";
    type Command = OrganizationCommand;
    type Event = OrganizationEvent;
    type Error = OrganizationError;
    type Services = ();

    async fn handle(
        &mut self,
        command: OrganizationCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), OrganizationError> {
        if let Some(event) = self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: OrganizationEvent) {
        self.version += 1;
        match event {
            OrganizationEvent::OrganizationCreated(OrganizationCreated {
                organization_id,
                app_id,
                name,
                slug,
                at,
            }) => {
                self.id = Some(organization_id);
                self.app_id = Some(app_id);
                self.name = name;
                self.slug = Some(slug);
                self.created_at = at;
                self.updated_at = at;
            }
            OrganizationEvent::OrganizationRenamed(OrganizationRenamed { name, slug, at, .. }) => {
                self.name = name;
                self.slug = Some(slug);
                self.updated_at = at;
            }
            OrganizationEvent::OrganizationDeleted(OrganizationDeleted { at, .. }) => {
                self.deleted = true;
                self.slug = None;
                self.members.clear();
                self.roles.clear();
                self.invitations.clear();
                self.departed.clear();
                self.keys.clear();
                self.updated_at = at;
            }
            OrganizationEvent::MemberAdded(MemberAdded { user_id, role, at, .. }) => {
                self.members.insert(user_id, Member { role, joined_at: at });
                self.updated_at = at;
            }
            OrganizationEvent::MemberInvited(event) => {
                self.updated_at = event.at;
                self.apply_invited(event);
            }
            OrganizationEvent::InvitationRevoked(InvitationRevoked { invitation_id, at, .. }) => {
                self.invitations.remove(&invitation_id);
                self.updated_at = at;
            }
            OrganizationEvent::InvitationAccepted(InvitationAccepted {
                invitation_id,
                user_id,
                role,
                at,
                ..
            }) => {
                self.invitations.remove(&invitation_id);
                self.members.insert(user_id, Member { role, joined_at: at });
                self.updated_at = at;
            }
            OrganizationEvent::OrganizationKeyIssued(event) => {
                self.updated_at = event.at;
                self.apply_key_issued(event);
            }
            OrganizationEvent::OrganizationKeyRevoked(OrganizationKeyRevoked { key_id, at, .. }) => {
                self.keys.remove(&key_id);
                self.updated_at = at;
            }
            OrganizationEvent::MemberRoleChanged(MemberRoleChanged { user_id, role, at, .. }) => {
                if let Some(member) = self.members.get_mut(&user_id) {
                    member.role = role;
                }
                self.end_invitations_of(user_id);
                self.updated_at = at;
            }
            OrganizationEvent::OrganizationRoleSet(OrganizationRoleSet { role, permissions, at, .. }) => {
                self.roles.insert(role, permissions);
                self.updated_at = at;
            }
            OrganizationEvent::OrganizationRoleDeleted(OrganizationRoleDeleted { role, at, .. }) => {
                self.roles.remove(&role);
                self.updated_at = at;
            }
            OrganizationEvent::MemberRemoved(MemberRemoved { user_id, at, .. }) => {
                self.members.remove(&user_id);
                self.end_invitations_of(user_id);
                self.depart(user_id);
                self.updated_at = at;
            }
        }
    }
}

#[cfg(test)]
mod tests;
