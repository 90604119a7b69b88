//! The members of organizations, for lists. Whether somebody is a member, the organization itself decides.

mod projector;
mod queries;

pub use projector::MembersProjector;
pub use queries::{MemberFilter, MemberRow, MemberSort, Members};

/// The name of the read model.
pub const NAME: &str = "members";
