//! What a dashboard shows of an app: registrations, logins, failures, refreshes, revocations and active users by time, how far new
//! accounts come, and who returns.
//!
//! Times are kept in quarters of an hour, and people in the days of UTC, with a bit for each quarter. Hours, days, weeks and months
//! of the app's time zone are made of them when they are asked for, so another time zone needs no rebuild. People are named by keyed
//! hashes ([`event_store::LookupKey::person`]): erasing somebody changes no number, and nobody can tell from these tables that it
//! was them. Only who is a member of an organization now is named by id, until they leave or are erased.

mod accounts;
mod calendar;
mod counted;
mod members;
mod projector;
mod queries;

use domain::OrganizationId;

use crate::sql::Value;

pub use accounts::{Cohort, Funnel};
pub use calendar::{Granularity, Span, spans};
pub use projector::StatsProjector;
pub use queries::{Bucket, Stats};

/// The name of the read model.
pub const NAME: &str = "stats";
/// A quarter of an hour in seconds.
const QUARTER: i64 = 900;
/// How many of them a day has.
const OF_A_DAY: i64 = 96;

/// What the tables call an organization, or all of the app.
fn scope(organization: Option<OrganizationId>) -> Value {
    let all: &[u8] = &[];
    organization.map_or_else(|| all.into(), |organization| organization.0.into())
}
