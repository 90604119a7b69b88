//! The progress of a projector, and its journal.

use event_store::{Journal, StoreError};
use uuid::Uuid;

use crate::sql::Row;

/// The progress of a projector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The read model and the version of its tables.
    pub projector: String,
    /// The position of the last applied event; 0 before the first.
    pub position: u64,
    /// That event's id, unless an older version of Watchword applied it.
    pub event: Option<Uuid>,
}

/// Why a read model cannot follow a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It was built from another journal, or from a newer copy of this one.
    #[error(
        "the read model was built from another journal: event {position}, the last one it applied, is not the one that \
         this journal has. Its projector fills it anew"
    )]
    Other {
        /// The position of the last applied event.
        position: u64,
    },
    /// The journal, or the checkpoint, cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[from] StoreError),
}

impl Checkpoint {
    /// Reads a row with `projector`, `position` and `event`.
    pub(crate) fn read(row: &Row) -> Result<Self, sqlx::Error> {
        let event: Option<Vec<u8>> = row.get("event")?;
        Ok(Self {
            projector: row.get("projector")?,
            position: row.position("position")?,
            // Invalid bytes match no event.
            event: event.map(|bytes| Uuid::from_slice(&bytes).unwrap_or_default()),
        })
    }

    /// The name of the read model.
    pub fn model(&self) -> &str {
        self.projector.rsplit_once("_v").map_or(&self.projector, |(model, _)| model)
    }

    /// Checks that the applied events are the beginning of this journal. The log never changes, so one event shows it.
    pub async fn check_journal(&self, journal: &dyn Journal) -> Result<(), JournalError> {
        let position = self.position;
        if position > journal.head().await? {
            return Err(JournalError::Other { position });
        }
        let Some(applied) = self.event else { return Ok(()) };
        let found = journal.read_positions(&[position]).await?;
        if found.first().is_some_and(|event| event.id == applied) {
            Ok(())
        } else {
            Err(JournalError::Other { position })
        }
    }
}
