//! A session: one login on one device, and its chain of refresh tokens (RFC 9700 section 4.14).

mod events;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::events::{
    ActiveOrganizationChosen, RefreshTokenReused, SessionEvent, SessionRefreshed, SessionRevoked,
    SessionStarted,
};
use crate::app_id::AppId;
use crate::event::{EventInfo as _, Stream, StreamId};
use crate::ids::{SessionId, UserId};
use crate::organization::OrganizationId;
use crate::personal::Personal;
use crate::time::after;
use crate::user::Client;

/// The login method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoginMethod {
    /// With a password.
    Password,
    /// By registering.
    Registration,
    /// An admin made a test token; there is no refresh token.
    Admin,
    /// With a mailed link.
    MagicLink,
}

impl LoginMethod {
    /// Its name in events and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Registration => "registration",
            Self::Admin => "admin",
            Self::MagicLink => "magic_link",
        }
    }
}

/// Why a session ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// The user logged out.
    Logout,
    /// The user revoked it, from another session or this one.
    User,
    /// An admin or an API key revoked it.
    Admin,
    /// The user was banned.
    Ban,
    /// A refresh token was used twice: it may have been stolen.
    RefreshTokenReused,
    /// The user exceeded the maximum number of sessions, and this was the oldest.
    Limit,
    /// The exchange code that started it was used twice: it may have been stolen.
    ExchangeCodeReplayed,
    /// The user changed their password.
    PasswordChanged,
    /// The user chose a new password with a token from a mail.
    PasswordReset,
    /// The user changed their address.
    EmailChanged,
    /// The address was verified, while the creator of the session had not proven control of it.
    EmailVerified,
    /// The user was erased.
    Erased,
}

/// The commands of a session.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum SessionCommand {
    /// Begin.
    Start {
        session_id: SessionId,
        user_id: UserId,
        app_id: AppId,
        method: LoginMethod,
        /// The user's epoch ([`User::epoch`](crate::user::User::epoch)).
        epoch: u32,
        /// The longest it can last, in seconds.
        ttl: u32,
        /// How long it lasts without a refresh, in seconds.
        idle_ttl: u32,
        client: Client,
        at: Timestamp,
        /// The latest time that events show: later than `at` while a clock is behind. The session lasts from then, so that
        /// it does not end when the clock is right again.
        latest: Timestamp,
    },
    /// Use a refresh token.
    Refresh {
        /// The generation in the token.
        generation: u32,
        /// How long the previous token is still answered, in seconds.
        grace: u32,
        /// How long it lasts without a refresh, in seconds.
        idle_ttl: u32,
        client: Client,
        at: Timestamp,
        /// The latest time that events show.
        latest: Timestamp,
    },
    /// Act for an organization from now on, or for none.
    ChooseOrganization { organization_id: Option<OrganizationId>, at: Timestamp },
    /// End it.
    Revoke { reason: RevocationReason, at: Timestamp },
}

/// Why a session refused a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The id is taken.
    #[error("there is a session of this id")]
    Exists,
    /// No session has this id, or the token is not one of its tokens.
    #[error("there is no such session")]
    Absent,
    /// It was revoked.
    #[error("the session was revoked")]
    Revoked,
    /// It has expired.
    #[error("the session has expired")]
    Expired,
}

/// The owner of a session; present from its first event on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct Owner {
    pub session_id: SessionId,
    pub user_id: UserId,
    pub app_id: AppId,
    /// How they logged in.
    pub method: LoginMethod,
}

/// A session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Session {
    /// Who it belongs to; absent before [`SessionStarted`].
    pub owner: Option<Owner>,
    /// The generation of the refresh token that can be used.
    pub generation: u32,
    /// When it was last refreshed, or started.
    pub refreshed_at: Timestamp,
    /// The latest time of its events, if a clock was set back since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Timestamp>,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ends however often it is refreshed.
    pub expires_at: Timestamp,
    /// When it ends unless it is refreshed.
    pub idle_expires_at: Timestamp,
    /// Whether it was ended.
    pub revoked: bool,
    /// The organization that its access tokens name, as long as the user is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<OrganizationId>,
    /// How often it has chosen one.
    #[serde(default)]
    pub choices: u32,
    /// The user's epoch when it was started: the user's state can end it, too
    /// ([`User::keeps`](crate::user::User::keeps)).
    #[serde(default)]
    pub epoch: u32,
    /// Where it was used last: a refresh records it only if it changes.
    #[serde(default)]
    pub client: Client,
}

impl Session {
    /// Its owner, if it can be used at this time.
    pub fn require_live(&self, at: Timestamp) -> Result<&Owner, SessionError> {
        let owner = self.owner.as_ref().ok_or(SessionError::Absent)?;
        if self.revoked {
            return Err(SessionError::Revoked);
        }
        if at >= self.expires_at || at >= self.idle_expires_at {
            return Err(SessionError::Expired);
        }
        Ok(owner)
    }

    fn decide(&self, command: SessionCommand) -> Result<Vec<SessionEvent>, SessionError> {
        match command {
            SessionCommand::Start {
                session_id,
                user_id,
                app_id,
                method,
                epoch,
                ttl,
                idle_ttl,
                client,
                at,
                latest,
            } => {
                if self.owner.is_some() {
                    return Err(SessionError::Exists);
                }
                // Bounded, as it may also be that another clock was far ahead once.
                let from = at.max(latest.min(after(at, seconds(ttl))));
                let expires_at = after(from, seconds(ttl));
                Ok(vec![SessionEvent::SessionStarted(SessionStarted {
                    session_id,
                    user_id,
                    app_id,
                    method,
                    epoch,
                    expires_at,
                    idle_expires_at: expires_at.min(after(from, seconds(idle_ttl))),
                    at,
                    personal: Personal::of(client),
                })])
            }
            SessionCommand::Refresh { generation, grace, idle_ttl, client, at, latest } => {
                self.refresh(generation, grace, idle_ttl, client, (at, latest))
            }
            SessionCommand::ChooseOrganization { organization_id, at } => {
                let Owner { session_id, user_id, .. } = *self.require_live(at)?;
                if organization_id == self.organization {
                    return Ok(vec![]);
                }
                let number = self.choices + 1;
                let chosen = ActiveOrganizationChosen { session_id, user_id, organization_id, number, at };
                Ok(vec![SessionEvent::ActiveOrganizationChosen(chosen)])
            }
            SessionCommand::Revoke { reason, at } => {
                let owner = self.owner.as_ref().ok_or(SessionError::Absent)?;
                Ok(if self.revoked { vec![] } else { vec![revoked(owner, reason, at)] })
            }
        }
    }

    /// The current token advances the chain. The previous one is answered again within the grace, without a new event:
    /// a client that lost the reply asks again. Any older one was copied, and ends the session.
    fn refresh(
        &self,
        generation: u32,
        grace: u32,
        idle_ttl: u32,
        client: Client,
        (at, latest): (Timestamp, Timestamp),
    ) -> Result<Vec<SessionEvent>, SessionError> {
        let owner = self.require_live(at)?;
        let Owner { session_id, user_id, .. } = *owner;
        let current = self.generation;
        if generation == current {
            // Where a clock was set back, the session must not end for that when it is right again.
            let latest = at.max(latest).max(self.latest.unwrap_or(self.refreshed_at));
            let idle_expires_at = self.expires_at.min(after(latest, seconds(idle_ttl)));
            let generation = current + 1;
            let personal = if client == self.client { Personal::default() } else { Personal::of(client) };
            return Ok(vec![SessionEvent::SessionRefreshed(SessionRefreshed {
                session_id,
                user_id,
                generation,
                idle_expires_at,
                at,
                personal,
            })]);
        }
        if generation > current {
            return Err(SessionError::Absent);
        }
        // Without a grace not even a simultaneous request is answered: its time may be a little earlier.
        let is_recent = grace > 0 && at <= after(self.refreshed_at, seconds(grace));
        if generation + 1 == current && is_recent {
            return Ok(vec![]);
        }
        let reused = RefreshTokenReused { session_id, user_id, generation, current, at };
        Ok(vec![
            SessionEvent::RefreshTokenReused(reused),
            revoked(owner, RevocationReason::RefreshTokenReused, at),
        ])
    }
}

fn seconds(n: u32) -> SignedDuration {
    SignedDuration::from_secs(n.into())
}

fn revoked(owner: &Owner, reason: RevocationReason, at: Timestamp) -> SessionEvent {
    let Owner { session_id, user_id, .. } = *owner;
    SessionEvent::SessionRevoked(SessionRevoked { session_id, user_id, reason, at })
}

impl StreamId {
    /// The stream of a session.
    pub fn session(id: SessionId) -> Self {
        Self::new(SessionEvent::AGGREGATE, id)
    }
}

impl Stream for Session {
    type Id = SessionId;

    fn stream(id: &SessionId) -> StreamId {
        StreamId::session(*id)
    }

    fn person(&self) -> Option<UserId> {
        self.owner.as_ref().map(|owner| owner.user_id)
    }
}

impl Aggregate for Session {
    const TYPE: &'static str = "session";
    type Command = SessionCommand;
    type Event = SessionEvent;
    type Error = SessionError;
    type Services = ();

    async fn handle(
        &mut self,
        command: SessionCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), SessionError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::SessionStarted(event) => {
                let SessionStarted {
                    session_id,
                    user_id,
                    app_id,
                    method,
                    epoch,
                    expires_at,
                    idle_expires_at,
                    at,
                    personal,
                } = event;
                self.client = Client { ip: personal.ip, user_agent: personal.user_agent };
                self.owner = Some(Owner { session_id, user_id, app_id, method });
                self.epoch = epoch;
                self.started_at = at;
                self.refreshed_at = at;
                self.expires_at = expires_at;
                self.idle_expires_at = idle_expires_at;
            }
            SessionEvent::SessionRefreshed(event) => {
                let SessionRefreshed { generation, idle_expires_at, at, personal, .. } = event;
                if !personal.is_empty() {
                    self.client = Client { ip: personal.ip, user_agent: personal.user_agent };
                }
                self.generation = generation;
                self.idle_expires_at = idle_expires_at;
                let latest = self.latest.unwrap_or(self.refreshed_at);
                self.latest = (latest > at).then_some(latest);
                self.refreshed_at = at;
            }
            SessionEvent::ActiveOrganizationChosen(event) => {
                self.organization = event.organization_id;
                self.choices = event.number;
            }
            SessionEvent::RefreshTokenReused(_) => {}
            SessionEvent::SessionRevoked(_) => self.revoked = true,
        }
    }
}

#[cfg(test)]
mod tests;
