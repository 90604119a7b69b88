//! Records of reads: before an app's admin or key gets other people's data, or exports it, an event records that. What
//! cannot be recorded is not shown.
//!
//! It is here and not in one of the services because both show such data: a process that serves only queries appends
//! these events too. It decides nothing.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use domain::access::{AccessEvent, ExportForm, HistoryExported, PersonalDataRead, PersonalDataSource};
use domain::user::Client;
use domain::{AccessId, AppId, Event, StreamId, Timestamp, UserId};
use event_store::{Append, AppendError, Clock, NewEvent, Repository, Requested, StoreError, Write};
use quick_cache::sync::Cache;
use schemas::envelope::{Actor, ActorKind, Metadata};
use tokio::sync::Mutex;

use crate::problem::Problem;
use crate::request::RequestContext;

/// How many records of this hour are cached, so that the journal need not be asked about them again.
const REMEMBERED: usize = 100_000;
/// How many callers can write at the same time.
const TURNS: usize = 64;
/// How often to retry if others write the same records first.
const TRIES: usize = 8;
const HOUR: i64 = 3600;

/// Records who read what.
pub struct AccessLog {
    repository: Arc<Repository>,
    clock: Arc<dyn Clock>,
    written: Cache<AccessId, ()>,
    /// Concurrent requests of one caller show mostly the same data: they take turns instead of conflicting.
    turns: [Mutex<()>; TURNS],
}

/// One record: its event is the only one of its stream.
struct AccessRecord {
    id: AccessId,
    event: Event,
}

/// Who reads, in which app, and with which request.
pub struct Looking<'a> {
    metadata: Metadata,
    client: &'a Client,
}

impl<'a> Looking<'a> {
    /// A reader who manages this app, or the platform.
    pub fn new(request: &'a RequestContext, app_id: &AppId, actor: &Actor) -> Self {
        Self { metadata: request.metadata(app_id.clone(), actor.clone()), client: &request.client }
    }

    fn is(&self, person: UserId) -> bool {
        let Actor { kind, id } = &self.metadata.actor;
        *kind == ActorKind::User && id.as_ref().is_some_and(|id| *id == person.to_string())
    }

    /// The same for the same read within an hour, on every node, so that it is recorded once.
    fn id(&self, at: Timestamp, what: &[&dyn Display]) -> AccessId {
        use std::fmt::Write;
        let Metadata { app_id, actor, .. } = &self.metadata;
        let hour = at.as_second().div_euclid(HOUR);
        let mut text =
            format!("{app_id}|{}|{}|{hour}", actor.kind.as_str(), actor.id.as_deref().unwrap_or_default());
        for part in what {
            write!(text, "|{part}").expect("writing to a String cannot fail");
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
        // Version 8: a custom format (RFC 9562 section 5.8).
        AccessId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl AccessLog {
    /// Writes to the repository's journal.
    pub fn new(repository: Arc<Repository>, clock: Arc<dyn Clock>) -> Self {
        let turns = std::array::from_fn(|_| Mutex::default());
        Self { repository, clock, written: Cache::new(REMEMBERED), turns }
    }

    /// Records that the data of these people is about to be shown: once for each caller, person and hour. Reading one's
    /// own data is not recorded.
    pub async fn read(
        &self,
        looking: &Looking<'_>,
        source: PersonalDataSource,
        people: impl IntoIterator<Item = UserId>,
    ) -> Result<(), Problem> {
        let at = self.clock.now();
        let app_id = &looking.metadata.app_id;
        let look = |user_id: UserId| AccessRecord {
            id: looking.id(at, &[&"read", &user_id]),
            event: AccessEvent::PersonalDataRead(PersonalDataRead {
                user_id,
                app_id: app_id.clone(),
                source,
                at,
            })
            .into(),
        };
        let mut looks: Vec<AccessRecord> =
            people.into_iter().filter(|person| !looking.is(*person)).map(look).collect();
        looks.sort_by_key(|look| look.id);
        looks.dedup_by_key(|look| look.id);
        self.write(looking, at, looks).await
    }

    /// Records that the history of an app or of all apps, or the part about one person, is about to be exported: once
    /// for each caller, person, form and hour. `opened` says that it contains personal data in the clear.
    pub async fn exported(
        &self,
        looking: &Looking<'_>,
        app_id: Option<&AppId>,
        form: ExportForm,
        person: Option<UserId>,
        opened: bool,
    ) -> Result<(), Problem> {
        let at = self.clock.now();
        let whose = person.map(|person| person.to_string()).unwrap_or_default();
        let of = app_id.map(ToString::to_string).unwrap_or_default();
        let id = looking.id(at, &[&"export", &of, &format!("{form:?}"), &whose, &opened]);
        let app_id = app_id.cloned();
        let event =
            AccessEvent::HistoryExported(HistoryExported { app_id, user_id: person, form, opened, at });
        self.write(looking, at, vec![AccessRecord { id, event: event.into() }]).await
    }

    async fn write(
        &self,
        looking: &Looking<'_>,
        at: Timestamp,
        mut looks: Vec<AccessRecord>,
    ) -> Result<(), Problem> {
        looks.retain(|look| self.written.get(&look.id).is_none());
        if looks.is_empty() {
            return Ok(());
        }
        let _turn = self.turn(&looking.metadata.actor).lock().await;
        looks.retain(|look| self.written.get(&look.id).is_none());
        for _ in 0..TRIES {
            // Skip those that exist already, from another node or from before a restart.
            let streams: Vec<StreamId> = looks.iter().map(|look| StreamId::access(look.id)).collect();
            if streams.is_empty() {
                return Ok(());
            }
            let versions = self.repository.journal().versions(&streams).await?;
            let mut versions = versions.into_iter();
            looks.retain(|look| {
                let is_there = versions.next().is_some_and(|version| version > 0);
                if is_there {
                    self.written.insert(look.id, ());
                }
                !is_there
            });
            if looks.is_empty() {
                return Ok(());
            }
            let append = self.append(looking, at, &looks).await?;
            match self.repository.journal().append(append).await {
                Ok(_) => {
                    for look in &looks {
                        self.written.insert(look.id, ());
                    }
                    return Ok(());
                }
                // The next check shows the outcome.
                Err(AppendError::Conflict { .. } | AppendError::Unknown(_)) => {}
                Err(AppendError::Unavailable(why)) => return Err(StoreError::Unavailable(why).into()),
                Err(error) => return Err(StoreError::Unavailable(error.to_string().into()).into()),
            }
        }
        Err(Problem::overloaded("a read of personal data could not be recorded"))
    }

    fn turn(&self, actor: &Actor) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        actor.hash(&mut hasher);
        &self.turns[usize::try_from(hasher.finish() % TURNS as u64).unwrap_or_default()]
    }

    async fn append(
        &self,
        looking: &Looking<'_>,
        at: Timestamp,
        looks: &[AccessRecord],
    ) -> Result<Append, StoreError> {
        let mut writes = Vec::with_capacity(looks.len());
        for look in looks {
            let event = self.encode(looking, &look.event).await?;
            writes.push(Write { stream: StreamId::access(look.id), expected: 0, events: vec![event] });
        }
        Ok(Append {
            writes,
            guards: vec![],
            taken: vec![],
            released: vec![],
            idempotency: None,
            metadata: looking.metadata.clone(),
            at,
        })
    }

    /// For a person who was erased meanwhile nothing can be sealed: the event is written without the origin of the request.
    /// So is one about a person whose key is missing, as it must not be replaced, or who never was.
    async fn encode(&self, looking: &Looking<'_>, event: &Event) -> Result<NewEvent, StoreError> {
        if let Some(person) = event.person()
            && !self.repository.sealer().keys().has_row(person).await?
        {
            return self.repository.encode(event, self.clock.new_id()).await;
        }
        let requested = Requested { client: looking.client, actor: &looking.metadata.actor };
        match self.repository.encode_for(event, self.clock.new_id(), &requested).await {
            Err(StoreError::Erased(_)) => self.repository.encode(event, self.clock.new_id()).await,
            encoded => encoded,
        }
    }
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
