//! Counts by app and time: registrations, logins, failures, refreshes, revocations, active users.

mod projector;
mod queries;

pub use projector::StatsProjector;
pub use queries::{Bucket, Granularity, Stats};

/// The name of the read model.
pub const NAME: &str = "stats";
