//! What a journal is: the trait that every adapter implements, and the types that go in and out.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use domain::{StreamId, Timestamp, UserId};
use schemas::envelope::{Metadata, RecordedEvent};
use tokio::sync::watch;
use uuid::Uuid;

use crate::seen::Lost;
use crate::storage::Why;

/// A name that at most one stream holds at any position of the log, such as an email address within an app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// What sort of name: `email`, `session` …
    pub kind: String,
    /// The name. It holds no personal data: addresses come as HMACs.
    pub key: String,
}

/// An event that is to be written, with its personal part sealed already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Its id, which nothing else has.
    pub id: Uuid,
    /// Its name.
    pub name: Cow<'static, str>,
    /// The version of its shape.
    pub schema_version: u16,
    /// Its payload without the personal part: a canonical JSON object.
    pub data: String,
    /// Whose key seals the personal part.
    pub person: Option<UserId>,
    /// The sealed personal part.
    pub personal: Option<Vec<u8>>,
}

/// Events for one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The stream.
    pub stream: StreamId,
    /// The version it must have before: 0 for a new stream.
    pub expected: u64,
    /// What to write, one event at least.
    pub events: Vec<NewEvent>,
}

/// Makes an append happen once, however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Names the request: a hash of who sent it and the key they chose.
    pub key: [u8; 32],
    /// A hash of what the request says: the same key with another request is refused.
    pub fingerprint: [u8; 32],
}

/// What is to be written together. All of it happens or nothing.
#[derive(Clone, Debug)]
pub struct Append {
    /// Events by stream; positions are given in this order.
    pub writes: Vec<Write>,
    /// Streams that are not written but must have exactly these versions, as the decision rests on them.
    pub guards: Vec<(StreamId, u64)>,
    /// Claims to take, each with its new owner. Taking a claim that its owner holds already is no error.
    pub taken: Vec<(Claim, StreamId)>,
    /// Claims to release, before any is taken. Releasing an unclaimed one is not an error.
    pub released: Vec<Claim>,
    /// See [`Idempotency`].
    pub idempotency: Option<Idempotency>,
    /// Who wrote it and why.
    pub metadata: Metadata,
    /// When, to the microsecond.
    pub at: Timestamp,
}

impl Append {
    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.writes.iter().map(|write| write.events.len()).sum()
    }

    /// Whether it holds no event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where events were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The position of the first.
    pub first: u64,
    /// The position of the last; those between belong to the same append.
    pub last: u64,
    /// Whether they were there already, under the same idempotency key.
    pub replayed: bool,
}

/// Why nothing was written, or that it is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A stream has another version than the writes or guards say. Load it and decide again.
    #[error("stream {stream} is at version {actual}")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// The version it has.
        actual: u64,
    },
    /// Another stream holds the claim.
    #[error("the {} claim is held by {owner}", claim.kind)]
    ClaimTaken {
        /// The claim.
        claim: Claim,
        /// The stream that holds it.
        owner: StreamId,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// There is nothing to write, or a write holds no event.
    #[error("an append needs an event in each of its writes")]
    Empty,
    /// It may be written or not: only sending it again under its idempotency key, or reading, can tell.
    #[error("whether the events were written is unknown: {0}")]
    Unknown(String),
    /// It was not written, and something is out of order.
    #[error("the journal cannot write: {0}")]
    Unavailable(Why),
    /// It was not written, as what it rests on is not as this instance wrote it.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
}

/// Why nothing could be read or kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or does not work for now.
    #[error("the store is unavailable: {0}")]
    Unavailable(Why),
    /// What is stored makes no sense.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// The person's key was erased: nothing can be sealed for them any more.
    #[error("the data key of {0} was erased")]
    Erased(UserId),
}

impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => Self::Unavailable(why),
            StoreError::Damaged(what) => Self::Damaged(what),
            error @ StoreError::Erased(_) => Self::Unavailable(error.to_string().into()),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Damaged(error.to_string()),
            other => Self::Unavailable(Why::of(&other)),
        }
    }
}

/// Why a file was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{0} is in use by another process: stop that one first, or use another data directory")]
    InUse(String),
    /// It is a file of something else.
    #[error("{path} is no {expected}: {found}. Choose another path, or move that file away")]
    Foreign {
        /// Which file.
        path: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// It is broken.
    #[error("{path} is damaged: {what}. Restore it from a backup")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A later version of Watchword wrote it.
    #[error("{path} has format {found}, but this program knows formats up to {known}: start a newer one")]
    Newer {
        /// Which file.
        path: String,
        /// Its format.
        found: u32,
        /// The newest known format.
        known: u32,
    },
    /// It has the format of an earlier version, or no tables yet, and this user may not change that.
    #[error("{path} holds {} of the {what}, but this program needs format {known} and its user may not make it ({because}). Run `watchword migrate` as the owner of the database", if *found == 0 { "nothing".to_owned() } else { format!("format {found}") })]
    Outdated {
        /// Which database.
        path: String,
        /// What should be in it.
        what: &'static str,
        /// Its format; 0 when there is none.
        found: u32,
        /// The format this program works with.
        known: u32,
        /// What the database said, and what would help.
        because: String,
    },
    /// Its events carry no MACs, as in earlier versions, but the key store records that they carry them.
    #[error(
        "{path} has format {found}, in which events carry no MAC, but the key store says that this instance's events carry them: somebody set the format back, or journal and key store are of different backups. Restore both from a backup of the same moment"
    )]
    WithoutMacs {
        /// Which file or database.
        path: String,
        /// Its format.
        found: u32,
    },
    /// The master key is not the one that the key store was made with.
    #[error("{0} was made with another master key: set the master key that it was made with")]
    WrongMasterKey(String),
    /// It refuses access, which waiting does not fix.
    #[error("{path} cannot be opened: {reason}")]
    Denied {
        /// Which server.
        path: String,
        /// What to change.
        reason: String,
    },
    /// The server that it is on cannot be reached, or takes nothing for now: later it may.
    #[error("{path} cannot be reached: {reason}")]
    Away {
        /// Which database.
        path: String,
        /// What the system or the server said.
        reason: String,
    },
    /// It cannot be read or made.
    #[error("{path} cannot be opened: {reason}")]
    Failed {
        /// Which file.
        path: String,
        /// What the system said.
        reason: String,
    },
}

impl OpenError {
    /// Whether to wait and to try again may help, as somebody or something else can mend it meanwhile: the server is away, or the
    /// tables are to be made by its owner.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Outdated { .. })
    }
}

/// A stored idempotency key.
pub(crate) fn idempotency_key(bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Damaged("an idempotency key is not 32 bytes long".to_owned()))
}

/// What an idempotency key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredIdempotency {
    /// Of the request.
    pub fingerprint: [u8; 32],
    /// The position of its first event.
    pub first: u64,
    /// The position of its last event.
    pub last: u64,
}

/// An aggregate's state as it was at a version, so that loading need not start at the first event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version.
    pub version: u64,
    /// What the repository made of the state; sealed when it is a person's.
    pub state: Vec<u8>,
}

/// How far an effect has come, and the right to go on with it.
///
/// An effect does something outside, such as sending mail, once for each event, and never again when events are read
/// again. So where it stands is kept beside the journal, and starts at the newest event; and one node at a time does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The position of the last event that it is done with.
    pub position: u64,
    /// Counts its holders so far.
    pub epoch: u64,
}

/// No cursor is held for longer at a time. An end further off was written by somebody else, or by a clock that was set back
/// since: it is not waited for.
pub const LONGEST_HOLD: Duration = Duration::from_mins(5);

/// The log of all events, in one order.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Writes all of it durably, or nothing. The idempotency key is looked at first, then versions, then claims.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// The events of a stream with a version greater than `after_version`, in order.
    async fn read_stream(
        &self,
        stream: &StreamId,
        after_version: u64,
    ) -> Result<Vec<RecordedEvent>, StoreError>;

    /// As [`Journal::read_stream`], of several streams, in their order. A journal on a server answers in one round trip.
    async fn read_streams(&self, wanted: &[(StreamId, u64)]) -> Result<Vec<Vec<RecordedEvent>>, StoreError> {
        let mut streams = Vec::with_capacity(wanted.len());
        for (stream, after_version) in wanted {
            streams.push(self.read_stream(stream, *after_version).await?);
        }
        Ok(streams)
    }

    /// Up to `limit` events with a position greater than `after`, in order, without a gap. Those before one that cannot
    /// be read are given; it is an error only where it comes first. None: there is no later event.
    async fn read_all(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, StoreError>;

    /// The events at these positions, ascending.
    async fn read_positions(&self, positions: &[u64]) -> Result<Vec<RecordedEvent>, StoreError>;

    /// The positions of the events of a type that come after `after` and not after `until`, ascending.
    async fn positions_of(&self, name: &str, after: u64, until: u64) -> Result<Vec<u64>, StoreError>;

    /// The position of the newest event; 0 when there is none.
    async fn head(&self) -> Result<u64, StoreError>;

    /// Follows [`Journal::head`]: changes after each commit.
    fn watch_head(&self) -> watch::Receiver<u64>;

    /// Whether other processes append to it, too. Where none does, what this one keeps in memory is always current.
    fn is_shared(&self) -> bool;

    /// The versions of these streams, in their order, as of now: 0 where a stream does not exist.
    async fn versions(&self, streams: &[StreamId]) -> Result<Vec<u64>, StoreError>;

    /// Which stream holds the claim.
    async fn claim_owner(&self, claim: &Claim) -> Result<Option<StreamId>, StoreError>;

    /// The held claims of a kind whose key starts with `prefix`, by key.
    async fn claims(&self, kind: &str, prefix: &str) -> Result<Vec<(Claim, StreamId)>, StoreError>;

    /// What was written under the idempotency key.
    async fn idempotent(&self, key: &[u8; 32]) -> Result<Option<StoredIdempotency>, StoreError>;

    /// Waits until what is in the journal up to this position is as safe as what an append has acknowledged. To be called
    /// before an answer that something is done because it is in the journal already: whoever wrote it may not know whether
    /// a synchronous replica has it. Without one, it is safe.
    async fn confirm(&self, _position: u64) -> Result<(), AppendError> {
        Ok(())
    }

    /// Looks at the next idempotency keys behind this one, a thousand at most so that appends need not wait for long, and
    /// forgets those that were used before a time. Answers with the last one it looked at; nothing at the end. A journal
    /// that forgets them by itself does nothing here.
    async fn forget_idempotency(
        &self,
        _after: Option<[u8; 32]>,
        _before: Timestamp,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        Ok(None)
    }

    /// The newest snapshot of a stream.
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError>;

    /// As [`Journal::load_snapshot`], of several streams, in their order. A journal on a server answers in one round trip.
    async fn load_snapshots(&self, streams: &[StreamId]) -> Result<Vec<Option<Snapshot>>, StoreError> {
        let mut snapshots = Vec::with_capacity(streams.len());
        for stream in streams {
            snapshots.push(self.load_snapshot(stream).await?);
        }
        Ok(snapshots)
    }

    /// Keeps a snapshot, unless there is a newer one.
    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<(), StoreError>;

    /// The streams that have a snapshot, in order.
    async fn snapshots(&self) -> Result<Vec<StreamId>, StoreError>;

    /// Tells metrics of its connections, and of what waits for them.
    fn measure(&self) {}

    /// The cursor of an effect, whoever holds it; `None` if it has none yet. Changes nothing.
    async fn cursor_position(&self, effect: &str) -> Result<Option<u64>, StoreError>;

    /// Takes or renews the cursor of an effect for as long as `lasts`, [`LONGEST_HOLD`] at most. An effect without a cursor gets one at the newest
    /// event. `None`: another holder renewed it in time. If a single process has the journal open, no other can hold it.
    async fn hold_cursor(
        &self,
        effect: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<Option<Cursor>, StoreError>;

    /// Moves a cursor to where its holder has come. False if somebody else has taken it since.
    async fn move_cursor(&self, effect: &str, cursor: Cursor) -> Result<bool, StoreError>;

    /// Lets another holder have a cursor at once.
    async fn release_cursor(&self, effect: &str, cursor: Cursor) -> Result<(), StoreError>;

    /// Whether an append would be taken now: known from the last one, or from a small write if there was none for a
    /// while. It is asked for readiness, by anybody and often, so that it costs at most one small write in two seconds.
    async fn can_append(&self) -> Result<(), StoreError>;

    /// Looks whether the files of the journal, if it is in files, are still those that were opened. Logs a change.
    fn check_files(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The outcome of the last append, or of what stood in for it ([`Journal::can_append`]), however old it is.
    fn last_append(&self) -> Result<(), Why>;

    /// The newest streams of an aggregate whose ids are UUIDs of version 7, the newest first.
    async fn newest_streams(&self, aggregate: &str, limit: u32) -> Result<Vec<StreamId>, StoreError>;

    /// Waits until the journal has lost an event that this process has seen in it. From then on it refuses everything, as
    /// what is known of it may never have happened: it is to be opened again, and everything read anew.
    async fn went_back(&self) -> Lost {
        std::future::pending().await
    }

    /// What [`Journal::went_back`] waits for, if it has happened.
    fn lost(&self) -> Option<Lost> {
        None
    }

    /// Waits until all that was sent is written, and closes it, so that it can be opened again and nothing is left beside a
    /// file. What is asked afterwards fails.
    async fn close(&self);
}

/// The events before the first that cannot be read, or why the very first cannot.
pub(crate) fn before_damage(
    events: impl Iterator<Item = Result<RecordedEvent, StoreError>>,
) -> Result<Vec<RecordedEvent>, StoreError> {
    let mut read = Vec::new();
    for event in events {
        match event {
            Ok(event) => read.push(event),
            Err(error) if read.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(read)
}
