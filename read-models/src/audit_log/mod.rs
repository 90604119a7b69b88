//! Finds events by app, person, actor, type, session, address and time. It stores positions; the events are read from
//! the journal.

mod projector;
mod queries;

pub use projector::AuditLogProjector;
pub use queries::{AuditFilter, AuditLog};

/// The name of the read model.
pub const NAME: &str = "audit_log";
