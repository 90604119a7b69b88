//! The events of a session.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LoginMethod, RevocationReason};
use crate::app_id::AppId;
use crate::claims::{ClaimChange, Claimed, Claiming, Holding};
use crate::event::events;
use crate::ids::{SessionId, UserId};
use crate::organization::OrganizationId;
use crate::personal::Personal;

/// A session started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionStarted {
    /// Its id.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// The app.
    pub app_id: AppId,
    /// The login method.
    pub method: LoginMethod,
    /// The user's epoch: how often all of their sessions had been ended. In a later epoch this session has ended too,
    /// unless it was the one kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u32,
    /// The end of its maximum lifetime, however often it is refreshed.
    pub expires_at: Timestamp,
    /// When it expires unless refreshed.
    pub idle_expires_at: Timestamp,
    /// When it happened.
    pub at: Timestamp,
    /// The request's origin.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A refresh token was used: from now on only its successor is valid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRefreshed {
    /// The session.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// The generation of the successor.
    pub generation: u32,
    /// When it expires unless refreshed again.
    pub idle_expires_at: Timestamp,
    /// When it happened.
    pub at: Timestamp,
    /// The request's origin, if it differs from the last known one.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A refresh token was used a second time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RefreshTokenReused {
    /// The session.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// The generation of the token.
    pub generation: u32,
    /// The generation that was valid.
    pub current: u32,
    /// When it happened.
    pub at: Timestamp,
}

/// A session ended early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRevoked {
    /// The session.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// The reason.
    pub reason: RevocationReason,
    /// When it happened.
    pub at: Timestamp,
}

/// The session acts for an organization from now on, or for none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActiveOrganizationChosen {
    /// The session.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// The organization that its access tokens name, as long as the user is a member; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<OrganizationId>,
    /// How often the session has chosen, with this time.
    pub number: u32,
    /// When it happened.
    pub at: Timestamp,
}

events! {
    /// The events of a session.
    pub enum SessionEvent of "session", whose |event| Some(event.user_id);
    SessionStarted: sealed,
    SessionRefreshed: sealed,
    RefreshTokenReused: open,
    SessionRevoked: open,
    ActiveOrganizationChosen: open,
}

impl SessionEvent {
    fn claimed(user_id: UserId, session_id: SessionId) -> Claimed {
        Claimed::Session { user_id, session_id }
    }
}

impl Claiming for SessionEvent {
    fn claims(&self, _: &Holding) -> Vec<ClaimChange> {
        match self {
            Self::SessionStarted(SessionStarted { user_id, session_id, idle_expires_at, .. }) => {
                vec![ClaimChange::TakeUntil(Self::claimed(*user_id, *session_id), *idle_expires_at)]
            }
            Self::SessionRefreshed(SessionRefreshed { user_id, session_id, idle_expires_at, .. }) => {
                vec![ClaimChange::Extend(Self::claimed(*user_id, *session_id), *idle_expires_at)]
            }
            Self::SessionRevoked(SessionRevoked { user_id, session_id, .. }) => {
                vec![ClaimChange::Release(Self::claimed(*user_id, *session_id))]
            }
            Self::RefreshTokenReused(_) | Self::ActiveOrganizationChosen(_) => vec![],
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}
