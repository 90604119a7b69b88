//! What roles of an organization allow: the built-in ones, its own, and those that its app gives to all organizations.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    Acting, BUILT_IN, Invitation, Organization, OrganizationError, OrganizationEvent,
    OrganizationRoleDeleted, OrganizationRoleSet, Rank, RolePermission,
};
use crate::role::Role;
use crate::role_templates::RoleTemplates;

/// The most roles of an organization's own, and the most templates of an app.
pub const MAX_ROLES: usize = 50;

/// The most permissions of a role: as long as they can be, they fit into an access token.
pub const MAX_PERMISSIONS: usize = 50;

/// Why a role stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoleProblem {
    /// There is none of this name.
    #[error("there is no such role")]
    Absent,
    /// It is a built-in one, or its name differs from one only in case.
    #[error("owner, admin and member are built in: no role has such a name, in whatever case")]
    Reserved,
    /// There are [`MAX_ROLES`].
    #[error("there are {MAX_ROLES} roles, which is the maximum")]
    TooMany,
    /// There are more than [`MAX_PERMISSIONS`].
    #[error("a role has at most {MAX_PERMISSIONS} permissions")]
    TooManyPermissions,
    /// Members have it, or somebody was invited to it.
    #[error("members have this role, or open invitations give it")]
    InUse,
}

/// Whether the name differs from a built-in role only in case: people would take it for that.
pub fn is_confusing(role: &Role) -> bool {
    let is_like = |name: &&str| role.as_str().eq_ignore_ascii_case(name) && role.as_str() != *name;
    BUILT_IN.iter().any(is_like)
}

/// Refuses more than [`MAX_PERMISSIONS`].
///
/// # Errors
/// [`RoleProblem::TooManyPermissions`].
pub fn check_permissions(permissions: &BTreeSet<RolePermission>) -> Result<(), RoleProblem> {
    if permissions.len() > MAX_PERMISSIONS { Err(RoleProblem::TooManyPermissions) } else { Ok(()) }
}

impl Organization {
    /// What a role allows here: an organization's own hides the app's of that name.
    pub fn permissions<'a>(
        &'a self,
        role: &Role,
        templates: &'a RoleTemplates,
    ) -> Option<&'a BTreeSet<RolePermission>> {
        self.roles.get(role).or_else(|| templates.permissions(role))
    }

    /// Refuses to give a role that does not exist here, or one of the organization's own that allows what the app allows owners
    /// alone.
    ///
    /// # Errors
    /// [`OrganizationError::NoSuchRole`] and [`OrganizationError::AboveOneself`].
    pub fn require_may_give(
        &self,
        acting: Acting,
        role: &Role,
        templates: &RoleTemplates,
    ) -> Result<(), OrganizationError> {
        let rank = self.rank_of(acting)?;
        self.require_role(role, templates.permissions(role).is_some())?;
        // Ranks decide about the built-in ones, and the app's are below admin.
        let own = self.roles.get(role).filter(|_| Rank::of(role) == Rank::Member);
        own.map_or(Ok(()), |permissions| require_no_reserved(rank, permissions, templates))
    }

    /// Refuses a role that does not exist here.
    pub(super) fn require_role(&self, role: &Role, is_template: bool) -> Result<(), OrganizationError> {
        let exists = is_template || BUILT_IN.contains(&role.as_str()) || self.roles.contains_key(role);
        if exists { Ok(()) } else { Err(OrganizationError::NoSuchRole) }
    }

    /// Says what a role of the organization's own allows.
    pub(super) fn set_role(
        &self,
        acting: Acting,
        (role, permissions): (Role, BTreeSet<RolePermission>),
        at: Timestamp,
    ) -> Result<Option<OrganizationEvent>, OrganizationError> {
        self.require(acting, Rank::Admin)?;
        if BUILT_IN.contains(&role.as_str()) || is_confusing(&role) {
            return Err(RoleProblem::Reserved.into());
        }
        check_permissions(&permissions)?;
        if self.roles.get(&role) == Some(&permissions) {
            return Ok(None);
        }
        if !self.roles.contains_key(&role) && self.roles.len() >= MAX_ROLES {
            return Err(RoleProblem::TooMany.into());
        }
        let set = OrganizationRoleSet { organization_id: self.id()?, role, permissions, at };
        Ok(Some(OrganizationEvent::OrganizationRoleSet(set)))
    }

    /// Deletes a role of the organization's own that nobody has.
    pub(super) fn delete_role(
        &self,
        acting: Acting,
        role: Role,
        at: Timestamp,
    ) -> Result<Option<OrganizationEvent>, OrganizationError> {
        self.require(acting, Rank::Admin)?;
        if !self.roles.contains_key(&role) {
            return Err(RoleProblem::Absent.into());
        }
        let is_held = self.members.values().any(|member| member.role == role);
        let is_offered = |invitation: &Invitation| at < invitation.expires_at && invitation.role == role;
        if is_held || self.invitations.values().any(is_offered) {
            return Err(RoleProblem::InUse.into());
        }
        let deleted = OrganizationRoleDeleted { organization_id: self.id()?, role, at };
        Ok(Some(OrganizationEvent::OrganizationRoleDeleted(deleted)))
    }
}

/// What the app gives to owners and to no other role, an admin puts into none: they could give it to themselves. A role of the
/// app's own, whatever it allows, ranks below admin, because the app says so.
///
/// # Errors
/// [`OrganizationError::AboveOneself`].
pub fn require_no_reserved(
    rank: Rank,
    permissions: &BTreeSet<RolePermission>,
    templates: &RoleTemplates,
) -> Result<(), OrganizationError> {
    let owner = Role::owner();
    let owners = || templates.permissions(&owner).into_iter().flatten();
    let others = || templates.roles.iter().filter(|(role, _)| **role != owner).flat_map(|(_, given)| given);
    let is_reserved = |permission: &RolePermission| {
        owners().any(|it| it.overlaps(permission)) && !others().any(|it| it.covers(permission))
    };
    if rank < Rank::Owner && permissions.iter().any(is_reserved) {
        return Err(OrganizationError::AboveOneself);
    }
    Ok(())
}
