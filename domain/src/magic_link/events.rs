//! The events of a magic link.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MagicLinkId;
use crate::app_id::AppId;
use crate::claims::{ClaimChange, Claimed, Claiming, Holding};
use crate::event::events;
use crate::ids::{SessionId, UserId};
use crate::personal::Personal;
use crate::pkce::CodeChallenge;
use crate::redirect_uri::RedirectUri;
use crate::settings::SentBy;

/// A magic link was issued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MagicLinkIssued {
    /// Its id.
    pub link_id: MagicLinkId,
    /// The user with the address; without one, the id of the user that redeeming the link registers.
    pub user_id: UserId,
    /// The app.
    pub app_id: AppId,
    /// The user's epoch: how often all of their access had been ended. The link is void in a later epoch. Absent if the
    /// address had no account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Where the browser is sent with the code.
    pub redirect_uri: RedirectUri,
    /// The code challenge whose verifier the app must present at the exchange (PKCE, RFC 7636, method S256), if it sent
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_challenge: Option<CodeChallenge>,
    /// Who sends the mail.
    pub delivery: SentBy,
    /// When it expires unless redeemed.
    pub expires_at: Timestamp,
    /// When it happened.
    pub at: Timestamp,
    /// The address, the app's `state`, and the request's origin.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A magic link was replaced by another one and is void.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MagicLinkSuperseded {
    /// The link.
    pub link_id: MagicLinkId,
    /// As in [`MagicLinkIssued`].
    pub user_id: UserId,
    /// When it happened.
    pub at: Timestamp,
}

/// A magic link was redeemed with its button: the browser was sent to the app with a code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MagicLinkRedeemed {
    /// The link.
    pub link_id: MagicLinkId,
    /// The user with the address, for whom the code is.
    pub user_id: UserId,
    /// Whether the account was just created.
    pub registered: bool,
    /// The user's epoch: how often all of their access had been ended. The code is void in a later epoch.
    pub epoch: u32,
    /// When the code expires unless exchanged.
    pub code_expires_at: Timestamp,
    /// When it happened.
    pub at: Timestamp,
    /// The request's origin.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// The code of a magic link was exchanged for a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExchangeCodeRedeemed {
    /// The link.
    pub link_id: MagicLinkId,
    /// The user of the session.
    pub user_id: UserId,
    /// The session.
    pub session_id: SessionId,
    /// When it happened.
    pub at: Timestamp,
}

/// The code of a magic link was used a second time and may have been stolen. The session it started has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExchangeCodeReplayed {
    /// The link.
    pub link_id: MagicLinkId,
    /// The user of the session.
    pub user_id: UserId,
    /// The session.
    pub session_id: SessionId,
    /// When it happened.
    pub at: Timestamp,
    /// The origin of the second use.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

events! {
    /// The events of a magic link.
    pub enum MagicLinkEvent of "magic_link", whose |event| Some(event.user_id);
    MagicLinkIssued: sealed,
    MagicLinkSuperseded: open,
    MagicLinkRedeemed: sealed,
    ExchangeCodeRedeemed: open,
    ExchangeCodeReplayed: sealed,
}

impl Claiming for MagicLinkEvent {
    fn claims(&self, _: &Holding) -> Vec<ClaimChange> {
        match self {
            // It passes from the previous link to this one.
            Self::MagicLinkIssued(MagicLinkIssued { app_id, personal, .. }) => {
                let place = Claimed::MagicLink { app_id: app_id.clone(), email: personal.email.clone() };
                vec![ClaimChange::Release(place.clone()), ClaimChange::Take(place)]
            }
            Self::MagicLinkSuperseded(_)
            | Self::MagicLinkRedeemed(_)
            | Self::ExchangeCodeRedeemed(_)
            | Self::ExchangeCodeReplayed(_) => vec![],
        }
    }
}

impl MagicLinkEvent {
    /// The link.
    pub fn link_id(&self) -> MagicLinkId {
        match self {
            Self::MagicLinkIssued(event) => event.link_id,
            Self::MagicLinkSuperseded(event) => event.link_id,
            Self::MagicLinkRedeemed(event) => event.link_id,
            Self::ExchangeCodeRedeemed(event) => event.link_id,
            Self::ExchangeCodeReplayed(event) => event.link_id,
        }
    }
}
