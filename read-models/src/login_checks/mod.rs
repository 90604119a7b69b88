//! Where a login finds its user: email HMAC → user id. It only locates. Who may come in is decided from the
//! aggregates; so neither the password hash nor the status is kept here, and a stale row can let nobody in.

mod projector;
mod queries;

pub use projector::LoginChecksProjector;
pub use queries::LoginChecks;
