//! What an aggregate takes in the cache.

use std::any::Any;
use std::sync::Arc;

use domain::{Stream, StreamId, UserId};
use quick_cache::Weighter;
use serde::Serialize;

use super::Loaded;

/// What an aggregate takes that is kept at hand and of whose size nothing is said.
pub(super) const USUAL_BYTES: u64 = 4096;
/// What keeping one takes beside its name and itself: its place in the cache, and the allocations.
const PLACE_BYTES: usize = 160;

#[derive(Clone)]
pub(super) struct Cached {
    pub(super) version: u64,
    pub(super) bytes: u64,
    /// Whose data it contains.
    pub(super) person: Option<UserId>,
    pub(super) loaded: Arc<dyn Any + Send + Sync>,
}

impl Cached {
    pub(super) fn new<A: Stream + Serialize>(stream: &StreamId, loaded: Arc<Loaded<A>>) -> Self {
        // The text includes member names, so the estimate is rather too high than too low. What cannot be serialized
        // has no known size.
        let mut text = Counted(0);
        let written = serde_json::to_writer(&mut text, &loaded.state);
        let own = size_of::<Loaded<A>>() + 2 * stream.as_str().len() + PLACE_BYTES + text.0;
        let bytes = written.map_or(USUAL_BYTES, |()| own as u64);
        Self { version: loaded.version, bytes, person: loaded.state.person(), loaded }
    }
}

/// Counts what is written.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Weighs what is cached by what it takes, at least so much: that bounds how many there are, too.
#[derive(Clone)]
pub(super) struct Bytes {
    pub(super) at_least: u64,
}

impl Weighter<StreamId, Cached> for Bytes {
    fn weight(&self, _: &StreamId, cached: &Cached) -> u64 {
        cached.bytes.max(self.at_least)
    }
}
