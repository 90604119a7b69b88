//! The list of aggregates, and the enum of all events.

use cqrs_es::Aggregate;
use serde::{Deserialize as _, Deserializer, Serialize};

use crate::claims::{ClaimChange, Claiming, Holding};
use crate::event::{EventInfo, EventKind, Stream};
use crate::ids::UserId;
use crate::personal::Personal;

/// Declares the aggregates, each with its events.
macro_rules! aggregates {
    ($($(#[$doc:meta])* $Aggregate:ident($Events:ty)),+ $(,)?) => {
        /// All events. Code that renders events matches on those of an aggregate without a wildcard, so that the
        /// compiler lists the places that a new event affects.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Event {
            $($(#[$doc])* $Aggregate($Events)),+
        }

        impl Event {
            /// The aggregates and the kinds of their events.
            pub const KINDS: &'static [(&'static str, &'static [EventKind])] =
                &[$((<$Events as EventInfo>::AGGREGATE, <$Events as EventInfo>::KINDS)),+];

            /// Deserializes an event of this aggregate. `None` if there is no such aggregate.
            pub fn deserialize<'de, D: Deserializer<'de>>(
                aggregate: &str,
                deserializer: D,
            ) -> Option<Result<Self, D::Error>> {
                $(
                    if aggregate == <$Events as EventInfo>::AGGREGATE {
                        return Some(<$Events>::deserialize(deserializer).map(Self::$Aggregate));
                    }
                )+
                None
            }

            /// The name it is stored under.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$Aggregate(event) => event.name()),+
                }
            }

            /// The version of its shape.
            pub fn version(&self) -> u16 {
                match self {
                    $(Self::$Aggregate(event) => event.version()),+
                }
            }

            /// Whose event it is.
            pub fn person(&self) -> Option<UserId> {
                match self {
                    $(Self::$Aggregate(event) => event.person()),+
                }
            }

            /// Its personal part, if it has one.
            pub fn personal(&self) -> Option<&Personal> {
                match self {
                    $(Self::$Aggregate(event) => event.personal()),+
                }
            }

            /// The place of its personal part, if it has one.
            pub fn personal_mut(&mut self) -> Option<&mut Personal> {
                match self {
                    $(Self::$Aggregate(event) => event.personal_mut()),+
                }
            }
        }

        impl Claiming for Event {
            fn claims(&self, held: &Holding) -> Vec<ClaimChange> {
                match self {
                    $(Self::$Aggregate(event) => event.claims(held)),+
                }
            }
        }

        $(
            impl From<$Events> for Event {
                fn from(event: $Events) -> Self {
                    Self::$Aggregate(event)
                }
            }

            impl TryFrom<Event> for $Events {
                type Error = OtherAggregate;

                fn try_from(event: Event) -> Result<Self, OtherAggregate> {
                    match event {
                        Event::$Aggregate(event) => Ok(event),
                        other => Err(OtherAggregate(other.name())),
                    }
                }
            }
        )+
    };
}

aggregates! {
    /// An app was created or changed.
    App(crate::app::AppEvent),
    /// A user was created, changed or erased.
    User(crate::user::UserEvent),
    /// A login failed, or an account was locked for a while.
    Lockout(crate::lockout::LockoutEvent),
    /// A session began, was refreshed or ended.
    Session(crate::session::SessionEvent),
    /// A magic link was sent, replaced or used.
    MagicLink(crate::magic_link::MagicLinkEvent),
    /// A mail was sent, or failed.
    Delivery(crate::delivery::DeliveryEvent),
    /// The journal itself began.
    Journal(crate::journal::JournalEvent),
    /// Somebody read or exported other people's data.
    Access(crate::access::AccessEvent),
}

/// An aggregate of the list: its events are a part of all events.
pub trait Recorded: Stream + Aggregate<Event: Into<Event> + TryFrom<Event> + Claiming> {}

impl<A: Stream + Aggregate<Event: Into<Event> + TryFrom<Event> + Claiming>> Recorded for A {}

/// An event was converted to those of another aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an event of this aggregate")]
pub struct OtherAggregate(pub &'static str);
