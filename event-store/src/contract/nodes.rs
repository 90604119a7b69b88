//! A journal that several nodes write to, for tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::{StreamId, Timestamp};
use schemas::envelope::RecordedEvent;
use tokio::sync::watch;

use crate::journal::{
    Append, AppendError, Appended, Claim, Cursor, Journal, Snapshot, StoreError, StoredIdempotency,
};
use crate::storage::Why;

/// One journal through several nodes, used in turn. It reports itself as shared, and counts calls, the events it returns
/// from streams, and the snapshots it keeps.
pub struct Nodes {
    list: Vec<Arc<dyn Journal>>,
    turn: AtomicUsize,
    calls: Mutex<BTreeMap<&'static str, usize>>,
    events_read: AtomicUsize,
    snapshots_kept: AtomicUsize,
}

impl Nodes {
    /// Wraps these nodes of one journal.
    pub fn new(list: Vec<Arc<dyn Journal>>) -> Self {
        let zero = AtomicUsize::default;
        Self { list, turn: zero(), calls: Mutex::default(), events_read: zero(), snapshots_kept: zero() }
    }

    /// How often each method was called since the last call of this function: on a journal on a server, each call is a
    /// round trip.
    pub fn calls(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut *self.counts())
    }

    /// How often [`Journal::versions`] was called since the last call of this function.
    pub fn versions_asked(&self) -> usize {
        self.take(&["versions"])
    }

    /// How often streams or snapshots were read since the last call of this function.
    pub fn loads(&self) -> usize {
        self.take(&["read_stream", "read_streams", "load_snapshot", "load_snapshots"])
    }

    /// How many events [`Journal::read_stream`] and [`Journal::read_streams`] returned since the last call of this function.
    pub fn events_read(&self) -> usize {
        self.events_read.swap(0, Ordering::Relaxed)
    }

    /// How many snapshots [`Journal::save_snapshot`] has kept: a repository calls it in the background.
    pub fn snapshots_kept(&self) -> usize {
        self.snapshots_kept.load(Ordering::Relaxed)
    }

    fn call(&self, method: &'static str) -> &Arc<dyn Journal> {
        *self.counts().entry(method).or_default() += 1;
        self.next()
    }

    fn take(&self, methods: &[&'static str]) -> usize {
        let mut counts = self.counts();
        methods.iter().filter_map(|method| counts.remove(method)).sum()
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> &Arc<dyn Journal> {
        &self.list[self.turn.fetch_add(1, Ordering::Relaxed) % self.list.len()]
    }
}

#[async_trait]
impl Journal for Nodes {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.call("append").append(append).await
    }

    async fn read_stream(&self, stream: &StreamId, after: u64) -> Result<Vec<RecordedEvent>, StoreError> {
        let events = self.call("read_stream").read_stream(stream, after).await?;
        self.events_read.fetch_add(events.len(), Ordering::Relaxed);
        Ok(events)
    }

    async fn read_streams(&self, wanted: &[(StreamId, u64)]) -> Result<Vec<Vec<RecordedEvent>>, StoreError> {
        let streams = self.call("read_streams").read_streams(wanted).await?;
        self.events_read.fetch_add(streams.iter().map(Vec::len).sum(), Ordering::Relaxed);
        Ok(streams)
    }

    async fn read_all(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        self.call("read_all").read_all(after, limit).await
    }

    async fn read_positions(&self, positions: &[u64]) -> Result<Vec<RecordedEvent>, StoreError> {
        self.call("read_positions").read_positions(positions).await
    }

    async fn positions_of(&self, name: &str, after: u64, until: u64) -> Result<Vec<u64>, StoreError> {
        self.call("positions_of").positions_of(name, after, until).await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.call("head").head().await
    }

    fn watch_head(&self) -> watch::Receiver<u64> {
        self.next().watch_head()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn versions(&self, streams: &[StreamId]) -> Result<Vec<u64>, StoreError> {
        self.call("versions").versions(streams).await
    }

    async fn claim_owner(&self, claim: &Claim) -> Result<Option<StreamId>, StoreError> {
        self.call("claim_owner").claim_owner(claim).await
    }

    async fn claims(&self, kind: &str, prefix: &str) -> Result<Vec<(Claim, StreamId)>, StoreError> {
        self.call("claims").claims(kind, prefix).await
    }

    async fn idempotent(&self, key: &[u8; 32]) -> Result<Option<StoredIdempotency>, StoreError> {
        self.call("idempotent").idempotent(key).await
    }

    /// Not counted: it costs nothing where the node has appended since.
    async fn confirm(&self, position: u64) -> Result<(), AppendError> {
        self.next().confirm(position).await
    }

    async fn forget_idempotency(
        &self,
        after: Option<[u8; 32]>,
        before: Timestamp,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        self.call("forget_idempotency").forget_idempotency(after, before).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        self.call("load_snapshot").load_snapshot(stream).await
    }

    async fn load_snapshots(&self, streams: &[StreamId]) -> Result<Vec<Option<Snapshot>>, StoreError> {
        self.call("load_snapshots").load_snapshots(streams).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<(), StoreError> {
        self.call("save_snapshot").save_snapshot(stream, snapshot).await?;
        self.snapshots_kept.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<StreamId>, StoreError> {
        self.call("snapshots").snapshots().await
    }

    async fn cursor_position(&self, effect: &str) -> Result<Option<u64>, StoreError> {
        self.call("cursor_position").cursor_position(effect).await
    }

    async fn hold_cursor(
        &self,
        effect: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<Option<Cursor>, StoreError> {
        self.call("hold_cursor").hold_cursor(effect, holder, lasts).await
    }

    async fn move_cursor(&self, effect: &str, cursor: Cursor) -> Result<bool, StoreError> {
        self.call("move_cursor").move_cursor(effect, cursor).await
    }

    async fn release_cursor(&self, effect: &str, cursor: Cursor) -> Result<(), StoreError> {
        self.call("release_cursor").release_cursor(effect, cursor).await
    }

    async fn can_append(&self) -> Result<(), StoreError> {
        self.call("can_append").can_append().await
    }

    fn last_append(&self) -> Result<(), Why> {
        self.next().last_append()
    }

    async fn newest_streams(&self, aggregate: &str, limit: u32) -> Result<Vec<StreamId>, StoreError> {
        self.call("newest_streams").newest_streams(aggregate, limit).await
    }

    async fn close(&self) {
        for node in &self.list {
            node.close().await;
        }
    }
}
