//! What a connection knows of the versions of streams, so that the database need not look all of them up for each group.

use std::collections::HashMap;

use super::batch::{Answers, Batch};

/// The most streams remembered. Beyond that all are forgotten: they only save work.
const MOST: usize = 100_000;

/// The versions of streams at a position of the journal, from what this connection has written.
///
/// The database's head shows whether another node has written since: positions have no gaps, so the same head means the
/// same journal. Only a database that was restored to an older state may reach the same head with other events; no
/// connection, and so none of this, survives a restore.
#[derive(Debug, Default)]
pub(super) struct Known {
    head: i64,
    versions: HashMap<String, i64>,
}

impl Known {
    /// The head of the journal that the versions belong to.
    pub(super) fn head(&self) -> i64 {
        self.head
    }

    /// The version of a stream.
    pub(super) fn version(&self, stream: &str) -> Option<i64> {
        self.versions.get(stream).copied()
    }

    /// Learns from the answer to a group.
    pub(super) fn learn(&mut self, batch: &Batch<'_>, answers: &Answers) {
        let before = batch.head_before(answers);
        if before != Some(self.head) || self.versions.len() > MOST {
            self.versions.clear();
        }
        self.head = answers.head;
        if before.is_some() {
            for (stream, version) in batch.versions_behind() {
                match self.versions.get_mut(stream) {
                    Some(known) => *known = version,
                    None => drop(self.versions.insert(stream.to_owned(), version)),
                }
            }
        }
    }
}
