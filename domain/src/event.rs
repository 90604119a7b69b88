//! What all aggregates and their events have in common. The list of them is at the end of `lib.rs`.

use std::fmt::{self, Write};

use cqrs_es::{Aggregate, DomainEvent};
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::claims::Holding;
use crate::ids::UserId;
use crate::personal::Personal;

/// The name of a stream, `<aggregate>-<id>`: all events of one aggregate, versions 1, 2, 3 …
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(String);

impl StreamId {
    /// The stream of the aggregate of this type with this id.
    pub(crate) fn new(aggregate: &str, id: impl fmt::Display) -> Self {
        // Room for a UUID: names are made with every look-up, and growing takes longer than all else of it.
        let mut name = String::with_capacity(aggregate.len() + 1 + 36);
        write!(name, "{aggregate}-{id}").expect("a string takes all");
        Self(name)
    }

    /// A name read back from a store, not checked.
    pub fn from_stored(name: String) -> Self {
        Self(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The aggregate's type: the part before the first hyphen.
    pub fn aggregate(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }

    /// The id in the name, if it is a UUID.
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
pub trait Stream: Aggregate<Services = (), Event: EventInfo> + Clone + fmt::Debug + 'static {
    /// Whether most ids have no events. Then it is kept at hand, too, that one has none.
    const IS_OFTEN_ABSENT: bool = false;

    /// The id of one of these aggregates.
    type Id: fmt::Debug;

    /// The stream of the aggregate with this id.
    fn stream(id: &Self::Id) -> StreamId;

    /// The claims that it holds, as far as its events need them to say what they do to claims.
    fn held(&self) -> Holding {
        Holding::default()
    }

    /// The person whose personal data its state contains.
    fn person(&self) -> Option<UserId> {
        None
    }
}

/// The events of one aggregate, as the envelope sees them. `events!` writes it.
pub trait EventInfo: DomainEvent {
    /// The aggregate: the prefix of its streams' names.
    const AGGREGATE: &'static str;

    /// All its events, each in the version of its shape that this code writes.
    const KINDS: &'static [EventKind];

    /// The name it is stored under, which never changes.
    fn name(&self) -> &'static str;

    /// The version of its shape that this code writes.
    fn version(&self) -> u16;

    /// Whose event it is: the person whose key seals its personal part.
    fn person(&self) -> Option<UserId>;

    /// Its personal part, if it has one.
    fn personal(&self) -> Option<&Personal>;

    /// The place of its personal part, if it has one.
    fn personal_mut(&mut self) -> Option<&mut Personal>;
}

/// A kind of event.
#[derive(Clone, Copy, Debug)]
pub struct EventKind {
    /// The name its events are stored under, which never changes.
    pub name: &'static str,
    /// The version of its shape that this code writes.
    pub version: u16,
    /// The JSON Schema of its payload, the personal part included.
    pub schema: fn(SchemaGenerator) -> Schema,
}

/// Declares the events of an aggregate, each once: its payload's type, whose name is the event's; whether that has a
/// personal part (`sealed`) or not (`open`); and the version of its shape, unless that is the first. `whose` names the
/// person of an event.
///
/// ```text
/// events! {
///     /// The events of a user.
///     pub enum UserEvent of "user", whose |event| Some(event.user_id);
///     UserRegistered: sealed,
///     RoleGranted: open,
///     UserBanned: sealed 2,
/// }
/// ```
macro_rules! events {
    (
        $(#[$doc:meta])*
        pub enum $Events:ident of $aggregate:literal, whose |$event:pat_param| $person:expr;
        $($Event:ident: $kind:ident $($version:literal)?),+ $(,)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "type", content = "data")]
        #[expect(missing_docs, reason = "each variant's payload is documented")]
        pub enum $Events {
            $($Event($Event)),+
        }

        impl $crate::event::EventInfo for $Events {
            const AGGREGATE: &'static str = $aggregate;

            const KINDS: &'static [$crate::event::EventKind] = &[$(
                $crate::event::EventKind {
                    name: stringify!($Event),
                    version: $crate::event::events!(@version $($version)?),
                    schema: |generator| generator.into_root_schema_for::<$Event>(),
                }
            ),+];

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$Event(_) => stringify!($Event)),+
                }
            }

            fn version(&self) -> u16 {
                match self {
                    $(Self::$Event(_) => $crate::event::events!(@version $($version)?)),+
                }
            }

            #[allow(clippy::useless_conversion, reason = "some events name a person, others perhaps one")]
            fn person(&self) -> Option<$crate::UserId> {
                match self {
                    $(Self::$Event($event) => $person),+
                }
            }

            fn personal(&self) -> Option<&$crate::Personal> {
                match self {
                    $($crate::event::events!(@$kind Self::$Event, event) => $crate::event::events!(@$kind &event)),+
                }
            }

            fn personal_mut(&mut self) -> Option<&mut $crate::Personal> {
                match self {
                    $($crate::event::events!(@$kind Self::$Event, event) => $crate::event::events!(@$kind &mut event)),+
                }
            }
        }

        impl cqrs_es::DomainEvent for $Events {
            fn event_type(&self) -> String {
                $crate::event::EventInfo::name(self).to_owned()
            }

            fn event_version(&self) -> String {
                $crate::event::EventInfo::version(self).to_string()
            }
        }
    };
    (@version) => { 1 };
    (@version $version:literal) => { $version };
    (@sealed $Event:path, $event:ident) => { $Event($event) };
    (@open $Event:path, $event:ident) => { $Event(_) };
    (@sealed &$event:ident) => { Some(&$event.personal) };
    (@sealed &mut $event:ident) => { Some(&mut $event.personal) };
    (@open $($event:tt)*) => { None };
}
pub(crate) use events;
