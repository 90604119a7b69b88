//! The organizations of an app, for lists and searches. Their names are labels, not personal data.

mod projector;
mod queries;

pub use projector::OrganizationsProjector;
pub use queries::{COUNTED, OrganizationFilter, OrganizationRow, OrganizationSort, Organizations};

/// The name of the read model.
pub const NAME: &str = "organizations";
