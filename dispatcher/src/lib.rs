//! The only loop that loads aggregates, lets a decision run, appends its events, and retries.
//!
//! A decision is a closure over [`Work`]. It can look only at aggregates that were read for it, through the [`Handle`]s from
//! [`Reads`]. It may run several times, so everything it needs (ids, the time, hashes) is computed before and captured. Whatever
//! it read but did not write becomes a guard of the append: if a ban commits first, a login decided before it is decided again.

mod error;
mod work;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::claims::Claimed;
use domain::user::Client;
use domain::{Event, StreamId, Timestamp};
use event_store::{
    Append, AppendError, Appended, Claim, Clock, Idempotency, LookupKey, NewEvent, Repository, Requested,
    StoreError, Write,
};
use http_kit::problem;
use http_kit::trace::Span;
use schemas::envelope::{ActorKind, Metadata};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::unconstrained;
use tracing::Instrument;

pub use crate::error::DispatchError;
use crate::work::Entry;
pub use crate::work::{Handle, Handles, Member, Reads, Work};

/// How often a decision is retried after concurrent writes.
const MAX_ATTEMPTS: usize = 64;
/// How often an append with an unknown outcome is sent again.
const MAX_RESENDS: u32 = 6;
/// How long that may take: no caller waits longer for an answer.
const LONGEST_DOUBT: Duration = Duration::from_secs(5);
/// The most bytes that the canonical form of an event may have. The tree of the log takes 65 535
/// ([`tlog-tiles`](https://c2sp.org/tlog-tiles): an entry's length has two bytes).
pub const MAX_EVENT: usize = 60 * 1024;
/// The most bytes of an envelope apart from what is counted: names of members, ids, times, positions, the origin.
const ENVELOPE: usize = 2048;
/// The number of locks for contended streams.
const STRIPES: usize = 256;

/// Who makes the request, when, and under which idempotency key.
#[derive(Clone, Debug)]
pub struct Context {
    /// For whom, by whom and why.
    pub metadata: Metadata,
    /// The request's origin, sealed into every event about a person. Empty without a request.
    pub client: Client,
    /// The time of the events.
    pub at: Timestamp,
    /// The caller's idempotency key, under which the append happens once.
    pub idempotency: Option<Idempotency>,
    /// Whether [`Dispatcher::replayed`] has found nothing under that key: it is not asked for once more.
    pub is_first: bool,
}

/// Whether facts looked up before a decision still held when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Premise {
    /// They did: the decision stands.
    Held,
    /// They changed: look them up and decide again.
    Changed,
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Committed<T> {
    /// The return value of the decision; absent if the events already existed under the same idempotency key.
    pub value: Option<T>,
    /// The events, in order. Empty if there was nothing to do.
    pub events: Vec<Event>,
    /// The position up to which a reader must have read to see them.
    pub position: u64,
    /// Whether they already existed under the same idempotency key.
    pub replayed: bool,
}

/// Runs decisions.
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

struct Inner {
    repository: Arc<Repository>,
    lookup: LookupKey,
    clock: Arc<dyn Clock>,
    /// After a conflict, a run holds the lock of the contended stream, so that competing runs queue up instead of
    /// repeatedly deciding in vain.
    stripes: Vec<Arc<Mutex<()>>>,
    hasher: RandomState,
}

impl Dispatcher {
    /// Creates a dispatcher. A process has one, with one repository.
    pub fn new(repository: Arc<Repository>, clock: Arc<dyn Clock>) -> Self {
        let stripes = (0..STRIPES).map(|_| Arc::default()).collect();
        let lookup = LookupKey::new(repository.sealer().keys().instance_key());
        Self { inner: Arc::new(Inner { repository, lookup, clock, stripes, hasher: RandomState::new() }) }
    }

    /// What was done under the same idempotency key before, if anything was.
    pub async fn replayed<T, E>(
        &self,
        context: &mut Context,
    ) -> Result<Option<Committed<T>>, DispatchError<E>> {
        let replayed = self.inner.replay(context.idempotency.as_ref()).await?;
        context.is_first = replayed.is_none();
        Ok(replayed)
    }

    /// Loads `reads`, decides, and appends. It runs as a task of its own: a caller that goes away neither stops it
    /// halfway nor leaves the cache behind the journal.
    pub async fn run<T, E, D>(
        &self,
        context: Context,
        reads: Reads,
        decide: D,
    ) -> Result<Committed<T>, DispatchError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        D: FnMut(&mut Work) -> Result<T, E> + Send + 'static,
    {
        let inner = self.inner.clone();
        let run = async move { inner.run(context, reads, decide).await };
        // In the span of the request, so that what is logged in here carries its id.
        let run = Span::part("dispatch").around(run).in_current_span();
        problem::is_writing(true);
        let done = tokio::spawn(run).await;
        problem::is_writing(false);
        match done {
            Ok(result) => {
                if result.as_ref().is_ok_and(|committed| !committed.events.is_empty()) {
                    problem::has_written();
                }
                result
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::Unavailable("the service is stopping".into()).into()),
            },
        }
    }
}

/// Whether the canonical form of an event could be longer than the log takes.
fn is_too_long(event: &NewEvent) -> bool {
    // In base64.
    let personal = event.personal.as_ref().map_or(0, |sealed| sealed.len().div_ceil(3) * 4);
    event.data.len() + personal + ENVELOPE > MAX_EVENT
}

enum Outcome<E> {
    Done(Appended),
    Conflict { stream: StreamId, actual: u64 },
    Failed(DispatchError<E>),
}

impl Inner {
    async fn run<T, E, D>(
        &self,
        context: Context,
        mut reads: Reads,
        mut decide: D,
    ) -> Result<Committed<T>, DispatchError<E>>
    where
        D: FnMut(&mut Work) -> Result<T, E> + Send,
    {
        // The append asks once more. Where there is none, we do, below.
        if !context.is_first
            && let Some(replay) = self.replay(context.idempotency.as_ref()).await?
        {
            return Ok(replay);
        }
        let mut turn: Option<OwnedMutexGuard<()>> = None;
        let mut met_erased = false;
        for _ in 0..MAX_ATTEMPTS {
            let mut work = reads.load(&self.repository).await?;
            // An aggregate collects its events behind a lock of tokio's, which after some 128 of them would make a task wait
            // for its next turn. A decision waits for nothing, however many sessions it ends.
            let decided = unconstrained(async { decide(&mut work) }).await;
            // An append finds out by itself whether the decision still holds; where there is none, we ask.
            let is_final = decided.is_err() || work.events().next().is_none();
            if is_final && self.has_moved(&work, &mut reads).await? {
                continue;
            }
            let value = match decided {
                Ok(value) => value,
                Err(refusal) => return self.replayed_or(&context, DispatchError::Refused(refusal)).await,
            };
            if is_final {
                if context.is_first
                    && let Some(replay) = self.replay(context.idempotency.as_ref()).await?
                {
                    return Ok(replay);
                }
                let position = self.repository.journal().head().await?;
                if context.metadata.actor.kind != ActorKind::System {
                    self.confirm(position).await?;
                }
                return Ok(Committed { value: Some(value), events: vec![], position, replayed: false });
            }
            let append = match self.to_append(&context, &work).await {
                // Somebody was erased since this was read: it is decided again, on what the log says by now.
                Err(StoreError::Erased(_)) if !std::mem::replace(&mut met_erased, true) => {
                    self.has_moved(&work, &mut reads).await?;
                    continue;
                }
                append => append?,
            };
            if let Some(event) =
                append.writes.iter().flat_map(|write| &write.events).find(|it| is_too_long(it))
            {
                return Err(DispatchError::TooLong(event.name.to_string()));
            }
            match self.append(append).await {
                Outcome::Done(appended) if appended.replayed => {
                    // Two requests with one key ran at the same time, and the other one was first.
                    return self.read_back(appended.first, appended.last).await;
                }
                Outcome::Done(appended) => {
                    self.repository.saw(context.at);
                    fail::fail_point!("after-append", |_| std::process::abort());
                    let events = self.keep(work);
                    let position = appended.last;
                    return Ok(Committed { value: Some(value), events, position, replayed: false });
                }
                Outcome::Conflict { stream, actual } => {
                    metrics::counter!("watchword_dispatch_conflicts_total").increment(1);
                    reads.lost(&stream);
                    // Release the old lock first: no run waits for one lock while holding another.
                    drop(turn.take());
                    turn = Some(self.stripe(&stream).lock_owned().await);
                    self.repository.evict_before(&stream, actual);
                }
                Outcome::Failed(error @ DispatchError::ClaimTaken { .. }) => {
                    return self.replayed_or(&context, error).await;
                }
                Outcome::Failed(error) => return Err(error),
            }
        }
        metrics::counter!("watchword_dispatch_contended_total").increment(1);
        Err(DispatchError::Contended)
    }

    /// Whether another node has written to what was decided on. A stream assumed new that exists is loaded next time.
    async fn has_moved(&self, work: &Work, reads: &mut Reads) -> Result<bool, StoreError> {
        let seen = work.entries.iter().filter(|entry| entry.counts());
        let seen: Vec<_> = seen.map(|entry| (entry.stream.clone(), entry.draft.version())).collect();
        let moved = self.repository.moved(&seen).await?;
        for stream in &moved {
            reads.lost(stream);
        }
        Ok(!moved.is_empty())
    }

    /// A refusal, unless its cause is a concurrent request with the same idempotency key.
    async fn replayed_or<T, E>(
        &self,
        context: &Context,
        refusal: DispatchError<E>,
    ) -> Result<Committed<T>, DispatchError<E>> {
        self.replay(context.idempotency.as_ref()).await?.ok_or(refusal)
    }

    fn stripe(&self, stream: &StreamId) -> Arc<Mutex<()>> {
        let hash = usize::try_from(self.hasher.hash_one(stream) % STRIPES as u64).expect("less than STRIPES");
        self.stripes[hash].clone()
    }

    async fn to_append(&self, context: &Context, work: &Work) -> Result<Append, StoreError> {
        let mut writes = Vec::new();
        let mut guards = Vec::new();
        let mut metadata = context.metadata.clone();
        if let Some(actor) = &work.actor {
            metadata.actor = actor.clone();
        }
        let requested = Requested { client: &context.client, actor: &metadata.actor };
        for entry in work.entries.iter().filter(|entry| entry.counts()) {
            let (version, decided) = (entry.draft.version(), entry.draft.events());
            if decided.is_empty() {
                guards.push((entry.stream.clone(), version));
                continue;
            }
            let mut events: Vec<NewEvent> = Vec::with_capacity(decided.len());
            for event in decided {
                events.push(self.repository.encode_for(event, self.clock.new_id(), &requested).await?);
            }
            writes.push(Write { stream: entry.stream.clone(), expected: version, events });
        }
        let app_id = &metadata.app_id;
        let asked = |event, _| {
            work.asked_at.filter(|(asked, _)| *asked == event).map(|(_, position)| (app_id.clone(), position))
        };
        let name = |claimed: &Claimed| -> Claim {
            self.lookup.claim(claimed, asked).expect("a new event's claims have names")
        };
        let (taken, released) = work.claims();
        let taken = taken.into_iter().map(|(claimed, owner)| (name(claimed), owner.clone())).collect();
        let released = released.into_iter().map(name).collect();
        Ok(Append {
            writes,
            guards,
            taken,
            released,
            idempotency: context.idempotency,
            metadata,
            at: context.at,
        })
    }

    /// Appends. An unknown outcome is resolved before anything else is decided: the same events are sent again, and on
    /// a conflict the journal is asked whether they are our own.
    async fn append<E>(&self, append: Append) -> Outcome<E> {
        let journal = self.repository.journal();
        let (mut unknown, started) = (None, Instant::now());
        fail::fail_point!("before-append", |_| std::process::abort());
        for resend in 0..=MAX_RESENDS {
            let span = Span::part("append");
            let begun = Instant::now();
            let appended = span.around(journal.append(append.clone())).await;
            metrics::histogram!("watchword_append_seconds").record(begun.elapsed());
            tell(&span, &append, &appended);
            drop(span);
            let error = match appended {
                Ok(appended) => return Outcome::Done(appended),
                Err(AppendError::Unknown(reason)) => {
                    tracing::warn!(%reason, resend, "the outcome of an append is unknown: sending it again");
                    unknown = Some(reason);
                    if started.elapsed() >= LONGEST_DOUBT {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10 << resend)).await;
                    continue;
                }
                Err(error) => error,
            };
            if unknown.is_some() {
                match self.find(&append).await {
                    Ok(Some(appended)) if self.confirm::<E>(appended.last).await.is_ok() => {
                        return Outcome::Done(appended);
                    }
                    Ok(None) => {}
                    // Still unknown.
                    Ok(Some(_)) | Err(_) => break,
                }
            }
            return match error {
                AppendError::Conflict { stream, actual } => Outcome::Conflict { stream, actual },
                error => Outcome::Failed(error.into()),
            };
        }
        // The events may have been written, so the cache may be stale.
        for write in &append.writes {
            self.repository.evict(&write.stream);
        }
        let reason = unknown.unwrap_or_default();
        Outcome::Failed(DispatchError::Unknown(reason))
    }

    /// Whether exactly these events are in the journal. An append is atomic, so its first event is enough.
    async fn find(&self, append: &Append) -> Result<Option<Appended>, StoreError> {
        let Some(write) = append.writes.first() else { return Ok(None) };
        let recorded = self.repository.journal().read_stream(&write.stream, write.expected).await?;
        let ours = |event: &&schemas::envelope::RecordedEvent| event.id == write.events[0].id;
        Ok(recorded.iter().find(ours).map(|event| {
            let last = event.position + append.len() as u64 - 1;
            Appended { first: event.position, last, replayed: false }
        }))
    }

    /// Puts the written states into the cache before the caller gets an answer.
    fn keep(&self, work: Work) -> Vec<Event> {
        let mut events = Vec::new();
        for Entry { stream, draft, .. } in work.entries {
            if !draft.events().is_empty() {
                events.extend(draft.keep(&self.repository, &stream));
            }
        }
        events
    }

    async fn replay<T, E>(
        &self,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<Committed<T>>, DispatchError<E>> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        match self.repository.journal().idempotent(&idempotency.key).await? {
            None => Ok(None),
            Some(stored) if stored.fingerprint != idempotency.fingerprint => {
                Err(DispatchError::IdempotencyKeyReused)
            }
            Some(stored) => {
                self.confirm(stored.last).await?;
                self.read_back(stored.first, stored.last).await.map(Some)
            }
        }
    }

    /// Before a caller is told that something is done because it was done before, perhaps by another node that does not know
    /// whether it will last.
    async fn confirm<E>(&self, position: u64) -> Result<(), DispatchError<E>> {
        Ok(self.repository.journal().confirm(position).await?)
    }

    async fn read_back<T, E>(&self, first: u64, last: u64) -> Result<Committed<T>, DispatchError<E>> {
        metrics::counter!("watchword_idempotent_replays_total").increment(1);
        let positions = (first..=last).collect::<Vec<_>>();
        let recorded = self.repository.journal().read_positions(&positions).await?;
        let mut events = Vec::with_capacity(recorded.len());
        for event in &recorded {
            // The writer may not have cached it: another node, or an append of ours whose answer was lost.
            self.repository.evict_before(&event.stream, event.version);
            events.push(self.repository.decode(event).await?);
        }
        Ok(Committed { value: None, events, position: last, replayed: true })
    }
}

/// Reports the outcome of an append to traces and metrics.
fn tell(span: &Span, append: &Append, appended: &Result<Appended, AppendError>) {
    let outcome = match appended {
        Ok(Appended { replayed: false, .. }) => "done",
        Ok(Appended { replayed: true, .. }) => "replayed",
        Err(AppendError::Conflict { .. }) => "conflict",
        Err(AppendError::ClaimTaken { .. }) => "claim_taken",
        Err(AppendError::IdempotencyKeyReused) => "idempotency_key_reused",
        Err(AppendError::Empty) => "empty",
        Err(AppendError::Damaged(_)) => "damaged",
        Err(AppendError::Unknown(_)) => "unknown",
        Err(AppendError::Unavailable(_)) => "unavailable",
    };
    metrics::counter!("watchword_appends_total", "outcome" => outcome).increment(1);
    span.set("watchword.append.outcome", outcome);
    span.set("watchword.append.events", i64::try_from(append.len()).unwrap_or(i64::MAX));
    match appended {
        Ok(appended) => span.set("watchword.append.position", appended.last.cast_signed()),
        Err(AppendError::Unknown(_) | AppendError::Unavailable(_)) => span.fail(outcome),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests;
