//! The users of an app, for lists and searches.

mod projector;
mod queries;
mod scan;
mod words;

pub use projector::UsersProjector;
pub use queries::{COUNTED, UserFilter, UserRow, UserSort, UserStatus, Users};

/// The table that sealed members are bound to, by its name.
const TABLE: &str = "users_v2";

/// The name of the read model.
pub const NAME: &str = "users";
