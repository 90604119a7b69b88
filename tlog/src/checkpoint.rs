//! Checkpoints: statements about the size and the root of a log.

use std::fmt;

use crate::hash::Hash;

/// A statement about a log, without signatures. Extension lines of other logs are read and ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The unique name of the log.
    pub origin: String,
    /// The number of its entries.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// A text is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no checkpoint: three lines with the origin, the size and the root in base64")]
pub struct NoCheckpoint;

impl Checkpoint {
    /// Reads the text of a note.
    pub fn parse(text: &str) -> Result<Self, NoCheckpoint> {
        let text = text.strip_suffix('\n').ok_or(NoCheckpoint)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoCheckpoint);
        };
        if origin.is_empty() || lines.any(str::is_empty) {
            return Err(NoCheckpoint);
        }
        let parsed: u64 = size.parse().map_err(|_| NoCheckpoint)?;
        let root = Hash::parse(root).ok_or(NoCheckpoint)?;
        // One number has one form: neither a sign nor leading zeros.
        if parsed.to_string() != size {
            return Err(NoCheckpoint);
        }
        Ok(Self { origin: origin.to_owned(), size: parsed, root })
    }
}

/// The text of the note.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, size, root } = self;
        write!(f, "{origin}\n{size}\n{root}\n")
    }
}
