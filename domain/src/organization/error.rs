//! What an organization refuses.

use super::{MAX_INVITATIONS, MAX_KEY_PERMISSIONS, MAX_KEYS, MAX_MEMBERS, RoleProblem};

/// Why an organization refused a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrganizationError {
    /// The id is taken.
    #[error("there is an organization of this id")]
    Exists,
    /// There is no such organization, or the user who acts is not a member.
    #[error("there is no such organization")]
    Absent,
    /// There is no such member.
    #[error("the organization has no such member")]
    NoSuchMember,
    /// The role does not allow it.
    #[error("the role in the organization does not allow this")]
    NotAllowed,
    /// A member cannot act on one who ranks higher, or make anybody more than they are.
    #[error("a member cannot act on one of a higher rank, or give a role above their own")]
    AboveOneself,
    /// It would be without an owner.
    #[error("the last owner stays an owner")]
    LastOwner,
    /// There is no such role.
    #[error("the roles are owner, admin, member, those of the organization and those of the app")]
    NoSuchRole,
    /// It has [`MAX_MEMBERS`].
    #[error("an organization can have at most {MAX_MEMBERS} members")]
    TooManyMembers,
    /// A role stays as it is.
    #[error(transparent)]
    Role(#[from] RoleProblem),
    /// [`MAX_INVITATIONS`] of its invitations are open.
    #[error("an organization can have at most {MAX_INVITATIONS} open invitations")]
    TooManyInvitations,
    /// There is no such invitation, or none any more.
    #[error("there is no such invitation")]
    NoSuchInvitation,
    /// The person is a member already.
    #[error("the person is a member already")]
    AlreadyMember,
    /// There is no such API key, or none any more.
    #[error("the organization has no such API key")]
    NoSuchKey,
    /// [`MAX_KEYS`] of its API keys are valid.
    #[error("an organization can have at most {MAX_KEYS} API keys")]
    TooManyKeys,
    /// A key allows nothing, or too much to list.
    #[error("an API key has 1 to {MAX_KEY_PERMISSIONS} permissions")]
    KeyPermissions,
    /// It would have expired already.
    #[error("a time in the future")]
    EndsInThePast,
}
