//! The sessions of a user, for lists. Whether a session is active is decided from its aggregate.

mod projector;
mod queries;

pub use projector::SessionsProjector;
pub use queries::{SessionRow, Sessions};

/// The name of the read model.
pub const NAME: &str = "sessions";
