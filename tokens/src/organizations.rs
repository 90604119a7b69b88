//! Derived tokens of organizations: of invitations, and API keys.

use domain::{InvitationId, OrganizationId, OrganizationKeyId};
use uuid::Uuid;

use crate::derived::{DerivedTokens, TokenPurpose};

/// The content of an invitation's token: whoever presents it must still show that its address is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvitationToken {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The invitation.
    pub invitation_id: InvitationId,
}

impl InvitationToken {
    /// The token in the mail.
    pub fn encode(self, tokens: &DerivedTokens) -> String {
        let (organization, invitation) = (self.organization_id.0, self.invitation_id.0);
        let payload = [&organization.as_bytes()[..], invitation.as_bytes()].concat();
        tokens.seal(TokenPurpose::Invitation, &payload)
    }

    /// Decodes a genuine token.
    pub fn decode(tokens: &DerivedTokens, token: &str) -> Option<Self> {
        let payload = tokens.open(TokenPurpose::Invitation, token)?;
        let (organization, invitation) = payload.split_first_chunk::<16>()?;
        Some(Self {
            organization_id: OrganizationId(Uuid::from_bytes(*organization)),
            invitation_id: InvitationId(Uuid::from_bytes(invitation.try_into().ok()?)),
        })
    }
}

/// The content of an API key of an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrganizationKeyToken {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The key.
    pub key_id: OrganizationKeyId,
}

impl OrganizationKeyToken {
    /// The key as it is issued.
    pub fn encode(self, tokens: &DerivedTokens) -> String {
        let payload = [&self.organization_id.0.as_bytes()[..], self.key_id.0.as_bytes()].concat();
        tokens.seal(TokenPurpose::OrganizationKey, &payload)
    }

    /// Decodes a genuine key.
    pub fn decode(tokens: &DerivedTokens, token: &str) -> Option<Self> {
        let payload = tokens.open(TokenPurpose::OrganizationKey, token)?;
        let (organization, key) = payload.split_first_chunk::<16>()?;
        Some(Self {
            organization_id: OrganizationId(Uuid::from_bytes(*organization)),
            key_id: OrganizationKeyId(Uuid::from_bytes(key.try_into().ok()?)),
        })
    }
}
