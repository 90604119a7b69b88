//! The keys that sign checkpoints of the journal.
//!
//! The journal's own events say which keys there are ([`domain::checkpoint_keys`]). The private half of each is derived from
//! the instance key and the key's id, so all nodes have it, it is stored nowhere, and whoever can write to the journal but
//! lacks the instance key cannot make one.

use domain::checkpoint_keys::CheckpointKeys;
use domain::journal::{CheckpointKeyAdded, CheckpointKeyId, CheckpointKeyRetired, JournalEvent};
use domain::{JournalId, LogOrigin, StreamId, Timestamp};
use jiff::SignedDuration;
use schemas::envelope::Metadata;
use tlog::note::Kind;
use tlog::{Note, Signer};
use uuid::Uuid;

use crate::clock::Clock;
use crate::epoch::{epochs, own_events};
use crate::instance_key::InstanceKey;
use crate::journal::{Append, AppendError, Appended, Idempotency, Journal, StoreError};
use crate::origin;

/// How often to look again after another node was faster, or the outcome is unknown.
const TRIES: usize = 8;

/// What the journal's own events say about its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The keys.
    pub keys: CheckpointKeys,
    /// The epochs of this history, the newest last: see [`crate::epoch`].
    pub epochs: Vec<Uuid>,
    /// The position of the newest of the journal's own events.
    pub position: u64,
    stream: StreamId,
    journal_id: JournalId,
    version: u64,
}

impl Standing {
    /// Reads it; `None` before the journal's first event.
    pub async fn read(journal: &dyn Journal) -> Result<Option<Self>, StoreError> {
        let Some(stream) = origin::stream(journal).await? else { return Ok(None) };
        let Some(journal_id) = stream.uuid().map(JournalId) else {
            return Err(StoreError::Damaged(format!("{stream} is not named by an id")));
        };
        let own = own_events(journal).await?;
        let mut keys = CheckpointKeys::default();
        for own in &own {
            keys.apply(&own.event);
        }
        let version = own.len() as u64;
        let position = own.last().map_or(0, |own| own.position);
        Ok(Some(Self { keys, epochs: epochs(&own), position, stream, journal_id, version }))
    }

    /// Reads it, of a journal that has begun.
    pub async fn of(journal: &dyn Journal) -> Result<Self, StoreError> {
        let absent = || StoreError::Unavailable("the journal has not begun yet".into());
        Self::read(journal).await?.ok_or_else(absent)
    }
}

/// A key that signs checkpoints, or has signed them, as the journal's own events say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id.
    pub id: CheckpointKeyId,
    /// Its public half, a vkey.
    pub key: String,
    /// The position of the event that added it.
    pub added: u64,
    /// The position of the event that retired it.
    pub retired: Option<u64>,
}

/// All keys that the journal tells of, the oldest first.
pub async fn history(journal: &dyn Journal) -> Result<Vec<KeyRecord>, StoreError> {
    let mut records: Vec<KeyRecord> = Vec::new();
    for own in own_events(journal).await? {
        match own.event {
            JournalEvent::CheckpointKeyAdded(CheckpointKeyAdded { key_id, key, .. }) => {
                records.push(KeyRecord { id: key_id, key, added: own.position, retired: None });
            }
            JournalEvent::CheckpointKeyRetired(CheckpointKeyRetired { key_id, .. }) => {
                let retired = records.iter_mut().filter(|record| record.id == key_id);
                retired.for_each(|record| record.retired = Some(own.position));
            }
            JournalEvent::JournalCreated(_) | JournalEvent::JournalWentBack(_) => {}
        }
    }
    Ok(records)
}

/// Who asks for a new key, and under which idempotency key.
#[derive(Clone, Debug)]
pub struct Asked {
    /// For whom, by whom and why.
    pub metadata: Metadata,
    /// The caller's idempotency key.
    pub idempotency: Option<Idempotency>,
}

/// The keys of an instance.
#[derive(Clone, Copy)]
pub struct CheckpointKeyring<'a> {
    /// What they are derived from.
    pub instance: &'a InstanceKey,
    /// The origin of the events, which names the log.
    pub origin: &'a LogOrigin,
}

impl CheckpointKeyring<'_> {
    fn signer(&self, id: CheckpointKeyId) -> Signer {
        let seed = self.instance.derive(&format!("watchword/v1/checkpoint-key/{id}"));
        Signer::from_seed(self.origin.log_name(), Kind::Log, &seed).expect("the name of a log names a key")
    }

    /// Whether this instance made a key with this id.
    pub fn has_made(&self, id: CheckpointKeyId, key: &str) -> bool {
        self.signer(id).key().to_string() == key
    }

    /// What signs now, the newest first. Refuses a key that this instance did not make.
    pub fn signers(&self, keys: &CheckpointKeys) -> Result<Vec<Signer>, StoreError> {
        let one = |key: &domain::checkpoint_keys::CheckpointKey| {
            let signer = self.signer(key.id);
            if signer.key().to_string() == key.key {
                Ok(signer)
            } else {
                Err(StoreError::Damaged(format!("this instance did not make the checkpoint key {}", key.id)))
            }
        };
        keys.signing().iter().map(one).collect()
    }

    /// The public keys that sign now, one a line, the newest first.
    pub fn published(&self, keys: &CheckpointKeys) -> Result<String, StoreError> {
        let lines: Vec<String> = self.signers(keys)?.iter().map(|signer| signer.key().to_string()).collect();
        Ok(lines.join("\n") + "\n")
    }

    /// Adds the first key, unless there is one: exactly one, however many nodes start at the same time.
    pub async fn establish(&self, journal: &dyn Journal, clock: &dyn Clock) -> Result<(), StoreError> {
        let absent = |standing: &Standing| standing.keys.signing().is_empty();
        self.change(journal, clock, None, |standing, at| {
            let events =
                if absent(standing) { standing.keys.add(self.made(standing, clock, at)?) } else { vec![] };
            Ok(events)
        })
        .await
        .map(drop)
        .map_err(unavailable)
    }

    /// Adds a key that signs beside the one before it, which endorses it. If the request was carried out before, nothing
    /// happens. Returns the position of the key's event.
    pub async fn rotate(
        &self,
        journal: &dyn Journal,
        clock: &dyn Clock,
        asked: Asked,
    ) -> Result<u64, AppendError> {
        let add = |standing: &Standing, at| Ok(standing.keys.add(self.made(standing, clock, at)?));
        let appended = self.change(journal, clock, Some(asked), add).await?.ok_or(AppendError::Empty)?;
        if appended.replayed {
            journal.confirm(appended.last).await?;
        }
        Ok(appended.last)
    }

    /// Retires the keys before the newest that have signed beside it for so long.
    pub async fn retire(
        &self,
        journal: &dyn Journal,
        clock: &dyn Clock,
        overlap: SignedDuration,
    ) -> Result<(), StoreError> {
        self.change(journal, clock, None, |standing, at| {
            Ok(standing.keys.retire(standing.journal_id, overlap, at))
        })
        .await
        .map(drop)
        .map_err(unavailable)
    }

    fn made(
        &self,
        standing: &Standing,
        clock: &dyn Clock,
        at: Timestamp,
    ) -> Result<CheckpointKeyAdded, StoreError> {
        let key_id = CheckpointKeyId(clock.new_id());
        let key = self.signer(key_id).key().to_string();
        let before = self.signers(&standing.keys)?.into_iter().next();
        let endorsement = before.map(|before| endorse(&before, &key));
        Ok(CheckpointKeyAdded { journal_id: standing.journal_id, key_id, key, endorsement, at })
    }

    /// Appends what is decided on the journal's own events, and decides again where another node was first.
    async fn change(
        &self,
        journal: &dyn Journal,
        clock: &dyn Clock,
        asked: Option<Asked>,
        decide: impl Fn(&Standing, Timestamp) -> Result<Vec<JournalEvent>, StoreError>,
    ) -> Result<Option<Appended>, AppendError> {
        let mut last = None;
        for _ in 0..TRIES {
            let (standing, at) = (Standing::of(journal).await?, clock.now());
            let events = decide(&standing, at)?;
            if events.is_empty() {
                return Ok(None);
            }
            let mut append = origin::own(clock, standing.stream, standing.version, events, at);
            if let Some(Asked { metadata, idempotency }) = asked.clone() {
                append = Append { idempotency, metadata, ..append };
            }
            match journal.append(append).await {
                Ok(appended) => return Ok(Some(appended)),
                Err(error @ AppendError::Conflict { .. }) => last = Some(error),
                // What has no key of its own is looked up again, and not repeated if it is there.
                Err(error @ AppendError::Unknown(_)) if asked.is_none() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(AppendError::Empty))
    }
}

/// What a key says of the next one, for those who know only the former.
fn endorse(before: &Signer, key: &str) -> String {
    let text = format!("watchword checkpoint key\n{key}\n");
    let signatures = vec![before.sign(&text, 0)];
    Note { text, signatures }.to_string()
}

fn unavailable(error: AppendError) -> StoreError {
    match error {
        AppendError::Unavailable(reason) => StoreError::Unavailable(reason),
        AppendError::Damaged(what) => StoreError::Damaged(what),
        error => StoreError::Unavailable(error.to_string().into()),
    }
}
