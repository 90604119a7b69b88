//! The events of an organization.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InvitationId, OrganizationId, OrganizationKeyId, RolePermission, Slug};
use crate::app::ApiKeyId;
use crate::app_id::AppId;
use crate::claims::{ClaimChange, ClaimKind, Claimed, Claiming, Holding};
use crate::event::events;
use crate::ids::UserId;
use crate::personal::Personal;
use crate::role::Role;
use crate::settings::SentBy;

/// An organization was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationCreated {
    /// Its id.
    pub organization_id: OrganizationId,
    /// Its app.
    pub app_id: AppId,
    /// The name shown to people.
    pub name: String,
    /// Its name in URLs.
    pub slug: Slug,
    /// When it happened.
    pub at: Timestamp,
}

/// An organization was given another name or slug.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationRenamed {
    /// The organization.
    pub organization_id: OrganizationId,
    /// Its app.
    pub app_id: AppId,
    /// The name shown to people, from now on.
    pub name: String,
    /// Its name in URLs, from now on.
    pub slug: Slug,
    /// When it happened.
    pub at: Timestamp,
}

/// An organization was deleted, and with it all that it gave its members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationDeleted {
    /// The organization.
    pub organization_id: OrganizationId,
    /// When it happened.
    pub at: Timestamp,
}

/// A person became a member without an invitation: its creator, or somebody whom an admin of the app added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemberAdded {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The new member.
    pub user_id: UserId,
    /// Their role in the organization.
    pub role: Role,
    /// When it happened.
    pub at: Timestamp,
}

/// A member was given another role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemberRoleChanged {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The member.
    pub user_id: UserId,
    /// Their role from now on.
    pub role: Role,
    /// When it happened.
    pub at: Timestamp,
}

/// Somebody was invited to become a member. The address is in the personal part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemberInvited {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The invitation.
    pub invitation_id: InvitationId,
    /// The user who has proven that the address is theirs; otherwise an id of nobody. The address is sealed with its key.
    pub invitee_id: UserId,
    /// The role that it gives.
    pub role: Role,
    /// The member, or the admin of the app, who made it; absent if an API key did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invited_by: Option<UserId>,
    /// The API key that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<ApiKeyId>,
    /// Whether whoever made it did so as an admin of the app.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_admin: bool,
    /// Who delivers it.
    pub delivery: SentBy,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it happened.
    pub at: Timestamp,
    /// The address.
    #[serde(default)]
    pub personal: Personal,
}

/// An invitation was revoked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InvitationRevoked {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The invitation.
    pub invitation_id: InvitationId,
    /// When it happened.
    pub at: Timestamp,
}

/// An invitation was accepted: its reader is a member from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InvitationAccepted {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The invitation.
    pub invitation_id: InvitationId,
    /// The new member.
    pub user_id: UserId,
    /// Their role in the organization.
    pub role: Role,
    /// When it happened.
    pub at: Timestamp,
}

/// An API key of the organization was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationKeyIssued {
    /// The organization.
    pub organization_id: OrganizationId,
    /// Its id.
    pub key_id: OrganizationKeyId,
    /// The name of the key.
    pub name: String,
    /// What it allows in the app.
    pub permissions: BTreeSet<RolePermission>,
    /// The member who made it; absent if the app did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_by: Option<UserId>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it happened.
    pub at: Timestamp,
}

/// An API key of the organization was revoked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationKeyRevoked {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The id of the key.
    pub key_id: OrganizationKeyId,
    /// When it happened.
    pub at: Timestamp,
}

/// Why somebody is no longer a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// They left.
    Left,
    /// Another member, or an admin of the app, removed them.
    Removed,
    /// They were erased.
    Erased,
}

/// A person is no longer a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemberRemoved {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The former member.
    pub user_id: UserId,
    /// Why.
    pub reason: RemovalReason,
    /// When it happened.
    pub at: Timestamp,
}

/// A role of the organization's own was made, or allows something else from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationRoleSet {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The role.
    pub role: Role,
    /// What it allows.
    pub permissions: BTreeSet<RolePermission>,
    /// When it happened.
    pub at: Timestamp,
}

/// A role of the organization's own was deleted. Nobody had it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationRoleDeleted {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The role.
    pub role: Role,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of an organization.
    #[expect(clippy::large_enum_variant, reason = "an event is short-lived, and most are of the other kinds")]
    pub enum OrganizationEvent of "organization", whose |event| event.whose();
    OrganizationCreated: open,
    OrganizationRenamed: open,
    OrganizationDeleted: open,
    MemberAdded: open,
    MemberInvited: sealed,
    InvitationRevoked: open,
    InvitationAccepted: open,
    OrganizationKeyIssued: open,
    OrganizationKeyRevoked: open,
    MemberRoleChanged: open,
    MemberRemoved: open,
    OrganizationRoleSet: open,
    OrganizationRoleDeleted: open,
}

impl OrganizationEvent {
    /// The organization.
    pub fn organization_id(&self) -> OrganizationId {
        match self {
            Self::OrganizationCreated(event) => event.organization_id,
            Self::OrganizationRenamed(event) => event.organization_id,
            Self::OrganizationDeleted(event) => event.organization_id,
            Self::MemberAdded(event) => event.organization_id,
            Self::MemberInvited(event) => event.organization_id,
            Self::InvitationRevoked(event) => event.organization_id,
            Self::InvitationAccepted(event) => event.organization_id,
            Self::OrganizationKeyIssued(event) => event.organization_id,
            Self::OrganizationKeyRevoked(event) => event.organization_id,
            Self::MemberRoleChanged(event) => event.organization_id,
            Self::MemberRemoved(event) => event.organization_id,
            Self::OrganizationRoleSet(event) => event.organization_id,
            Self::OrganizationRoleDeleted(event) => event.organization_id,
        }
    }
}

/// Whom an event is about.
trait Whose {
    fn whose(&self) -> Option<UserId>;
}

macro_rules! about {
    (nobody: $($Event:ident),+; a_member: $($Member:ident),+;) => {
        $(impl Whose for $Event {
            fn whose(&self) -> Option<UserId> {
                None
            }
        })+
        $(impl Whose for $Member {
            fn whose(&self) -> Option<UserId> {
                Some(self.user_id)
            }
        })+
    };
}

about! {
    nobody: OrganizationCreated, OrganizationRenamed, OrganizationDeleted, OrganizationRoleSet, OrganizationRoleDeleted,
        InvitationRevoked, OrganizationKeyIssued, OrganizationKeyRevoked;
    a_member: MemberAdded, InvitationAccepted, MemberRoleChanged, MemberRemoved;
}

impl Whose for MemberInvited {
    fn whose(&self) -> Option<UserId> {
        Some(self.invitee_id)
    }
}

impl Claiming for OrganizationEvent {
    fn claims(&self, held: &Holding) -> Vec<ClaimChange> {
        let former = || held.of(ClaimKind::Slug).cloned().map(ClaimChange::Release);
        match self {
            Self::OrganizationCreated(OrganizationCreated { app_id, slug, .. })
            | Self::OrganizationRenamed(OrganizationRenamed { app_id, slug, .. }) => {
                let slug = Claimed::Slug { app_id: app_id.clone(), slug: slug.clone() };
                if held.of(ClaimKind::Slug).any(|held| *held == slug) {
                    return vec![];
                }
                former().chain([ClaimChange::Take(slug)]).collect()
            }
            Self::OrganizationDeleted(_) => former().collect(),
            Self::MemberAdded(_)
            | Self::MemberInvited(_)
            | Self::InvitationRevoked(_)
            | Self::InvitationAccepted(_)
            | Self::OrganizationKeyIssued(_)
            | Self::OrganizationKeyRevoked(_)
            | Self::MemberRoleChanged(_)
            | Self::MemberRemoved(_)
            | Self::OrganizationRoleSet(_)
            | Self::OrganizationRoleDeleted(_) => vec![],
        }
    }
}
