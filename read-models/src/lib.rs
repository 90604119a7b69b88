//! Read models: tables derived from the journal. They answer queries and may help to *locate* things. No decision rests
//! on them, and any of them can be dropped and rebuilt from the log.
//!
//! Each model has a folder with its tables (`table.sql`), its projector and its queries. Table names include the
//! version of their projector, so that rebuilt tables can coexist with the old ones. A projector's rows and its
//! checkpoint are committed together, and it applies a batch only if that starts right after its checkpoint: what it
//! has applied is always a prefix of the log.
//!
//! They are in a file, for one process, or in PostgreSQL, where several nodes share the projectors by leases
//! ([`leases`]). A model's statements are written once for both ([`Transaction`]).
//!
//! Personal data is kept sealed with the person's own key, and found through blind indexes.
#![deny(missing_docs)]

mod aside;
pub mod audit_log;
mod build;
mod checkpoint;
mod compare;
mod database;
mod filling;
pub mod leases;
pub mod login_checks;
pub mod members;
pub mod merkle_tree;
pub mod organizations;
pub mod page;
mod person;
mod places;
pub mod projector;
mod rebuild;
mod registry;
mod rows;
pub mod sessions;
mod sql;
pub mod stats;
pub mod store;
mod text;
pub mod users;

#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, JournalError};
pub use compare::{CompareError, Comparison, compare};
pub use database::OpenError;
pub use filling::FillError;
pub use leases::{LONGEST_LEASE, Lease, Leases, Node, ProjectorState, Standing};
pub use page::{Page, Paging};
pub use person::PersonalTable;
pub use projector::{ApplyError, ProjectError, ProjectedEvent, Projector};
pub use rebuild::{BuildStanding, RebuildError, RebuildProgress, RebuildSettings};
pub use sql::Transaction;
pub use store::{ReadError, ReadModels};

registry::read_models! {
    /// Where a login finds its user.
    login_checks: LoginChecks, LoginChecksProjector;
    /// The users of an app.
    users: Users, UsersProjector;
    /// The sessions of a user.
    sessions: Sessions, SessionsProjector;
    /// The organizations of an app.
    organizations: Organizations, OrganizationsProjector;
    /// The members of an organization.
    members: Members, MembersProjector;
    /// Counts by time.
    stats: Stats, StatsProjector;
    /// Who did what, and when.
    audit_log: AuditLog, AuditLogProjector;
    /// The hashes that prove the history.
    merkle_tree: MerkleTree, MerkleTreeProjector;
}
