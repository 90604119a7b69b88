//! What all aggregates and their events have in common: streams, names, and the one enum of every event.

use std::fmt;

use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::AccessEvent;
use crate::app::AppEvent;
use crate::app_id::AppId;
use crate::delivery::DeliveryEvent;
use crate::ids::{AccessId, EventId, JournalId, MagicLinkId, SessionId, UserId};
use crate::journal::JournalEvent;
use crate::lockout::LockoutEvent;
use crate::magic_link::MagicLinkEvent;
use crate::personal::Personal;
use crate::session::SessionEvent;
use crate::user::UserEvent;

/// The name of a stream, `<aggregate>-<id>`: all events of one aggregate, versions 1, 2, 3 …
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(String);

impl StreamId {
    /// The stream of an app.
    pub fn app(id: &AppId) -> Self {
        Self(format!("app-{id}"))
    }

    /// The stream of a user.
    pub fn user(id: UserId) -> Self {
        Self(format!("user-{id}"))
    }

    /// The stream of a user's failed logins.
    pub fn lockout(id: UserId) -> Self {
        Self(format!("lockout-{id}"))
    }

    /// The stream of a session.
    pub fn session(id: SessionId) -> Self {
        Self(format!("session-{id}"))
    }

    /// The stream of a magic link.
    pub fn magic_link(id: MagicLinkId) -> Self {
        Self(format!("magic_link-{id}"))
    }

    /// The stream of what became of the mails of an event.
    pub fn delivery(id: EventId) -> Self {
        Self(format!("delivery-{id}"))
    }

    /// The stream of the journal's own events.
    pub fn journal(id: JournalId) -> Self {
        Self(format!("journal-{id}"))
    }

    /// The stream of somebody's look at somebody's data.
    pub fn access(id: AccessId) -> Self {
        Self(format!("access-{id}"))
    }

    /// A name read back from a store, not checked.
    pub fn from_stored(name: String) -> Self {
        Self(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The aggregate's type: what stands before the first hyphen.
    pub fn aggregate(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }

    /// The id in the name, where it is a UUID.
    pub fn uuid(&self) -> Option<Uuid> {
        self.0.split_once('-').and_then(|(_, id)| id.parse().ok())
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An aggregate with a stream of its own.
pub trait Stream: Aggregate<Services = ()> + Clone + fmt::Debug + 'static
where
    Self::Event: EventInfo,
{
    /// What names one of these aggregates.
    type Id: fmt::Debug;

    /// The stream of the aggregate with this id.
    fn stream(id: &Self::Id) -> StreamId;
}

/// What the envelope needs to know about an event.
pub trait EventInfo: DomainEvent + Into<Event> {
    /// The name it is stored under, for ever.
    fn name(&self) -> &'static str;

    /// The version of its shape that this code writes.
    fn version(&self) -> u16 {
        1
    }

    /// Whose event it is: the person whose key seals its personal part.
    fn person(&self) -> Option<UserId>;
}

/// Every event there is. Whoever handles events matches on it without a wildcard, so that the compiler lists the
/// places a new event must be thought about.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An app was made or changed.
    App(AppEvent),
    /// A user came, changed or went.
    User(UserEvent),
    /// A login failed, or an account was locked for a while.
    Lockout(LockoutEvent),
    /// A session began, went on or ended.
    Session(SessionEvent),
    /// A magic link was sent, replaced or used.
    MagicLink(MagicLinkEvent),
    /// A mail went out, or did not.
    Delivery(DeliveryEvent),
    /// The journal itself began.
    Journal(JournalEvent),
    /// Somebody read or exported other people's data.
    Access(AccessEvent),
}

impl Event {
    /// The name it is stored under.
    pub fn name(&self) -> &'static str {
        match self {
            Self::App(event) => event.name(),
            Self::User(event) => event.name(),
            Self::Lockout(event) => event.name(),
            Self::Session(event) => event.name(),
            Self::MagicLink(event) => event.name(),
            Self::Delivery(event) => event.name(),
            Self::Journal(event) => event.name(),
            Self::Access(event) => event.name(),
        }
    }

    /// Whose event it is.
    pub fn person(&self) -> Option<UserId> {
        match self {
            Self::App(event) => event.person(),
            Self::User(event) => event.person(),
            Self::Lockout(event) => event.person(),
            Self::Session(event) => event.person(),
            Self::MagicLink(event) => event.person(),
            Self::Delivery(event) => event.person(),
            Self::Journal(event) => event.person(),
            Self::Access(event) => event.person(),
        }
    }

    /// Its personal part, if it has one.
    pub fn personal(&self) -> Option<&Personal> {
        match self {
            Self::App(_) | Self::Lockout(_) | Self::Delivery(_) | Self::Journal(_) | Self::Access(_) => None,
            Self::User(event) => event.personal(),
            Self::Session(event) => event.personal(),
            Self::MagicLink(event) => event.personal(),
        }
    }
}

impl From<AppEvent> for Event {
    fn from(event: AppEvent) -> Self {
        Self::App(event)
    }
}

impl From<UserEvent> for Event {
    fn from(event: UserEvent) -> Self {
        Self::User(event)
    }
}

impl From<LockoutEvent> for Event {
    fn from(event: LockoutEvent) -> Self {
        Self::Lockout(event)
    }
}

impl From<SessionEvent> for Event {
    fn from(event: SessionEvent) -> Self {
        Self::Session(event)
    }
}

impl From<MagicLinkEvent> for Event {
    fn from(event: MagicLinkEvent) -> Self {
        Self::MagicLink(event)
    }
}

impl From<DeliveryEvent> for Event {
    fn from(event: DeliveryEvent) -> Self {
        Self::Delivery(event)
    }
}

impl From<JournalEvent> for Event {
    fn from(event: JournalEvent) -> Self {
        Self::Journal(event)
    }
}

impl From<AccessEvent> for Event {
    fn from(event: AccessEvent) -> Self {
        Self::Access(event)
    }
}

/// An event was taken for one of another aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no event of this aggregate")]
pub struct OtherAggregate(pub &'static str);

impl TryFrom<Event> for AppEvent {
    type Error = OtherAggregate;

    fn try_from(event: Event) -> Result<Self, OtherAggregate> {
        match event {
            Event::App(event) => Ok(event),
            other => Err(OtherAggregate(other.name())),
        }
    }
}

impl TryFrom<Event> for UserEvent {
    type Error = OtherAggregate;

    fn try_from(event: Event) -> Result<Self, OtherAggregate> {
        match event {
            Event::User(event) => Ok(event),
            other => Err(OtherAggregate(other.name())),
        }
    }
}

impl TryFrom<Event> for LockoutEvent {
    type Error = OtherAggregate;

    fn try_from(event: Event) -> Result<Self, OtherAggregate> {
        match event {
            Event::Lockout(event) => Ok(event),
            other => Err(OtherAggregate(other.name())),
        }
    }
}

impl TryFrom<Event> for SessionEvent {
    type Error = OtherAggregate;

    fn try_from(event: Event) -> Result<Self, OtherAggregate> {
        match event {
            Event::Session(event) => Ok(event),
            other => Err(OtherAggregate(other.name())),
        }
    }
}

impl TryFrom<Event> for MagicLinkEvent {
    type Error = OtherAggregate;

    fn try_from(event: Event) -> Result<Self, OtherAggregate> {
        match event {
            Event::MagicLink(event) => Ok(event),
            other => Err(OtherAggregate(other.name())),
        }
    }
}

impl TryFrom<Event> for DeliveryEvent {
    type Error = OtherAggregate;

    fn try_from(event: Event) -> Result<Self, OtherAggregate> {
        match event {
            Event::Delivery(event) => Ok(event),
            other => Err(OtherAggregate(other.name())),
        }
    }
}
