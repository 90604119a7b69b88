//! A magic link: a mailed link to a page with a button, and a code that an app exchanges for tokens.
//!
//! The link is redeemed once, which sends the browser to the app with a code; the code is exchanged once, which begins
//! a session. A second use of a code ends that session: one of the two who had the code was not entitled to it (RFC
//! 6749 section 4.1.2).

mod events;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::events::{
    ExchangeCodeRedeemed, ExchangeCodeReplayed, MagicLinkEvent, MagicLinkIssued, MagicLinkRedeemed,
    MagicLinkSuperseded,
};
use crate::app_id::AppId;
use crate::email::Email;
use crate::event::{EventInfo as _, Stream, StreamId};
use crate::ids::{SessionId, UserId, id};
use crate::personal::Personal;
use crate::pkce::CodeChallenge;
use crate::redirect_uri::RedirectUri;
use crate::settings::{AppSettings, Registration};
use crate::time::after;
use crate::user::{Access, Client};

id!(
    /// A magic link, from its mail to the session that it led to.
    MagicLinkId
);

/// The commands of a magic link.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum MagicLinkCommand {
    /// Issue the link.
    Issue {
        link_id: MagicLinkId,
        /// The user with this address; if there is none, a new id for the user that redeeming the link registers.
        user_id: UserId,
        /// The user's epoch; absent if the address is unknown.
        epoch: Option<u32>,
        app_id: AppId,
        settings: Box<AppSettings>,
        /// Where the mail goes.
        email: Email,
        /// Where the browser is sent with the code.
        redirect_uri: RedirectUri,
        /// The app's `state`, which it gets back there.
        state: Option<String>,
        /// The challenge whose verifier the app must present, if it sent one.
        code_challenge: Option<CodeChallenge>,
        client: Client,
        at: Timestamp,
    },
    /// Void the link, since another replaces it.
    Supersede { at: Timestamp },
    /// Redeem the link (the button was pressed).
    Redeem {
        /// Who has the address now.
        account: Account,
        /// The app's settings now.
        settings: Box<AppSettings>,
        client: Client,
        at: Timestamp,
    },
    /// Exchange the code for a session.
    RedeemCode {
        /// The hash of the verifier that came with the code, if one came.
        presented: Option<CodeChallenge>,
        /// The user's epoch now.
        epoch: u32,
        /// Since when they are an admin, if they are one now.
        admin_since: Option<Timestamp>,
        /// The session that begins.
        session_id: SessionId,
        client: Client,
        at: Timestamp,
    },
}

/// Who has the address of a link when it is redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum Account {
    /// A user. The same append records that the address is proven.
    Existing {
        user_id: UserId,
        /// Their epoch, after that.
        epoch: u32,
        /// When their access was last ended, before that.
        before: Access,
        /// Since when they are an admin, if they are one.
        admin_since: Option<Timestamp>,
    },
    /// No user. The same append registers one with the id in the link.
    New,
}

/// Why a magic link refused a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MagicLinkError {
    /// The id is taken.
    #[error("there is a magic link of this id")]
    Exists,
    /// No magic link has this id.
    #[error("there is no such magic link")]
    Absent,
    /// The app does not allow this redirect URI.
    #[error("the app has no such redirect URI")]
    RedirectNotAllowed,
    /// Another link replaced it, or all access of its user was ended since.
    #[error("the magic link is no longer good")]
    Superseded,
    /// It has expired.
    #[error("the magic link has expired")]
    Expired,
    /// It was redeemed.
    #[error("the magic link was used")]
    Used,
    /// The address is unknown, and the app takes no new users.
    #[error("the app takes no new users")]
    RegistrationClosed,
    /// The code was never issued, has expired, was used, came without its verifier or with a wrong one, or all sessions
    /// of the user were ended since.
    #[error("the exchange code is not valid")]
    InvalidCode,
}

/// The data that a link was issued with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct Issued {
    pub link_id: MagicLinkId,
    /// Who had the address, or who will get it.
    pub user_id: UserId,
    pub app_id: AppId,
    /// Where the mail went; absent once the person is erased.
    pub email: Option<Email>,
    /// Where the browser is sent with the code.
    pub redirect_uri: RedirectUri,
    /// The app's `state`, which it gets back there.
    pub state: Option<String>,
    /// The challenge whose verifier the app must present.
    pub code_challenge: Option<CodeChallenge>,
    /// When it expires unless it is redeemed.
    pub expires_at: Timestamp,
    /// When it was issued.
    pub at: Timestamp,
    /// The epoch of the user who had the address.
    #[serde(default)]
    pub epoch: Option<u32>,
}

impl Issued {
    /// Whether it was issued to this user, and not to a different or unknown owner of the address.
    fn is_to(&self, user_id: UserId) -> bool {
        self.epoch.is_some() && self.user_id == user_id
    }

    /// Whether all access of this user was ended since. The epoch decides if the link has one of this user; the time
    /// decides if the link was issued to a different or unknown owner of the address.
    pub fn is_older_than(&self, user_id: UserId, access: Access) -> bool {
        match self.epoch.filter(|_| self.is_to(user_id)) {
            Some(epoch) => epoch != access.epoch,
            None => access.ended_at.is_some_and(|ended| self.at <= ended),
        }
    }

    /// Whether it was issued before its user became an admin: an app's server that received it may not have been
    /// entitled to an admin's session.
    fn is_older_than_role(&self, admin_since: Option<Timestamp>) -> bool {
        admin_since.is_some_and(|since| self.at <= since)
    }

    /// Whether it may not let this admin in. The time alone does not decide: the clocks of nodes differ, and what was
    /// issued to an unknown owner was issued without looking at the admin.
    fn is_not_for_admin(&self, user_id: UserId, admin_since: Option<Timestamp>) -> bool {
        self.is_older_than_role(admin_since) || admin_since.is_some() && !self.is_to(user_id)
    }
}

/// The stage of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It can be redeemed until it expires.
    #[default]
    Live,
    /// Another link replaced it.
    Superseded,
    /// It was redeemed, and its code can be exchanged.
    Redeemed {
        /// For whom.
        user_id: UserId,
        /// Their epoch then.
        epoch: u32,
        /// When the code expires.
        code_expires_at: Timestamp,
    },
    /// Its code was exchanged.
    Exchanged {
        /// For whom.
        user_id: UserId,
        /// For which session.
        session_id: SessionId,
    },
    /// Its code was presented again.
    Replayed,
}

/// A magic link.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct MagicLink {
    /// The data that it was issued with; absent before [`MagicLinkIssued`].
    pub issued: Option<Issued>,
    pub stage: Stage,
}

impl MagicLink {
    /// The data that it was issued with, if it can be redeemed at this time.
    pub fn require_live(&self, at: Timestamp) -> Result<&Issued, MagicLinkError> {
        let issued = self.issued.as_ref().ok_or(MagicLinkError::Absent)?;
        match self.stage {
            Stage::Live if at >= issued.expires_at => Err(MagicLinkError::Expired),
            Stage::Live => Ok(issued),
            Stage::Superseded => Err(MagicLinkError::Superseded),
            Stage::Redeemed { .. } | Stage::Exchanged { .. } | Stage::Replayed => Err(MagicLinkError::Used),
        }
    }

    /// The user of the code, and the session that it began if it was exchanged.
    pub fn holder(&self) -> Option<(UserId, Option<SessionId>)> {
        match self.stage {
            Stage::Redeemed { user_id, .. } => Some((user_id, None)),
            Stage::Exchanged { user_id, session_id } => Some((user_id, Some(session_id))),
            Stage::Live | Stage::Superseded | Stage::Replayed => None,
        }
    }

    fn decide(&self, command: MagicLinkCommand) -> Result<Vec<MagicLinkEvent>, MagicLinkError> {
        match command {
            MagicLinkCommand::Issue { .. } => self.issue(command),
            MagicLinkCommand::Supersede { at } => Ok(match self.require_live(at) {
                Ok(Issued { link_id, user_id, .. }) => {
                    let (link_id, user_id) = (*link_id, *user_id);
                    vec![MagicLinkEvent::MagicLinkSuperseded(MagicLinkSuperseded { link_id, user_id, at })]
                }
                Err(MagicLinkError::Absent) => return Err(MagicLinkError::Absent),
                Err(_) => vec![],
            }),
            MagicLinkCommand::Redeem { account, settings, client, at } => {
                self.redeem(account, &settings, client, at)
            }
            MagicLinkCommand::RedeemCode { .. } => self.redeem_code(command),
        }
    }

    fn issue(&self, command: MagicLinkCommand) -> Result<Vec<MagicLinkEvent>, MagicLinkError> {
        let MagicLinkCommand::Issue {
            link_id,
            user_id,
            epoch,
            app_id,
            settings,
            email,
            redirect_uri,
            state,
            code_challenge,
            client,
            at,
        } = command
        else {
            unreachable!("called for Issue only");
        };
        if self.issued.is_some() {
            return Err(MagicLinkError::Exists);
        }
        if !settings.allows_redirect_to(&redirect_uri) {
            return Err(MagicLinkError::RedirectNotAllowed);
        }
        Ok(vec![MagicLinkEvent::MagicLinkIssued(MagicLinkIssued {
            link_id,
            user_id,
            app_id,
            epoch,
            redirect_uri,
            code_challenge,
            delivery: settings.delivery,
            expires_at: after(at, seconds(settings.magic_link_ttl)),
            at,
            personal: Personal { email: Some(email), state, ..Personal::of(client) },
        })])
    }

    fn redeem(
        &self,
        account: Account,
        settings: &AppSettings,
        client: Client,
        at: Timestamp,
    ) -> Result<Vec<MagicLinkEvent>, MagicLinkError> {
        let issued = self.require_live(at)?;
        // The person was erased since: an old mail must not bring their address back.
        if issued.email.is_none() {
            return Err(MagicLinkError::Absent);
        }
        // Checked again, since the app may have removed it from its list.
        if !settings.allows_redirect_to(&issued.redirect_uri) {
            return Err(MagicLinkError::RedirectNotAllowed);
        }
        let (user_id, epoch, registered) = match account {
            Account::Existing { user_id, before, admin_since, .. }
                if issued.is_older_than(user_id, before) || issued.is_not_for_admin(user_id, admin_since) =>
            {
                return Err(MagicLinkError::Superseded);
            }
            Account::Existing { user_id, epoch, .. } => (user_id, epoch, false),
            Account::New if settings.registration == Registration::Open => (issued.user_id, 0, true),
            Account::New => return Err(MagicLinkError::RegistrationClosed),
        };
        Ok(vec![MagicLinkEvent::MagicLinkRedeemed(MagicLinkRedeemed {
            link_id: issued.link_id,
            user_id,
            registered,
            epoch,
            code_expires_at: after(at, seconds(settings.exchange_code_ttl)),
            at,
            personal: Personal::of(client),
        })])
    }

    /// A wrong verifier is refused and leaves the code usable; otherwise anybody who saw the code in transit could
    /// spoil it. Reuse of a code ends its session, by either party: two had the code, and only one was entitled to it.
    fn redeem_code(&self, command: MagicLinkCommand) -> Result<Vec<MagicLinkEvent>, MagicLinkError> {
        let MagicLinkCommand::RedeemCode { presented, epoch, admin_since, session_id, client, at } = command
        else {
            unreachable!("called for RedeemCode only");
        };
        let issued = self.issued.as_ref().ok_or(MagicLinkError::InvalidCode)?;
        let link_id = issued.link_id;
        match self.stage {
            Stage::Redeemed { user_id, epoch: then, code_expires_at } => {
                let proven = match (&issued.code_challenge, &presented) {
                    (Some(expected), Some(presented)) => expected.matches(presented),
                    (None, None) => true,
                    // A verifier for a code without a challenge: somebody removed the challenge (RFC 9700 section
                    // 4.8.2).
                    (Some(_), None) | (None, Some(_)) => false,
                };
                let is_over =
                    at >= code_expires_at || epoch != then || issued.is_older_than_role(admin_since);
                if is_over || !proven {
                    return Err(MagicLinkError::InvalidCode);
                }
                let redeemed = ExchangeCodeRedeemed { link_id, user_id, session_id, at };
                Ok(vec![MagicLinkEvent::ExchangeCodeRedeemed(redeemed)])
            }
            Stage::Exchanged { user_id, session_id } => {
                let personal = Personal::of(client);
                let replayed = ExchangeCodeReplayed { link_id, user_id, session_id, at, personal };
                Ok(vec![MagicLinkEvent::ExchangeCodeReplayed(replayed)])
            }
            Stage::Live | Stage::Superseded | Stage::Replayed => Err(MagicLinkError::InvalidCode),
        }
    }
}

fn seconds(n: u32) -> SignedDuration {
    SignedDuration::from_secs(n.into())
}

impl StreamId {
    /// The stream of a magic link.
    pub fn magic_link(id: MagicLinkId) -> Self {
        Self::new(MagicLinkEvent::AGGREGATE, id)
    }
}

impl Stream for MagicLink {
    type Id = MagicLinkId;

    fn stream(id: &MagicLinkId) -> StreamId {
        StreamId::magic_link(*id)
    }

    fn person(&self) -> Option<UserId> {
        self.issued.as_ref().map(|issued| issued.user_id)
    }
}

impl Aggregate for MagicLink {
    const TYPE: &'static str = "magic_link";
    type Command = MagicLinkCommand;
    type Event = MagicLinkEvent;
    type Error = MagicLinkError;
    type Services = ();

    async fn handle(
        &mut self,
        command: MagicLinkCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), MagicLinkError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: MagicLinkEvent) {
        match event {
            MagicLinkEvent::MagicLinkIssued(event) => {
                let MagicLinkIssued { link_id, user_id, app_id, epoch, redirect_uri, code_challenge, .. } =
                    event;
                let Personal { email, state, .. } = event.personal;
                let (expires_at, at) = (event.expires_at, event.at);
                let issued = Issued {
                    link_id,
                    user_id,
                    app_id,
                    email,
                    redirect_uri,
                    state,
                    code_challenge,
                    expires_at,
                    at,
                    epoch,
                };
                self.issued = Some(issued);
            }
            MagicLinkEvent::MagicLinkSuperseded(_) => self.stage = Stage::Superseded,
            MagicLinkEvent::MagicLinkRedeemed(event) => {
                let MagicLinkRedeemed { user_id, epoch, code_expires_at, .. } = event;
                self.stage = Stage::Redeemed { user_id, epoch, code_expires_at };
            }
            MagicLinkEvent::ExchangeCodeRedeemed(event) => {
                let ExchangeCodeRedeemed { user_id, session_id, .. } = event;
                self.stage = Stage::Exchanged { user_id, session_id };
            }
            MagicLinkEvent::ExchangeCodeReplayed(_) => self.stage = Stage::Replayed,
        }
    }
}

#[cfg(test)]
mod tests;
