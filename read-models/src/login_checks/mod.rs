//! Where a login finds its user: email HMAC → user id. It only locates users. Logins are decided from the aggregates,
//! so neither the password hash nor the status is kept here, and a stale row cannot admit a user.

mod projector;
mod queries;

pub use projector::LoginChecksProjector;
pub use queries::LoginChecks;

/// The name of the read model.
pub const NAME: &str = "login_checks";
