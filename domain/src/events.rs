//! The events of all aggregates as one enum, made of the list at the end of `lib.rs`.

use cqrs_es::Aggregate;

use crate::Event;
use crate::claims::Claiming;
use crate::event::Stream;

/// Declares the aggregates, each with its events.
macro_rules! aggregates {
    ($($(#[$doc:meta])* $Aggregate:ident($Events:ty)),+ $(,)?) => {
        /// All events. Code that renders events matches on those of an aggregate without a wildcard, so that the
        /// compiler lists the places that a new event affects.
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[serde(untagged)]
        pub enum Event {
            $($(#[$doc])* $Aggregate($Events)),+
        }

        impl Event {
            /// The aggregates and the kinds of their events.
            pub const KINDS: &'static [(&'static str, &'static [$crate::event::EventKind])] =
                &[$((<$Events as $crate::event::EventInfo>::AGGREGATE, <$Events as $crate::event::EventInfo>::KINDS)),+];

            /// Deserializes an event of this aggregate. `None` if there is no such aggregate.
            pub fn deserialize<'de, D: serde::Deserializer<'de>>(
                aggregate: &str,
                deserializer: D,
            ) -> Option<Result<Self, D::Error>> {
                $(
                    if aggregate == <$Events as $crate::event::EventInfo>::AGGREGATE {
                        return Some(<$Events as serde::Deserialize>::deserialize(deserializer).map(Self::$Aggregate));
                    }
                )+
                None
            }

            /// The name it is stored under.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$Aggregate(event) => $crate::event::EventInfo::name(event)),+
                }
            }

            /// The version of its shape.
            pub fn version(&self) -> u16 {
                match self {
                    $(Self::$Aggregate(event) => $crate::event::EventInfo::version(event)),+
                }
            }

            /// Whose event it is.
            pub fn person(&self) -> Option<$crate::UserId> {
                match self {
                    $(Self::$Aggregate(event) => $crate::event::EventInfo::person(event)),+
                }
            }

            /// Its personal part, if it has one.
            pub fn personal(&self) -> Option<&$crate::Personal> {
                match self {
                    $(Self::$Aggregate(event) => $crate::event::EventInfo::personal(event)),+
                }
            }

            /// The place of its personal part, if it has one.
            pub fn personal_mut(&mut self) -> Option<&mut $crate::Personal> {
                match self {
                    $(Self::$Aggregate(event) => $crate::event::EventInfo::personal_mut(event)),+
                }
            }
        }

        impl $crate::claims::Claiming for Event {
            fn claims(&self, held: &$crate::claims::Holding) -> Vec<$crate::claims::ClaimChange> {
                match self {
                    $(Self::$Aggregate(event) => $crate::claims::Claiming::claims(event, held)),+
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
                type Error = $crate::events::OtherAggregate;

                fn try_from(event: Event) -> Result<Self, Self::Error> {
                    match event {
                        Event::$Aggregate(event) => Ok(event),
                        other => Err($crate::events::OtherAggregate(other.name())),
                    }
                }
            }
        )+
    };
}

pub(crate) use aggregates;

/// An aggregate of the list: its events are a part of all events.
pub trait Recorded: Stream + Aggregate<Event: Into<Event> + TryFrom<Event> + Claiming> {}

impl<A: Stream + Aggregate<Event: Into<Event> + TryFrom<Event> + Claiming>> Recorded for A {}

/// An event was converted to those of another aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an event of this aggregate")]
pub struct OtherAggregate(pub &'static str);
