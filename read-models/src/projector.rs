//! Projectors fill read models.

use std::sync::Arc;

use async_trait::async_trait;
use domain::Event;
use event_store::StoreError;
use schemas::envelope::RecordedEvent;

use crate::sql::Transaction;

/// An event for projectors, read and decoded once for all of them.
#[derive(Clone, Debug)]
pub struct ProjectedEvent {
    /// The event as the journal has it.
    pub recorded: Arc<RecordedEvent>,
    /// The decoded event, or why it cannot be decoded. A projector that needs only the envelope continues without it.
    pub decoded: Result<Event, StoreError>,
}

impl ProjectedEvent {
    /// Its position.
    pub fn position(&self) -> u64 {
        self.recorded.position
    }

    /// The decoded event.
    pub fn event(&self) -> Result<&Event, ProjectError> {
        self.decoded.as_ref().map_err(|source| ProjectError::Event {
            position: self.recorded.position,
            source: source.clone(),
        })
    }
}

/// Why a projector could not apply a batch.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// An event cannot be read.
    #[error("the event at position {position} cannot be read")]
    Event {
        /// The position of the event.
        position: u64,
        /// The cause.
        source: StoreError,
    },
    /// Personal data could not be sealed or opened.
    #[error("personal data cannot be sealed or opened")]
    Seal(#[from] StoreError),
    /// The tables cannot be written.
    #[error("the read model's tables cannot be written")]
    Tables(#[from] sqlx::Error),
    /// The content of the tables is invalid.
    #[error("the read model is damaged: {0}")]
    Damaged(&'static str),
}

/// Why a batch was not applied. None of it was.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The batch does not start right after what was applied before, or has a gap.
    #[error("the batch has position {found} where {expected} comes next")]
    Gap {
        /// The expected next position.
        expected: u64,
        /// The position found instead.
        found: u64,
    },
    /// Another node now writes the read model.
    #[error("another node has taken over the projector")]
    LeaseLost,
    /// The projector failed.
    #[error(transparent)]
    Project(#[from] ProjectError),
}

impl ApplyError {
    /// Whether the same batch may succeed later because the cause is not the batch: a store cannot be reached.
    pub fn is_transient(&self) -> bool {
        let unavailable = |error: &StoreError| matches!(error, StoreError::Unavailable(_));
        match self {
            Self::Gap { .. } | Self::LeaseLost | Self::Project(ProjectError::Damaged(_)) => false,
            Self::Project(ProjectError::Event { source, .. } | ProjectError::Seal(source)) => {
                unavailable(source)
            }
            Self::Project(ProjectError::Tables(error)) => !is_refusal(error),
        }
    }
}

/// Whether the database understood the statement and refuses it. All other errors are lost connections, locks, a server
/// that stops or starts (PostgreSQL's classes 08, 25, 40, 53, 55, 57 and 58), and files that cannot be written.
fn is_refusal(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            let is_class = code.len() == 5;
            let transient = ["08", "25", "40", "53", "55", "57", "58"];
            if is_class {
                !transient.iter().any(|class| code.starts_with(class))
            } else {
                is_constraint(&code)
            }
        }
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::RowNotFound => true,
        _ => false,
    }
}

/// `SQLite` result codes for an error in the statement (1) or a violated constraint (19).
fn is_constraint(code: &str) -> bool {
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 1 | 19))
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Project(error.into())
    }
}

/// Turns events into the rows of one read model. It takes a batch, so that it can add up changes and write many rows
/// with one statement. Its rows are its only effect: [`crate::ReadModels::apply`] commits them with the checkpoint.
#[async_trait]
pub trait Projector: Send + Sync + 'static {
    /// The read model.
    fn name(&self) -> &'static str;

    /// The version of its tables, which is part of their names. A new meaning of a row needs a new version.
    fn version(&self) -> u32;

    /// Its tables.
    fn tables(&self) -> &'static [&'static str];

    /// The statements that create the tables if they do not exist, in `SQLite`'s dialect: with `STRICT` tables, and
    /// columns of the types `INTEGER`, `TEXT` and `BLOB`.
    fn ddl(&self) -> &'static str;

    /// Writes the changes of a batch. The batch is never empty and starts right after the previous one.
    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError>;

    /// The indexes that its own statements use. All others are made after a new build is filled.
    fn indexes_for_writing(&self) -> &'static [&'static str] {
        &[]
    }

    /// Like [`Projector::project`], while a new build is filled that nobody reads. It may leave for
    /// [`Projector::complete`] what is cheaper for all events at once.
    async fn project_in_bulk(
        &self,
        tx: &mut Transaction,
        batch: &[ProjectedEvent],
    ) -> Result<(), ProjectError> {
        self.project(tx, batch).await
    }

    /// Does what [`Projector::project_in_bulk`] left, once all indexes are there.
    async fn complete(&self, _tx: &mut Transaction) -> Result<(), ProjectError> {
        Ok(())
    }
}

/// The key of a projector's checkpoint: the name of its read model and the version of its tables.
pub fn key(projector: &dyn Projector) -> String {
    format!("{}_v{}", projector.name(), projector.version())
}
