//! A journal that several nodes write to, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::{StreamId, Timestamp};
use schemas::envelope::RecordedEvent;
use tokio::sync::watch;

use crate::journal::{
    Append, AppendError, Appended, Claim, Cursor, Journal, Snapshot, StoreError, StoredIdempotency,
};

/// One journal through several nodes, used in turn. It reports itself as shared, and counts how often versions are
/// asked for, how many events it returns from streams and how many snapshots it keeps.
pub struct Nodes {
    list: Vec<Arc<dyn Journal>>,
    turn: AtomicUsize,
    versions_asked: AtomicUsize,
    events_read: AtomicUsize,
    snapshots_kept: AtomicUsize,
}

impl Nodes {
    /// Wraps these nodes of one journal.
    pub fn new(list: Vec<Arc<dyn Journal>>) -> Self {
        let zero = AtomicUsize::default;
        Self { list, turn: zero(), versions_asked: zero(), events_read: zero(), snapshots_kept: zero() }
    }

    /// How often [`Journal::versions`] was called since the last call of this function.
    pub fn versions_asked(&self) -> usize {
        self.versions_asked.swap(0, Ordering::Relaxed)
    }

    /// How many events [`Journal::read_stream`] returned since the last call of this function.
    pub fn events_read(&self) -> usize {
        self.events_read.swap(0, Ordering::Relaxed)
    }

    /// How many snapshots [`Journal::save_snapshot`] has kept: a repository calls it in the background.
    pub fn snapshots_kept(&self) -> usize {
        self.snapshots_kept.load(Ordering::Relaxed)
    }

    fn next(&self) -> &Arc<dyn Journal> {
        &self.list[self.turn.fetch_add(1, Ordering::Relaxed) % self.list.len()]
    }
}

#[async_trait]
impl Journal for Nodes {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.next().append(append).await
    }

    async fn read_stream(&self, stream: &StreamId, after: u64) -> Result<Vec<RecordedEvent>, StoreError> {
        let events = self.next().read_stream(stream, after).await?;
        self.events_read.fetch_add(events.len(), Ordering::Relaxed);
        Ok(events)
    }

    async fn read_all(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        self.next().read_all(after, limit).await
    }

    async fn read_positions(&self, positions: &[u64]) -> Result<Vec<RecordedEvent>, StoreError> {
        self.next().read_positions(positions).await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.next().head().await
    }

    fn watch_head(&self) -> watch::Receiver<u64> {
        self.next().watch_head()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn versions(&self, streams: &[StreamId]) -> Result<Vec<u64>, StoreError> {
        self.versions_asked.fetch_add(1, Ordering::Relaxed);
        self.next().versions(streams).await
    }

    async fn claim_owner(&self, claim: &Claim) -> Result<Option<StreamId>, StoreError> {
        self.next().claim_owner(claim).await
    }

    async fn claims(&self, kind: &str, prefix: &str) -> Result<Vec<(Claim, StreamId)>, StoreError> {
        self.next().claims(kind, prefix).await
    }

    async fn idempotent(&self, key: &[u8; 32]) -> Result<Option<StoredIdempotency>, StoreError> {
        self.next().idempotent(key).await
    }

    async fn forget_idempotency(
        &self,
        after: Option<[u8; 32]>,
        before: Timestamp,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        self.next().forget_idempotency(after, before).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        self.next().load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<(), StoreError> {
        self.next().save_snapshot(stream, snapshot).await?;
        self.snapshots_kept.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<StreamId>, StoreError> {
        self.next().snapshots().await
    }

    async fn cursor_position(&self, effect: &str) -> Result<Option<u64>, StoreError> {
        self.next().cursor_position(effect).await
    }

    async fn hold_cursor(
        &self,
        effect: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<Option<Cursor>, StoreError> {
        self.next().hold_cursor(effect, holder, lasts).await
    }

    async fn move_cursor(&self, effect: &str, cursor: Cursor) -> Result<bool, StoreError> {
        self.next().move_cursor(effect, cursor).await
    }

    async fn release_cursor(&self, effect: &str, cursor: Cursor) -> Result<(), StoreError> {
        self.next().release_cursor(effect, cursor).await
    }

    async fn close(&self) {
        for node in &self.list {
            node.close().await;
        }
    }
}
