//! The sessions of a user, for lists. Whether one is live is decided from its aggregate.

mod projector;
mod queries;

pub use projector::SessionsProjector;
pub use queries::{SessionRow, Sessions};
