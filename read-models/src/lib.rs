//! Read models: tables derived from the journal. They answer queries and may help to *locate* things; no decision
//! rests on them, and any of them can be dropped and rebuilt from the log.
//!
//! Each model has a folder with its tables (`table.sql`), its projector and its queries. Tables carry the version
//! of their projector in their name, so that a rebuild can stand beside the old ones. A projector's rows and its
//! checkpoint commit together, and it applies a batch only if that starts right behind its checkpoint: what it has
//! applied is always a prefix of the log.
//!
//! Personal data is kept sealed with the person's own key, and found through blind indexes.
#![deny(missing_docs)]

pub mod audit_log;
pub mod login_checks;
pub mod page;
pub mod projector;
mod rows;
pub mod sessions;
pub mod stats;
pub mod store;
pub mod users;

#[cfg(test)]
mod tests;

pub use page::{Page, Paging};
pub use projector::{ApplyError, ProjectError, ProjectedEvent, Projector};
pub use store::{Checkpoint, JournalError, OpenError, ReadError, ReadModels};
