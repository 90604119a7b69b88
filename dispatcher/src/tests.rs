//! The dispatcher when appends fail, conflict, or lose their answers.

use std::collections::VecDeque;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use domain::lockout::{Lockout, LockoutCommand, LockoutPolicy};
use domain::session::Session;
use domain::user::Client;
use domain::{AppId, SessionId, UserId};
use event_store::contract::Nodes;
use event_store::{
    Cursor, Journal, KeyStore, MasterKey, Sealer, Snapshot, SqliteJournal, StoredIdempotency, SystemClock,
    Why,
};
use http_kit::Problem;
use schemas::envelope::{Actor, RecordedEvent};
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;

/// What is lost.
#[derive(Clone, Copy)]
enum Fault {
    /// The append is carried out, but its answer is lost.
    Answer,
    /// The append itself is lost, without notice.
    Request,
    /// The answer is lost, and the next stream cannot be read.
    AnswerAndSight,
}

struct Faulty {
    inner: SqliteJournal,
    faults: StdMutex<VecDeque<Fault>>,
    blind: AtomicBool,
}

#[async_trait]
impl Journal for Faulty {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let fault = self.faults.lock().expect("not poisoned").pop_front();
        match fault {
            None => self.inner.append(append).await,
            Some(Fault::Request) => Err(AppendError::Unknown("lost".to_owned())),
            Some(fault) => {
                self.inner.append(append).await?;
                self.blind.store(matches!(fault, Fault::AnswerAndSight), Ordering::SeqCst);
                Err(AppendError::Unknown("lost".to_owned()))
            }
        }
    }

    async fn read_stream(&self, stream: &StreamId, after: u64) -> Result<Vec<RecordedEvent>, StoreError> {
        if self.blind.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Unavailable("blind".into()));
        }
        self.inner.read_stream(stream, after).await
    }

    async fn read_all(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        self.inner.read_all(after, limit).await
    }

    async fn read_positions(&self, positions: &[u64]) -> Result<Vec<RecordedEvent>, StoreError> {
        self.inner.read_positions(positions).await
    }

    async fn positions_of(&self, name: &str, after: u64, until: u64) -> Result<Vec<u64>, StoreError> {
        self.inner.positions_of(name, after, until).await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.inner.head().await
    }

    fn watch_head(&self) -> watch::Receiver<u64> {
        self.inner.watch_head()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn versions(&self, streams: &[StreamId]) -> Result<Vec<u64>, StoreError> {
        self.inner.versions(streams).await
    }

    async fn claim_owner(&self, claim: &Claim) -> Result<Option<StreamId>, StoreError> {
        self.inner.claim_owner(claim).await
    }

    async fn claims(&self, kind: &str, prefix: &str) -> Result<Vec<(Claim, StreamId)>, StoreError> {
        self.inner.claims(kind, prefix).await
    }

    async fn idempotent(&self, key: &[u8; 32]) -> Result<Option<StoredIdempotency>, StoreError> {
        self.inner.idempotent(key).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        self.inner.load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<(), StoreError> {
        self.inner.save_snapshot(stream, snapshot).await
    }

    async fn snapshots(&self) -> Result<Vec<StreamId>, StoreError> {
        self.inner.snapshots().await
    }

    async fn cursor_position(&self, effect: &str) -> Result<Option<u64>, StoreError> {
        self.inner.cursor_position(effect).await
    }

    async fn hold_cursor(
        &self,
        effect: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<Option<Cursor>, StoreError> {
        self.inner.hold_cursor(effect, holder, lasts).await
    }

    async fn move_cursor(&self, effect: &str, cursor: Cursor) -> Result<bool, StoreError> {
        self.inner.move_cursor(effect, cursor).await
    }

    async fn release_cursor(&self, effect: &str, cursor: Cursor) -> Result<(), StoreError> {
        self.inner.release_cursor(effect, cursor).await
    }

    async fn can_append(&self) -> Result<(), StoreError> {
        self.inner.can_append().await
    }

    fn last_append(&self) -> Result<(), Why> {
        self.inner.last_append()
    }

    async fn newest_streams(&self, aggregate: &str, limit: u32) -> Result<Vec<StreamId>, StoreError> {
        self.inner.newest_streams(aggregate, limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct World {
    _dir: TempDir,
    journal: Arc<Faulty>,
    sealer: Arc<Sealer>,
    dispatcher: Dispatcher,
}

const USER: UserId = UserId(Uuid::from_u128(7));

impl World {
    async fn start(faults: &[Fault]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = KeyStore::open(&dir.path().join("keys.db"), &MasterKey::generate()).await.expect("opens");
        let inner = SqliteJournal::open(&dir.path().join("journal.db"), &keys.macs()).await.expect("opens");
        let sealer = Arc::new(Sealer::new(Arc::new(keys)));
        let faults = StdMutex::new(faults.iter().copied().collect());
        let journal = Arc::new(Faulty { inner, faults, blind: AtomicBool::new(false) });
        let repository = Arc::new(Repository::new(journal.clone(), sealer.clone(), 100));
        let dispatcher = Dispatcher::new(repository, Arc::new(SystemClock));
        Self { _dir: dir, journal, sealer, dispatcher }
    }

    /// A dispatcher with its own cache, as another node has.
    fn other_node(&self) -> Dispatcher {
        let repository = Arc::new(Repository::new(self.journal.clone(), self.sealer.clone(), 100));
        Dispatcher::new(repository, Arc::new(SystemClock))
    }

    /// The same on a journal that reports other writers.
    fn node_of_many(&self) -> (Dispatcher, Arc<Nodes>) {
        let journal = Arc::new(Nodes::new(vec![self.journal.clone()]));
        let repository = Arc::new(Repository::new(journal.clone(), self.sealer.clone(), 100));
        (Dispatcher::new(repository, Arc::new(SystemClock)), journal)
    }

    async fn versions(&self) -> Vec<u64> {
        let stream = StreamId::lockout(USER);
        let events = self.journal.read_stream(&stream, 0).await.expect("reads");
        events.iter().map(|event| event.version).collect()
    }
}

fn context(key: Option<u8>) -> Context {
    let metadata = Metadata {
        app_id: AppId::default_app(),
        actor: Actor::system(),
        correlation_id: Uuid::from_u128(1),
        causation_id: None,
        request_id: None,
        traceparent: None,
    };
    let idempotency = key.map(|key| Idempotency { key: [key; 32], fingerprint: [key; 32] });
    let at = Timestamp::from_second(1_800_000_000).expect("in range");
    Context { metadata, client: Client::default(), at, idempotency, is_first: false }
}

async fn fail(dispatcher: &Dispatcher, context: Context) -> Result<Committed<()>, DispatchError<Problem>> {
    let at = context.at;
    let policy = LockoutPolicy { failures: 1_000, ..LockoutPolicy::default() };
    let (reads, lockout) = Reads::one::<Lockout>(&USER);
    let decide = move |work: &mut Work| {
        let command = LockoutCommand::RecordFailure { user_id: USER, device: None, policy, at };
        work.execute(lockout, command).map_err(Problem::internal)
    };
    dispatcher.run(context, reads, decide).await
}

#[tokio::test]
async fn inv_b_an_unknown_outcome_ends_in_one_set_of_events() {
    use Fault::{Answer, Request};
    for key in [None, Some(1)] {
        for faults in [&[Answer][..], &[Request], &[Request, Answer, Request, Request]] {
            let world = World::start(faults).await;
            let done = fail(&world.dispatcher, context(key)).await.expect("resolved");
            assert_eq!((done.events.len(), done.position), (1, 1));
            assert_eq!(world.versions().await, [1]);
            fail(&world.dispatcher, context(None)).await.expect("goes on");
            assert_eq!(world.versions().await, [1, 2]);
        }
    }
}

#[tokio::test]
async fn what_stays_unknown_is_said_and_can_be_asked_again() {
    let faults = [vec![Fault::Answer], vec![Fault::Request; MAX_RESENDS as usize]].concat();
    let world = World::start(&faults).await;
    let error = fail(&world.dispatcher, context(Some(1))).await.expect_err("unknown");
    assert!(matches!(error, DispatchError::Unknown(_)), "{error}");
    let done = fail(&world.dispatcher, context(Some(1))).await.expect("found");
    assert!(done.replayed && done.value.is_none());
    assert_eq!((done.events.len(), world.versions().await), (1, vec![1]));
    let mut other = context(Some(1));
    other.idempotency = Some(Idempotency { key: [1; 32], fingerprint: [2; 32] });
    let error = fail(&world.dispatcher, other).await.expect_err("another request");
    assert!(matches!(error, DispatchError::IdempotencyKeyReused), "{error}");
}

#[tokio::test]
async fn a_decision_may_be_long() {
    let world = World::start(&[]).await;
    let (context, policy) = (context(None), LockoutPolicy { failures: 1_000, ..LockoutPolicy::default() });
    let at = context.at;
    let (reads, lockout) = Reads::one::<Lockout>(&USER);
    let long = world.dispatcher.run(context, reads, move |work| {
        for _ in 0..500 {
            let command = LockoutCommand::RecordFailure { user_id: USER, device: None, policy, at };
            work.execute(lockout, command).map_err(Problem::internal)?;
        }
        Ok::<_, Problem>(())
    });
    assert_eq!(long.await.expect("is decided").events.len(), 500);
}

/// Otherwise a ban whose answer was lost would be visible only in the log.
#[tokio::test]
async fn inv_d_what_was_written_is_seen_however_its_answer_was_lost() {
    for (key, fault) in [
        (None, Fault::Answer),
        (Some(1), Fault::Answer),
        (None, Fault::AnswerAndSight),
        (Some(1), Fault::AnswerAndSight),
    ] {
        let world = World::start(&[]).await;
        fail(&world.dispatcher, context(None)).await.expect("written, and now in the cache");
        world.journal.faults.lock().expect("not poisoned").push_back(fault);
        let outcome = fail(&world.dispatcher, context(key)).await;
        let told = outcome.as_ref().err().is_none_or(|error| matches!(error, DispatchError::Unknown(_)));
        assert!(told, "{outcome:?}: it may exist, so the answer must not deny it");
        world.journal.blind.store(false, Ordering::SeqCst);
        let seen = world.dispatcher.inner.repository.load::<Lockout>(&USER).await.expect("loads").version;
        assert_eq!(seen, 2, "{key:?}");
    }
}

/// A run that is slow to cache its result must not overwrite a newer state.
#[tokio::test]
async fn a_conflict_forgets_nothing_newer_than_itself() {
    let world = World::start(&[]).await;
    let repository = &world.dispatcher.inner.repository;
    fail(&world.dispatcher, context(None)).await.expect("written");
    let first = repository.load::<Lockout>(&USER).await.expect("loads");
    fail(&world.dispatcher, context(None)).await.expect("written");
    let stream = StreamId::lockout(USER);
    repository.evict_before(&stream, 1);
    repository.put(&stream, first);
    assert_eq!(repository.load::<Lockout>(&USER).await.expect("loads").version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_a_racing_nodes_lose_nothing() {
    let world = World::start(&[]).await;
    let nodes = [world.dispatcher.clone(), world.other_node(), world.other_node()];
    let runs = (0..150).map(|n| {
        let node = nodes[n % 3].clone();
        tokio::spawn(async move { fail(&node, context(None)).await.map(|done| done.position) })
    });
    let mut positions = std::collections::BTreeSet::new();
    for run in runs.collect::<Vec<_>>() {
        positions.insert(run.await.expect("no panic").expect("written"));
    }
    assert_eq!(positions, (1..=150).collect());
    assert_eq!(world.versions().await, (1..=150).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_read_and_not_written_is_guarded() {
    let world = World::start(&[]).await;
    let (first, second) = (world.dispatcher.clone(), world.other_node());
    fail(&first, context(None)).await.expect("written");
    let session = SessionId(Uuid::from_u128(9));
    let mut seen = Vec::new();
    let (sender, mut tries) = tokio::sync::mpsc::unbounded_channel();
    // The first node has version 1 cached while the second writes version 2.
    fail(&second, context(None)).await.expect("written");
    let at = context(None).at;
    let (mut reads, lockout) = Reads::one::<Lockout>(&USER);
    let new = reads.new_one::<Session>(&session);
    let decide = move |work: &mut Work| {
        sender.send(work.version(lockout)).expect("somebody listens");
        let start = domain::session::SessionCommand::Start {
            session_id: session,
            user_id: USER,
            app_id: AppId::default_app(),
            method: domain::session::LoginMethod::Password,
            epoch: 0,
            ttl: 60,
            idle_ttl: 60,
            client: domain::user::Client::default(),
            at,
            latest: at,
        };
        work.execute(new, start).map_err(Problem::internal)
    };
    first.run(context(None), reads, decide).await.expect("decided again");
    while let Some(version) = tries.recv().await {
        seen.push(version);
    }
    assert_eq!(seen, [1, 2]);
}

#[tokio::test]
async fn a_caller_who_leaves_leaves_no_stale_cache() {
    let world = World::start(&[]).await;
    for _ in 0..20 {
        let run = fail(&world.dispatcher, context(None));
        let _ = tokio::time::timeout(Duration::from_micros(200), run).await;
    }
    let done = fail(&world.dispatcher, context(None)).await.expect("written");
    assert_eq!(done.position, world.journal.head().await.expect("reads"));
    let cached = world.dispatcher.inner.repository.load::<Lockout>(&USER).await.expect("loads");
    assert_eq!(cached.version, world.versions().await.len() as u64);
}

/// A refusal, or that there is nothing to do, is returned only if it holds for what other nodes have written by then.
#[tokio::test]
async fn inv_d_what_is_not_written_is_decided_on_what_all_nodes_wrote() {
    let world = World::start(&[]).await;
    let (node, journal) = world.node_of_many();
    fail(&node, context(None)).await.expect("written");
    for refuses in [true, false] {
        fail(&world.dispatcher, context(None)).await.expect("another node writes");
        let newest = world.versions().await.len() as u64;
        let (sender, mut tries) = tokio::sync::mpsc::unbounded_channel();
        let (reads, lockout) = Reads::one::<Lockout>(&USER);
        let decide = move |work: &mut Work| {
            let version = work.version(lockout);
            sender.send(version).expect("somebody listens");
            if version == newest && !refuses { Ok(()) } else { Err(Problem::forbidden()) }
        };
        journal.versions_asked();
        let done = node.run(context(None), reads, decide).await;
        assert_eq!(done.is_err(), refuses);
        let mut seen = Vec::new();
        while let Some(version) = tries.recv().await {
            seen.push(version);
        }
        assert_eq!(seen, [newest - 1, newest]);
        assert_eq!(journal.versions_asked(), 2);
        if let Ok(done) = done {
            assert_eq!(done.position, newest);
        }
    }
}

async fn fail_at(dispatcher: &Dispatcher, user_id: UserId) {
    let at = context(None).at;
    let policy = LockoutPolicy { failures: 1_000, ..LockoutPolicy::default() };
    let (reads, lockout) = Reads::one::<Lockout>(&user_id);
    let decide = move |work: &mut Work| {
        let command = LockoutCommand::RecordFailure { user_id, device: None, policy, at };
        work.execute(lockout, command).map_err(Problem::internal)
    };
    dispatcher.run(context(None), reads, decide).await.expect("written");
}

/// Where the journal is on a server, what is not at hand is read together.
#[tokio::test]
async fn several_aggregates_are_loaded_in_two_round_trips() {
    let world = World::start(&[]).await;
    let others: Vec<UserId> = (1..=3).map(|n| UserId(Uuid::from_u128(n))).collect();
    for user_id in &others {
        fail_at(&world.dispatcher, *user_id).await;
    }
    let (node, journal) = world.node_of_many();
    let look = async || {
        let mut reads = Reads::new();
        let all = reads.all::<Lockout>(&others);
        let decide = move |work: &mut Work| {
            Ok::<_, Problem>(all.iter().map(|it| work.version(*it)).collect::<Vec<_>>())
        };
        node.run(context(None), reads, decide).await.expect("looks").value
    };
    journal.loads();
    assert_eq!(look().await, Some(vec![1, 1, 1]));
    assert_eq!(journal.loads(), 2, "snapshots, and events");
    look().await;
    assert_eq!(journal.loads(), 0, "all of it is at hand");

    // What another node has written since is read together, too, from where it was.
    fail_at(&world.dispatcher, others[0]).await;
    fail_at(&world.dispatcher, others[1]).await;
    journal.events_read();
    assert_eq!(look().await, Some(vec![2, 2, 1]));
    assert_eq!((journal.loads(), journal.events_read()), (1, 2));
}

/// The append itself tells that another request with the same key was first.
#[tokio::test]
async fn a_key_that_was_looked_up_is_not_looked_up_again() {
    let world = World::start(&[]).await;
    let mut first = context(Some(1));
    let found = world.dispatcher.replayed::<(), Problem>(&mut first).await.expect("looks");
    assert!(found.is_none() && first.is_first);
    fail(&world.dispatcher, context(Some(1))).await.expect("written");
    let late = fail(&world.dispatcher, first.clone()).await.expect("found");
    assert!(late.replayed);
    let (reads, _) = Reads::one::<Lockout>(&USER);
    let nothing = world.dispatcher.run(first, reads, |_| Ok::<_, Problem>(())).await.expect("found");
    assert!(nothing.replayed, "and so does a decision that has nothing to do");
    assert_eq!(world.versions().await, [1]);
}

#[tokio::test]
#[should_panic(expected = "take it from the reads that are passed to `run`")]
async fn a_handle_of_other_reads_panics() {
    let world = World::start(&[]).await;
    let (_, other) = Reads::one::<Lockout>(&USER);
    let (reads, _) = Reads::one::<Lockout>(&USER);
    let decide = move |work: &mut Work| Ok::<_, Problem>(work.version(other));
    let _ = world.dispatcher.run(context(None), reads, decide).await;
}
