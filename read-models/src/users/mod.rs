//! The users of an app, for lists and searches.

mod projector;
mod queries;
mod words;

pub use projector::UsersProjector;
pub use queries::{SEARCH_CANDIDATES, UserFilter, UserRow, UserSort, UserStatus, Users};

/// The table whose name binds sealed members to it.
const TABLE: &str = "users_v1";
