//! Invitations: each is for one address, made by somebody who may give its role, used once.
//!
//! The address is only in the sealed part of its event. The state has none, so that no copy of it outlives the person.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Acting, InvitationAccepted, InvitationRevoked, MAX_MEMBERS, MemberInvited, Organization,
    OrganizationError, OrganizationEvent, Rank,
};
use crate::app::ApiKeyId;
use crate::email::Email;
use crate::ids::{UserId, id};
use crate::personal::Personal;
use crate::role::Role;
use crate::settings::SentBy;
use crate::time::after;

id!(
    /// An invitation to an organization.
    InvitationId
);

/// The most invitations of an organization that are open at a time.
pub const MAX_INVITATIONS: usize = 500;

/// Who made an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inviter {
    /// A member.
    Member(UserId),
    /// An admin of the app.
    Admin(UserId),
    /// An API key of the app, or of the platform.
    Key(ApiKeyId),
}

impl Inviter {
    /// As whom they act on the organization.
    pub fn acting(self) -> Acting {
        match self {
            Self::Member(user_id) => Acting::User(user_id),
            Self::Admin(_) | Self::Key(_) => Acting::App,
        }
    }

    /// The user, unless it is a key.
    pub fn user(self) -> Option<UserId> {
        match self {
            Self::Member(user_id) | Self::Admin(user_id) => Some(user_id),
            Self::Key(_) => None,
        }
    }
}

/// A new invitation.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct Invite {
    pub invitation_id: InvitationId,
    /// Whose key seals the address: the user who has proven that it is theirs, or else nobody else's.
    pub invitee_id: UserId,
    pub email: Email,
    pub role: Role,
    /// Whether the app has a template of this role.
    pub is_template: bool,
    pub inviter: Inviter,
    /// Who delivers it.
    pub delivery: SentBy,
    /// For how many seconds it can be accepted.
    pub ttl: u32,
    pub at: Timestamp,
}

/// An invitation that can still be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The role that it gives.
    pub role: Role,
    /// Who made it.
    pub inviter: Inviter,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it was made.
    pub at: Timestamp,
    /// The version of the organization's stream that its event has: there the address is.
    pub version: u64,
}

impl Organization {
    /// The invitation of this id, if it can be accepted.
    pub fn invitation(&self, id: InvitationId, at: Timestamp) -> Option<&Invitation> {
        self.invitations.get(&id).filter(|invitation| at < invitation.expires_at)
    }

    pub(super) fn invite(&self, invite: Invite) -> Result<Option<OrganizationEvent>, OrganizationError> {
        let Invite { invitation_id, invitee_id, email, role, is_template, inviter, delivery, ttl, at } =
            invite;
        let rank = self.require(inviter.acting(), Rank::Admin)?;
        self.require_role(&role, is_template)?;
        if Rank::of(&role) > rank {
            return Err(OrganizationError::AboveOneself);
        }
        let open = self.invitations.values().filter(|invitation| at < invitation.expires_at);
        if open.count() >= MAX_INVITATIONS {
            return Err(OrganizationError::TooManyInvitations);
        }
        Ok(Some(OrganizationEvent::MemberInvited(MemberInvited {
            organization_id: self.id()?,
            invitation_id,
            invitee_id,
            role,
            invited_by: inviter.user(),
            key_id: if let Inviter::Key(key_id) = inviter { Some(key_id) } else { None },
            as_admin: matches!(inviter, Inviter::Admin(_)),
            delivery,
            expires_at: after(at, SignedDuration::from_secs(ttl.into())),
            at,
            personal: Personal { email: Some(email), ..Personal::default() },
        })))
    }

    pub(super) fn revoke(
        &self,
        acting: Acting,
        invitation_id: InvitationId,
        at: Timestamp,
    ) -> Result<Option<OrganizationEvent>, OrganizationError> {
        let rank = self.require(acting, Rank::Admin)?;
        let invitation = self.invitation(invitation_id, at).ok_or(OrganizationError::NoSuchInvitation)?;
        if Rank::of(&invitation.role) > rank {
            return Err(OrganizationError::AboveOneself);
        }
        let organization_id = self.id()?;
        let revoked = InvitationRevoked { organization_id, invitation_id, at };
        Ok(Some(OrganizationEvent::InvitationRevoked(revoked)))
    }

    pub(super) fn accept(
        &self,
        invitation_id: InvitationId,
        user_id: UserId,
        at: Timestamp,
    ) -> Result<Option<OrganizationEvent>, OrganizationError> {
        let invitation = self.invitation(invitation_id, at).ok_or(OrganizationError::NoSuchInvitation)?;
        if self.departed.get(&user_id).is_some_and(|left| *left > invitation.version) {
            return Err(OrganizationError::NoSuchInvitation);
        }
        if self.role_of(user_id).is_some() {
            return Err(OrganizationError::AlreadyMember);
        }
        if self.members.len() >= MAX_MEMBERS {
            return Err(OrganizationError::TooManyMembers);
        }
        let (organization_id, role) = (self.id()?, invitation.role.clone());
        let accepted = InvitationAccepted { organization_id, invitation_id, user_id, role, at };
        Ok(Some(OrganizationEvent::InvitationAccepted(accepted)))
    }

    pub(super) fn apply_invited(&mut self, event: MemberInvited) {
        let MemberInvited { invitation_id, role, invited_by, key_id, as_admin, expires_at, at, .. } = event;
        let inviter = match (invited_by, key_id) {
            (Some(user_id), _) if as_admin => Inviter::Admin(user_id),
            (Some(user_id), _) => Inviter::Member(user_id),
            (None, Some(key_id)) => Inviter::Key(key_id),
            // Nobody whom an event could name: it cannot be accepted.
            (None, None) => return,
        };
        self.invitations.retain(|_, invitation| at < invitation.expires_at);
        let version = self.version;
        self.invitations.insert(invitation_id, Invitation { role, inviter, expires_at, at, version });
        self.forget_departed();
    }

    /// What ends a membership ends the invitations that would bring it back, and only to that person.
    pub(super) fn depart(&mut self, user_id: UserId) {
        self.departed.insert(user_id, self.version);
        self.forget_departed();
    }

    /// Keeps whom an open invitation could bring back, so that the list does not grow for ever.
    fn forget_departed(&mut self) {
        let oldest = self.invitations.values().map(|invitation| invitation.version).min();
        self.departed.retain(|_, left| oldest.is_some_and(|oldest| oldest < *left));
    }

    /// Ends the invitations of a member who could no longer make them, for good: a later promotion brings none back.
    pub(super) fn end_invitations_of(&mut self, user_id: UserId) {
        let rank = self.role_of(user_id).map(Rank::of).filter(|rank| *rank >= Rank::Admin);
        self.invitations.retain(|_, invitation| {
            invitation.inviter != Inviter::Member(user_id)
                || rank.is_some_and(|rank| Rank::of(&invitation.role) <= rank)
        });
    }
}
