//! What Watchword stores and what it promises to readers: the envelope of events, the codec between events and their
//! stored form, the JSON Schemas of event payloads, and the registry of problems.
#![deny(missing_docs)]

pub mod asyncapi;
pub mod bus;
pub mod canonical;
pub mod codec;
pub mod envelope;
pub mod event_schemas;
pub mod exported;
pub mod field_codes;
pub mod problems;

pub use codec::{CodecError, Encoded, decode, encode};
pub use envelope::{Actor, ActorKind, EnvelopeError, Metadata, RecordedEvent};
pub use exported::{ExportError, ExportedEvent};
pub use problems::{ProblemType, problem_type};
