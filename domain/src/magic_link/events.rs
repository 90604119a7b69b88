//! What happens to a magic link.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app_id::AppId;
use crate::claims::{ClaimChange, Claimed, Claiming, Holding};
use crate::event::events;
use crate::ids::{MagicLinkId, SessionId, UserId};
use crate::personal::Personal;
use crate::pkce::CodeChallenge;
use crate::redirect_uri::RedirectUri;
use crate::settings::SentBy;

/// A magic link was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MagicLinkIssued {
    /// Its id.
    pub link_id: MagicLinkId,
    /// Who has the address; where nobody has, the id of the account that is made if the link is redeemed.
    pub user_id: UserId,
    /// Of which app.
    pub app_id: AppId,
    /// How often all that the user could come in with had been ended at once. If that happens again, the link is dead. Absent
    /// where nobody had the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Where the browser is sent with the code.
    pub redirect_uri: RedirectUri,
    /// What the app has to show the secret of when it exchanges the code (PKCE, RFC 7636, method S256), if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_challenge: Option<CodeChallenge>,
    /// Who sends the mail.
    pub delivery: SentBy,
    /// When it ends unless it is redeemed.
    pub expires_at: Timestamp,
    /// When.
    pub at: Timestamp,
    /// The address, what the app wants to hear again, where from.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A magic link is useless, as another took its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MagicLinkSuperseded {
    /// Which.
    pub link_id: MagicLinkId,
    /// As in [`MagicLinkIssued`].
    pub user_id: UserId,
    /// When.
    pub at: Timestamp,
}

/// Somebody followed a magic link and pressed the button: the browser was sent to the app with a code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MagicLinkRedeemed {
    /// Which.
    pub link_id: MagicLinkId,
    /// Who has the address: who the code is for.
    pub user_id: UserId,
    /// Whether the account was made just now.
    pub registered: bool,
    /// How often all sessions of the user had been ended at once. If that happens again, the code is good for nothing.
    pub epoch: u32,
    /// When the code ends unless it is exchanged.
    pub code_expires_at: Timestamp,
    /// When.
    pub at: Timestamp,
    /// Where from.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// The code of a magic link was changed for a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExchangeCodeRedeemed {
    /// Which link.
    pub link_id: MagicLinkId,
    /// Whose session.
    pub user_id: UserId,
    /// Which.
    pub session_id: SessionId,
    /// When.
    pub at: Timestamp,
}

/// The code of a magic link came a second time: it may have been stolen. The session that it began is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExchangeCodeReplayed {
    /// Which link.
    pub link_id: MagicLinkId,
    /// Whose session.
    pub user_id: UserId,
    /// Which.
    pub session_id: SessionId,
    /// When.
    pub at: Timestamp,
    /// Where it came from this time.
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
            // It passes from the link before to this one.
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
    /// Which link's event it is.
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
