//! Aggregates, loaded from snapshot and journal and kept at hand.

pub mod as_of;
mod cache;
mod fetched;
mod reads;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

pub use domain::Loaded;
use domain::{Event, Personal, Recorded, Stream, StreamId, Timestamp, UserId};
use quick_cache::sync::Cache;
use schemas::codec;
use schemas::envelope::RecordedEvent;
use uuid::Uuid;

use self::cache::{Bytes, Cached, USUAL_BYTES};
pub use self::fetched::{Fetched, Tail};
pub use self::reads::Reads;
use crate::journal::{Journal, NewEvent, Snapshot, StoreError};
use crate::measure;
use crate::personal::{self, Requested};
use crate::sealing::Sealer;

/// A snapshot is kept each time a stream passes a multiple of this.
const SNAPSHOT_EVERY: u64 = 100;
/// The form of snapshots this code writes. Raise it when an aggregate's state changes its meaning: older ones are
/// then passed over. Those up to 2 carried no MAC.
const SNAPSHOT_FORM: u8 = 5;

/// How many states that turned out to be old are kept to read on from.
const BEHIND: usize = 1000;

/// Loads aggregates. Where one process alone writes, what it has at hand is always current: each append is
/// followed by [`Repository::put`] or [`Repository::evict`]. Where others write, too, the journal is asked for versions.
pub struct Repository {
    journal: Arc<dyn Journal>,
    sealer: Arc<Sealer>,
    cached: Cache<StreamId, Cached, Bytes>,
    /// What turned out to be old: only what came after it has to be read.
    behind: Cache<StreamId, Cached, Bytes>,
    // Looking at the version at hand and replacing it must not be torn apart.
    puts: [Mutex<()>; 16],
    /// The latest time of an event that it has heard of, in microseconds.
    latest: AtomicI64,
}

/// A snapshot that this instance wrote.
struct Proven<A> {
    loaded: Loaded<A>,
    /// The id of the event it was taken at.
    last: Uuid,
}

/// Why there is no snapshot to start from.
#[derive(Clone, Copy)]
enum PassedOver {
    /// There is none.
    None,
    /// It is of a form that this code does not read.
    OldForm,
    /// It is not this instance's, or of another stream or version.
    Unproven,
    /// It cannot be opened or understood, as when the person was erased.
    Unreadable,
}

impl PassedOver {
    /// As metrics know it.
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::OldForm => "old_form",
            Self::Unproven => "unproven",
            Self::Unreadable => "unreadable",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::None => "there is none",
            Self::OldForm => "it is of an older form",
            Self::Unproven => {
                "its MAC is false: this instance did not write it, or not for this stream and version"
            }
            Self::Unreadable => "it cannot be opened",
        }
    }
}

impl Repository {
    /// A repository that keeps up to `capacity` aggregates of usual size at hand.
    pub fn new(journal: Arc<dyn Journal>, sealer: Arc<Sealer>, capacity: usize) -> Self {
        Self::bounded(journal, sealer, capacity, capacity as u64 * USUAL_BYTES)
    }

    /// A repository that keeps aggregates at hand, of at most so many bytes together, and at most so many.
    pub fn bounded(journal: Arc<dyn Journal>, sealer: Arc<Sealer>, capacity: usize, bytes: u64) -> Self {
        let capacity = capacity.max(1);
        let weights = Bytes { at_least: (bytes / capacity as u64).max(1) };
        Self {
            journal,
            sealer,
            cached: Cache::with_weighter(capacity, bytes, weights.clone()),
            behind: Cache::with_weighter(BEHIND.min(capacity), bytes / 16, weights),
            puts: Default::default(),
            latest: AtomicI64::new(i64::MIN),
        }
    }

    /// Notes the time of an event.
    pub fn saw(&self, at: Timestamp) {
        self.latest.fetch_max(at.as_microsecond(), Ordering::Relaxed);
    }

    /// The latest time that events show: this one, unless this machine's clock is behind one that was noted.
    pub fn latest(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_microsecond(self.latest.load(Ordering::Relaxed)).map_or(now, |latest| latest.max(now))
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// What seals the personal parts.
    pub fn sealer(&self) -> &Arc<Sealer> {
        &self.sealer
    }

    /// The aggregate of this id, as of now or later; its default at version 0 where there is none. On a journal that
    /// others write to, too, this is a round trip: [`Repository::reads`] makes one for several.
    pub async fn load<A: Recorded>(&self, id: &A::Id) -> Result<Arc<Loaded<A>>, StoreError> {
        self.load_stream(&A::stream(id)).await
    }

    /// As [`Repository::load`], by the name of the stream.
    pub async fn load_stream<A: Recorded>(&self, stream: &StreamId) -> Result<Arc<Loaded<A>>, StoreError> {
        if self.journal.is_shared()
            && let Some(cached) = self.cached.peek(stream)
        {
            self.moved(&[(stream.clone(), cached.version)]).await?;
        }
        self.load_stream_at_hand(stream).await
    }

    /// Like [`Repository::load`], but returns the cached state, although others may have written meanwhile. A decision on it
    /// is checked by the append, or by [`Repository::moved`], before anything is answered.
    pub async fn load_at_hand<A: Recorded>(&self, id: &A::Id) -> Result<Arc<Loaded<A>>, StoreError> {
        self.load_stream_at_hand(&A::stream(id)).await
    }

    /// As [`Self::load_at_hand`], of the aggregate whose stream this is.
    pub async fn load_stream_at_hand<A: Recorded>(
        &self,
        stream: &StreamId,
    ) -> Result<Arc<Loaded<A>>, StoreError> {
        self.load_fetched(stream, None).await
    }

    /// As [`Self::load_stream_at_hand`], from what was read of the stream before, if it was.
    pub async fn load_fetched<A: Recorded>(
        &self,
        stream: &StreamId,
        tail: Option<Tail>,
    ) -> Result<Arc<Loaded<A>>, StoreError> {
        // One caller reads, the others wait for it. A `put` meanwhile takes the place away from the reader, whose
        // older state is then not kept.
        match self.cached.get_value_or_guard_async(stream).await {
            Ok(cached) => downcast(stream, cached),
            Err(place) => {
                let loaded = Arc::new(self.read::<A>(stream, tail).await?);
                if loaded.version > 0 || A::IS_OFTEN_ABSENT {
                    let _ = place.insert(Cached::new(stream, Arc::clone(&loaded)));
                }
                Ok(loaded)
            }
        }
    }

    /// Keeps a state at hand, unless there is a newer one.
    pub fn put<A: Stream>(&self, stream: &StreamId, loaded: Arc<Loaded<A>>) {
        let version = loaded.version;
        let guard = self.lock(stream);
        let before = self.cached.peek(stream).map_or(0, |cached| cached.version);
        if before >= version {
            return;
        }
        let passed = before > 0 && before / SNAPSHOT_EVERY != version / SNAPSHOT_EVERY;
        let to_snapshot = passed.then(|| Arc::clone(&loaded));
        self.cached.insert(stream.clone(), Cached::new(stream, loaded));
        drop(guard);
        if let Some(loaded) = to_snapshot {
            self.snapshot_in_background(stream, &loaded);
        }
    }

    /// Forgets a state that turned out to be old.
    pub fn evict(&self, stream: &StreamId) {
        self.cached.remove(stream);
        self.behind.remove(stream);
    }

    /// Forgets all states that contain data of these people.
    pub fn forget(&self, people: &HashSet<UserId>) {
        for cache in [&self.cached, &self.behind] {
            cache.retain(|_, cached| cached.person.is_none_or(|person| !people.contains(&person)));
        }
    }

    /// Takes a state that is older than this version for old: it is read on from when it is asked for. What is newer
    /// stays: were it forgotten, a slower [`Repository::put`] of the version before it would take its place.
    pub fn evict_before(&self, stream: &StreamId, version: u64) {
        let _guard = self.lock(stream);
        // Removed even where nothing is at hand: a reader who is on the way may have looked before the append.
        if self.cached.peek(stream).is_none_or(|cached| cached.version < version)
            && let Some((stream, old)) = self.cached.remove(stream)
        {
            self.behind.insert(stream, old);
        }
    }

    /// Which of these streams are at another version by now. They are loaded anew when they are asked for next. On a
    /// journal without other writers there are none, and nothing is queried.
    pub async fn moved(&self, seen: &[(StreamId, u64)]) -> Result<Vec<StreamId>, StoreError> {
        if seen.is_empty() || !self.journal.is_shared() {
            return Ok(vec![]);
        }
        let streams: Vec<StreamId> = seen.iter().map(|(stream, _)| stream.clone()).collect();
        let versions = self.journal.versions(&streams).await?;
        let mut moved = Vec::new();
        for ((stream, seen), version) in seen.iter().zip(versions) {
            if *seen != version {
                self.evict_before(stream, version);
                moved.push(stream.clone());
            }
        }
        Ok(moved)
    }

    /// Loads several aggregates for one decision, which costs one round trip at most where all of them are at hand.
    pub fn reads(&self) -> Reads<'_> {
        Reads::new(self)
    }

    /// Tells metrics what is at hand.
    pub fn measure(&self) {
        let cached = &self.cached;
        measure::cache("aggregates", cached.len(), cached.weight(), cached.hits(), cached.misses());
    }

    fn lock(&self, stream: &StreamId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        stream.hash(&mut hasher);
        let shard = usize::try_from(hasher.finish() % self.puts.len() as u64).unwrap_or_default();
        self.puts[shard].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The event, with its personal part opened. Where the person was erased, that part reads as absent.
    pub async fn decode(&self, recorded: &RecordedEvent) -> Result<Event, StoreError> {
        let personal = personal::open_bytes(&self.sealer, recorded).await?;
        let RecordedEvent { stream, name, schema_version, data, .. } = recorded;
        codec::decode(stream, name, *schema_version, data, personal.as_deref())
            .map_err(|error| StoreError::Damaged(format!("event {}: {error}", recorded.position)))
    }

    /// The event of this version of a stream, if there is one.
    pub async fn event(&self, stream: &StreamId, version: u64) -> Result<Option<Event>, StoreError> {
        let events = self.journal.read_streams(&[(stream.clone(), version.saturating_sub(1))]).await?;
        let Some(recorded) = events.first().and_then(|events| events.first()) else { return Ok(None) };
        if recorded.version != version {
            return Ok(None);
        }
        self.decode(recorded).await.map(Some)
    }

    /// What to append for an event, with its personal part sealed.
    pub async fn encode(&self, event: &Event, id: Uuid) -> Result<NewEvent, StoreError> {
        personal::encode(&self.sealer, event, id).await
    }

    /// As [`Repository::encode`], for an event that a request made: where that came from goes into the sealed part.
    pub async fn encode_for(
        &self,
        event: &Event,
        id: Uuid,
        requested: &Requested<'_>,
    ) -> Result<NewEvent, StoreError> {
        personal::encode_for(&self.sealer, event, id, requested).await
    }

    /// The personal part of an event, opened: see [`personal::open`].
    pub async fn personal(&self, recorded: &RecordedEvent) -> Result<Option<Personal>, StoreError> {
        personal::open(&self.sealer, recorded).await
    }

    async fn read<A: Recorded>(
        &self,
        stream: &StreamId,
        mut tail: Option<Tail>,
    ) -> Result<Loaded<A>, StoreError> {
        let behind = self.behind.remove(stream).and_then(|(_, old)| old.loaded.downcast::<Loaded<A>>().ok());
        let (loaded, after) = match behind {
            Some(old) => (Loaded::clone(&old), None),
            None => match self.read_snapshot::<A>(stream, tail.as_mut()).await? {
                Ok(Proven { loaded, last }) => (loaded, Some(last)),
                Err(_) => (Loaded::default(), None),
            },
        };
        let started = loaded.version;
        // The event that a snapshot was taken at is read with those after it. The snapshot proves that there was one: a
        // journal without it has lost its end, and nothing is to be decided on what is left.
        let from = started.saturating_sub(after.is_some().into());
        let events = match tail.filter(|tail| tail.after == from) {
            Some(tail) => tail.events,
            None => self.journal.read_stream(stream, from).await?,
        };
        let new = match (after, events.as_slice()) {
            (None, events) => events,
            (Some(last), [first, new @ ..]) if first.version == started && first.id == last => new,
            (Some(_), _) => {
                return Err(StoreError::Damaged(format!(
                    "version {started} of {stream}, which a snapshot of this instance was taken at, is not in the journal"
                )));
            }
        };
        let loaded = self.fold(stream, loaded, new).await?;
        if loaded.version - started >= SNAPSHOT_EVERY {
            self.snapshot_in_background(stream, &loaded);
        }
        Ok(loaded)
    }

    /// A state with the events that follow it.
    async fn fold<A: Recorded>(
        &self,
        stream: &StreamId,
        mut loaded: Loaded<A>,
        events: &[RecordedEvent],
    ) -> Result<Loaded<A>, StoreError> {
        let mut known = None;
        for recorded in events {
            // A projector shows what it can; a decision must not take somebody whose key is missing for an erased person.
            if let (Some(person), Some(_)) = (recorded.person, &recorded.personal)
                && known != Some(person)
            {
                self.sealer.keys().require_known(person).await?;
                known = Some(person);
            }
            let expected = loaded.version + 1;
            if recorded.version != expected {
                return Err(StoreError::Damaged(format!("version {expected} of {stream} is missing")));
            }
            let foreign = || StoreError::Damaged(format!("{} does not belong into {stream}", recorded.name));
            let event = A::Event::try_from(self.decode(recorded).await?).map_err(|_| foreign())?;
            loaded.state.apply(event);
            loaded.version = expected;
        }
        Ok(loaded)
    }

    /// Compares the snapshot of a stream with what its events say: what is wrong with it, if anything. Nothing rests on one
    /// that is passed over, as everything is in the journal.
    pub async fn check_snapshot<A: Recorded>(&self, stream: &StreamId) -> Result<Option<String>, StoreError> {
        let Proven { loaded, last } = match self.read_snapshot::<A>(stream, None).await? {
            Ok(proven) => proven,
            // A version before this one wrote it, or the person was erased.
            Err(PassedOver::None | PassedOver::OldForm | PassedOver::Unreadable) => return Ok(None),
            Err(reason) => return Ok(Some(format!("{}. No decision rests on it", reason.text()))),
        };
        let mut events = self.journal.read_stream(stream, 0).await?;
        events.retain(|event| event.version <= loaded.version);
        if events.last().map(|event| (event.version, event.id)) != Some((loaded.version, last)) {
            return Ok(Some(format!(
                "it was taken at version {}, which is not in the journal",
                loaded.version
            )));
        }
        let folded = self.fold(stream, Loaded::<A>::default(), &events).await?;
        let value = |state: &A| serde_json::to_value(state).ok();
        let same = value(&folded.state) == value(&loaded.state);
        Ok((!same)
            .then(|| format!("it says something else than the events up to version {}", loaded.version)))
    }

    /// A snapshot that cannot be used is no harm: everything is in the journal.
    async fn read_snapshot<A: Stream>(
        &self,
        stream: &StreamId,
        tail: Option<&mut Tail>,
    ) -> Result<Result<Proven<A>, PassedOver>, StoreError> {
        let snapshot = match tail {
            Some(tail) => tail.snapshot.take(),
            None => self.journal.load_snapshot(stream).await?,
        };
        let Some(snapshot) = snapshot else { return Ok(Err(PassedOver::None)) };
        let read = self.open_snapshot(stream, &snapshot).await;
        if let Err(reason) = &read {
            metrics::counter!("watchword_snapshots_passed_over_total", "reason" => reason.name())
                .increment(1);
            tracing::info!(
                aggregate = stream.aggregate(),
                reason = reason.name(),
                "a snapshot was passed over"
            );
        }
        Ok(read)
    }

    async fn open_snapshot<A: Stream>(
        &self,
        stream: &StreamId,
        snapshot: &Snapshot,
    ) -> Result<Proven<A>, PassedOver> {
        let Snapshot { version, state } = snapshot;
        let proven = state.split_first().ok_or(PassedOver::OldForm)?;
        let (&SNAPSHOT_FORM, proven) = proven else { return Err(PassedOver::OldForm) };
        let (mac, proven) = proven.split_first_chunk::<32>().ok_or(PassedOver::Unproven)?;
        let (last, state) = proven.split_first_chunk::<16>().ok_or(PassedOver::Unproven)?;
        let last = Uuid::from_bytes(*last);
        if *version == 0 || !self.sealer.keys().macs().is_snapshot(stream, *version, last, state, mac) {
            return Err(PassedOver::Unproven);
        }
        let state = match state {
            [0, plain @ ..] => Some(plain.to_vec()),
            [1, sealed @ ..] => match sealed.split_first_chunk::<16>() {
                Some((person, sealed)) => {
                    let person = UserId(Uuid::from_bytes(*person));
                    let aad = snapshot_aad(stream, *version);
                    self.sealer.open(person, &aad, sealed).await.unwrap_or_default()
                }
                None => None,
            },
            _ => None,
        };
        let state = state.map(zeroize::Zeroizing::new);
        let state =
            state.and_then(|state| serde_json::from_slice(&state).ok()).ok_or(PassedOver::Unreadable)?;
        Ok(Proven { loaded: Loaded { version: *version, state }, last })
    }

    fn snapshot_in_background<A: Stream>(&self, stream: &StreamId, loaded: &Loaded<A>) {
        let Ok(state) = serde_json::to_vec(&loaded.state).map(zeroize::Zeroizing::new) else { return };
        let (journal, sealer) = (Arc::clone(&self.journal), Arc::clone(&self.sealer));
        let (stream, version) = (stream.clone(), loaded.version);
        tokio::spawn(async move {
            let saved = async {
                // Whose the stream is, its events say.
                let last = journal.read_stream(&stream, version - 1).await?;
                let gone = || StoreError::Damaged(format!("version {version} of {stream} is missing"));
                let last = last.first().filter(|last| last.version == version).ok_or_else(gone)?;
                let state = match last.person {
                    Some(person) => {
                        let state = sealer.seal(person, &snapshot_aad(&stream, version), &state).await?;
                        [&[1], person.0.as_bytes().as_slice(), &state].concat()
                    }
                    None => [&[0], state.as_slice()].concat(),
                };
                let mac = sealer.keys().macs().snapshot(&stream, version, last.id, &state);
                let state = [&[SNAPSHOT_FORM], mac.as_slice(), last.id.as_bytes(), &state].concat();
                journal.save_snapshot(&stream, Snapshot { version, state }).await
            };
            if let Err(error) = saved.await {
                tracing::warn!(%error, %stream, "a snapshot was not kept");
            }
        });
    }
}

fn downcast<A: Send + Sync + 'static>(
    stream: &StreamId,
    cached: Cached,
) -> Result<Arc<Loaded<A>>, StoreError> {
    let mistaken = |_| StoreError::Damaged(format!("{stream} was loaded as an aggregate of another type"));
    cached.loaded.downcast::<Loaded<A>>().map_err(mistaken)
}

fn snapshot_aad(stream: &StreamId, version: u64) -> Vec<u8> {
    [b"snapshot\0", stream.as_str().as_bytes(), b"\0", &version.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;
