//! The checkpoint that was signed last, and what witnesses have signed of it.
//!
//! It is kept apart from the journal, so that a journal that was put back to an older state, or exchanged for another
//! history, contradicts it. All nodes share it, and advance it only from the one that they compared with: no two checkpoints
//! that contradict each other are signed. A mark by a key of the instance shows that nobody else wrote it.

use aws_lc_rs::hmac;
use domain::Timestamp;
use tlog::{Hash, Note};
use uuid::Uuid;

use super::KeyStore;
use crate::instance_key::InstanceKey;
use crate::journal::StoreError;

/// The format since which a key store has it.
pub(super) const FORMAT_WITH_CHECKPOINTS: u32 = 4;

/// A checkpoint that this instance has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The number of events.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
    /// The id of the last one.
    pub last: Uuid,
    /// The note, with the signatures of the log.
    pub note: String,
    /// All epochs in which one was ever signed: see [`crate::epoch`].
    pub epochs: Vec<Uuid>,
    /// When it was signed.
    pub signed_at: Timestamp,
}

/// A checkpoint as the key store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// The checkpoint.
    pub checkpoint: SignedCheckpoint,
    /// The lines of the witnesses that have signed it too.
    pub cosignatures: Vec<String>,
    /// What tells it from any other.
    mark: Vec<u8>,
}

impl KeptCheckpoint {
    /// The note, with the signatures of the witnesses behind those of the log. Lines that are no signatures are left out.
    pub fn note(&self) -> String {
        let mut note = self.checkpoint.note.clone();
        let is_one = |line: &&String| {
            format!("\n\n{line}").parse::<Note>().is_ok_and(|note| note.signatures.len() == 1)
        };
        note.extend(self.cosignatures.iter().filter(is_one).map(String::as_str));
        note
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) size: i64,
    pub(super) root: Vec<u8>,
    pub(super) event: Uuid,
    pub(super) note: String,
    pub(super) epochs: Vec<u8>,
    /// In microseconds since 1970.
    pub(super) signed_at: i64,
    pub(super) mac: Vec<u8>,
}

/// A signature of a witness.
#[derive(Clone, Debug)]
pub(super) struct Cosignature {
    pub(super) witness: String,
    pub(super) size: i64,
    pub(super) root: Vec<u8>,
    pub(super) line: String,
}

/// The key of the marks.
pub(super) struct CheckpointMarks(hmac::Key);

impl CheckpointMarks {
    pub(super) fn new(instance: &InstanceKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*instance.derive("watchword/v1/signed-checkpoint")))
    }

    fn row(&self, checkpoint: &SignedCheckpoint) -> Row {
        let SignedCheckpoint { size, root, last, note, epochs, signed_at } = checkpoint;
        let mut row = Row {
            size: size.cast_signed(),
            root: root.0.to_vec(),
            event: *last,
            note: note.clone(),
            epochs: epochs.iter().flat_map(|epoch| *epoch.as_bytes()).collect(),
            signed_at: signed_at.as_microsecond(),
            mac: vec![],
        };
        row.mac = hmac::sign(&self.0, &covered(&row)).as_ref().to_vec();
        row
    }

    /// Reads a row, if this instance wrote it.
    fn read(&self, row: Row) -> Option<(SignedCheckpoint, Vec<u8>)> {
        // In constant time, and only at full length.
        hmac::verify(&self.0, &covered(&row), &row.mac).ok()?;
        let (epochs, _) = row.epochs.as_chunks();
        let checkpoint = SignedCheckpoint {
            size: row.size.cast_unsigned(),
            root: Hash(row.root.try_into().ok()?),
            last: row.event,
            note: row.note,
            epochs: epochs.iter().copied().map(Uuid::from_bytes).collect(),
            signed_at: Timestamp::from_microsecond(row.signed_at).ok()?,
        };
        Some((checkpoint, row.mac))
    }
}

/// No two rows give the same bytes: each part of a variable length stands behind its length.
fn covered(row: &Row) -> Vec<u8> {
    let mut bytes = b"watchword signed checkpoint 1\0".to_vec();
    bytes.extend(row.size.to_be_bytes());
    bytes.extend(row.event.as_bytes());
    bytes.extend(row.signed_at.to_be_bytes());
    for part in [row.root.as_slice(), row.note.as_bytes(), &row.epochs] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

impl KeyStore {
    /// Whether the store is of a format from before checkpoints: one that is only looked at may be.
    pub fn lacks_checkpoints(&self) -> bool {
        self.keys.format() < FORMAT_WITH_CHECKPOINTS
    }

    /// The checkpoint that was signed last; `None` before the first. Refuses one that this instance did not write.
    pub async fn checkpoint(&self) -> Result<Option<KeptCheckpoint>, StoreError> {
        if self.lacks_checkpoints() {
            return Ok(None);
        }
        let Some((row, cosignatures)) = self.keys.checkpoint().await? else { return Ok(None) };
        let read = self.marks.read(row);
        let (checkpoint, mark) = read.ok_or_else(|| {
            StoreError::Damaged(
                "this instance did not write the last signed checkpoint in its key store".to_owned(),
            )
        })?;
        Ok(Some(KeptCheckpoint { checkpoint, cosignatures, mark }))
    }

    /// Replaces the checkpoint that was signed last, durably, if it is still `from`. Returns whether it was.
    pub async fn advance_checkpoint(
        &self,
        from: Option<&KeptCheckpoint>,
        to: &SignedCheckpoint,
    ) -> Result<bool, StoreError> {
        let from = from.map(|from| from.mark.clone());
        self.keys.advance_checkpoint(from, self.marks.row(to)).await
    }

    /// Keeps the line that a witness has signed a checkpoint with, in place of its former one, if that checkpoint is the one
    /// that was signed last. Returns whether it is. The caller has verified the signature.
    pub async fn keep_cosignature(
        &self,
        checkpoint: &SignedCheckpoint,
        witness: &str,
        line: &str,
    ) -> Result<bool, StoreError> {
        let cosignature = Cosignature {
            witness: witness.to_owned(),
            size: checkpoint.size.cast_signed(),
            root: checkpoint.root.0.to_vec(),
            line: line.to_owned(),
        };
        self.keys.keep_cosignature(cosignature).await
    }
}
