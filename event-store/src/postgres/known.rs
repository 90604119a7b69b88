//! What a connection knows of the versions of streams, so that the database need not look all of them up for each group.

use std::collections::HashMap;

use super::batch::{Answers, Batch};

/// How many streams are known at most. Beyond that all is forgotten: knowing saves work, nothing else.
const MOST: usize = 100_000;

/// The versions that streams have as of a position of the journal, by what this connection has written.
///
/// Whether anybody else has written since, the database tells by its head: positions have no gaps, so the same head is the
/// same journal. Only a database that was put back to an older state may come to the same head by another way; what is
/// known ends with the connection, which does not outlive that.
#[derive(Debug, Default)]
pub(super) struct Known {
    head: i64,
    versions: HashMap<String, i64>,
}

impl Known {
    /// The head of the journal that the versions are of.
    pub(super) fn head(&self) -> i64 {
        self.head
    }

    /// The version of a stream.
    pub(super) fn version(&self, stream: &str) -> Option<i64> {
        self.versions.get(stream).copied()
    }

    /// Takes over what the answer to a group tells.
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
