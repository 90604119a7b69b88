//! Reading several streams together.

use std::collections::HashMap;

use domain::StreamId;
use schemas::envelope::RecordedEvent;

use super::Repository;
use crate::journal::{Snapshot, StoreError};

/// What [`Repository::fetch`] read of several streams, to load their aggregates from.
#[derive(Default)]
pub struct Fetched(HashMap<StreamId, Tail>);

impl Fetched {
    /// What was read of a stream, if it was.
    pub fn take(&mut self, stream: &StreamId) -> Option<Tail> {
        self.0.remove(stream)
    }
}

/// What was read of one stream.
pub struct Tail {
    /// Its snapshot, if it has one and no newer state was known. Nothing has proven it yet.
    pub(super) snapshot: Option<Snapshot>,
    /// The version that the events follow.
    pub(super) after: u64,
    pub(super) events: Vec<RecordedEvent>,
}

impl Repository {
    /// Reads those of several streams that are not cached, so that loading all of them takes at most two round trips instead of
    /// two for each. It does so only on a shared journal. Where this process alone writes, a cached state must never be older
    /// than what it wrote, so each stream is read when it is loaded; there are no round trips to save there either.
    pub async fn fetch(&self, streams: &[StreamId]) -> Result<Fetched, StoreError> {
        let mut absent: Vec<StreamId> = streams.to_vec();
        absent.retain(|stream| self.cached.peek(stream).is_none());
        if !self.journal.is_shared() || absent.len() < 2 {
            return Ok(Fetched::default());
        }
        let behind: Vec<Option<u64>> =
            absent.iter().map(|stream| self.behind.peek(stream).map(|old| old.version)).collect();
        let cold: Vec<StreamId> =
            absent.iter().zip(&behind).filter(|(_, old)| old.is_none()).map(|(it, _)| it.clone()).collect();
        let mut snapshots =
            if cold.is_empty() { vec![] } else { self.journal.load_snapshots(&cold).await? }.into_iter();
        let mut wanted = Vec::with_capacity(absent.len());
        let mut kept = Vec::with_capacity(absent.len());
        for (stream, old) in absent.into_iter().zip(behind) {
            let snapshot = if old.is_some() { None } else { snapshots.next().flatten() };
            // With the event that a snapshot was taken at: see `read`.
            let after = old.or(snapshot.as_ref().map(|it| it.version.saturating_sub(1))).unwrap_or_default();
            wanted.push((stream, after));
            kept.push(snapshot);
        }
        let events = self.journal.read_streams(&wanted).await?;
        let tails = wanted.into_iter().zip(kept).zip(events);
        let tail = |(((stream, after), snapshot), events)| (stream, Tail { snapshot, after, events });
        Ok(Fetched(tails.map(tail).collect()))
    }
}
