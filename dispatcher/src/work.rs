//! What a decision reads and works on.
//!
//! Reading returns a [`Handle`], without which a decision cannot look at the aggregate: so the append guards everything it
//! looked at, and a forgotten read does not compile (see [`Reads`]).
//!
//! Whether a handle came from the same [`Reads`] is checked at run time. A compile-time check would need a brand of its own for
//! each request. A lifetime cannot be one, as a decision runs in its own task and is `'static`; a type parameter would go
//! through every function and type that passes reads or handles on. The mistake shows in the first run of the flow, whatever
//! the data: the decision panics before anything is appended, and the request gets 500.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::claims::{ClaimChange, Claimed};
use domain::{Draft, Event, EventId, Loaded, Recorded, StreamId};
use event_store::{Repository, StoreError, Tail};
use futures::future::BoxFuture;
use schemas::envelope::Actor;

/// An aggregate that can be read for a decision.
pub trait Member: Recorded + Send + Sync {}

impl<A: Recorded + Send + Sync> Member for A {}

/// Gives a decision access to an aggregate that was read for it.
pub struct Handle<A> {
    reads: u64,
    index: usize,
    aggregate: PhantomData<fn() -> A>,
}

impl<A> Clone for Handle<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Handle<A> {}

impl<A> fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.reads, self.index)
    }
}

/// Loads an aggregate whose type it knows.
type Load = for<'a> fn(
    &'a Repository,
    &'a StreamId,
    Option<Tail>,
) -> BoxFuture<'a, Result<Box<dyn Held>, StoreError>>;

pub(crate) struct Read {
    pub stream: StreamId,
    /// Whether it is about to be created: then it is not loaded, and guarded only if it is written.
    pub is_new: bool,
    load: Load,
    make: fn() -> Box<dyn Held>,
}

/// The aggregates that a decision reads or creates. Events are appended in their order.
///
/// ```
/// use dispatcher::{Context, Dispatcher, Reads, Work};
/// use domain::app::App;
/// use domain::decisions::StartSession;
/// use domain::session::Session;
/// use domain::user::User;
/// use domain::{AppId, UserId};
///
/// async fn begin(dispatcher: &Dispatcher, context: Context, app: AppId, user: UserId, start: StartSession) {
///     let mut reads = Reads::new();
///     let app = reads.of::<App>(&app);
///     let user = reads.of::<User>(&user);
///     let session = reads.new_one::<Session>(&start.session_id);
///     let decide = move |work: &mut Work| {
///         let (app, user, session) = work.drafts((app, user, session));
///         start.decide(app, user, session)
///     };
///     let _ = dispatcher.run(context, reads, decide).await;
/// }
/// ```
///
/// Without the read of the user it does not compile: nothing else leads to the user that the decision needs.
///
/// ```compile_fail
/// use dispatcher::{Context, Dispatcher, Reads, Work};
/// use domain::app::App;
/// use domain::decisions::StartSession;
/// use domain::session::Session;
/// use domain::user::User;
/// use domain::{AppId, UserId};
///
/// async fn begin(dispatcher: &Dispatcher, context: Context, app: AppId, user: UserId, start: StartSession) {
///     let mut reads = Reads::new();
///     let app = reads.of::<App>(&app);
///     let session = reads.new_one::<Session>(&start.session_id);
///     let decide = move |work: &mut Work| {
///         let (app, user, session) = work.drafts((app, user, session));
///         start.decide(app, user, session)
///     };
///     let _ = dispatcher.run(context, reads, decide).await;
/// }
/// ```
///
/// Nor can the decision do without the user.
///
/// ```compile_fail
/// use dispatcher::{Context, Dispatcher, Reads, Work};
/// use domain::app::App;
/// use domain::decisions::StartSession;
/// use domain::session::Session;
/// use domain::user::User;
/// use domain::{AppId, UserId};
///
/// async fn begin(dispatcher: &Dispatcher, context: Context, app: AppId, user: UserId, start: StartSession) {
///     let mut reads = Reads::new();
///     let app = reads.of::<App>(&app);
///     let session = reads.new_one::<Session>(&start.session_id);
///     let decide = move |work: &mut Work| {
///         let (app, session) = work.drafts((app, session));
///         start.decide(app, session)
///     };
///     let _ = dispatcher.run(context, reads, decide).await;
/// }
/// ```
pub struct Reads {
    /// Distinguishes its handles from those of others.
    id: u64,
    reads: Vec<Read>,
}

impl Default for Reads {
    fn default() -> Self {
        Self::new()
    }
}

impl Reads {
    /// None yet.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), reads: Vec::new() }
    }

    /// A single aggregate, for a decision that reads no other.
    pub fn one<A: Member>(id: &A::Id) -> (Self, Handle<A>) {
        let mut reads = Self::new();
        let handle = reads.of(id);
        (reads, handle)
    }

    /// Reads the aggregate with this id. Repeated reads return the same one.
    pub fn of<A: Member>(&mut self, id: &A::Id) -> Handle<A> {
        self.add(id, false)
    }

    /// Several aggregates.
    pub fn all<'a, A: Member<Id: 'a>>(&mut self, ids: impl IntoIterator<Item = &'a A::Id>) -> Vec<Handle<A>> {
        ids.into_iter().map(|id| self.of(id)).collect()
    }

    /// Reads one that is about to be created. If it turns out to exist, the append conflicts, and it is loaded before the
    /// decision is retried.
    pub fn new_one<A: Member>(&mut self, id: &A::Id) -> Handle<A> {
        self.add(id, true)
    }

    fn add<A: Member>(&mut self, id: &A::Id, is_new: bool) -> Handle<A> {
        let stream = A::stream(id);
        let index = self.reads.iter().position(|read| read.stream == stream).unwrap_or_else(|| {
            self.reads.push(Read {
                stream,
                is_new,
                load: |repository, stream, tail| {
                    let loading = repository.load_fetched::<A>(stream, tail);
                    Box::pin(async move { Ok(Box::new(Draft::of(loading.await?)) as Box<dyn Held>) })
                },
                make: || Box::new(Draft::<A>::new()),
            });
            self.reads.len() - 1
        });
        self.reads[index].is_new &= is_new;
        Handle { reads: self.id, index, aggregate: PhantomData }
    }

    /// Records that another writer wrote the stream: it is loaded from now on.
    pub(crate) fn lost(&mut self, stream: &StreamId) {
        if let Some(read) = self.reads.iter_mut().find(|read| read.stream == *stream) {
            read.is_new = false;
        }
    }

    pub(crate) async fn load(&self, repository: &Repository) -> Result<Work, StoreError> {
        let mut entries = Vec::with_capacity(self.reads.len());
        let loaded = self.reads.iter().filter(|read| !read.is_new);
        let streams: Vec<StreamId> = loaded.map(|read| read.stream.clone()).collect();
        let mut fetched = repository.fetch(&streams).await?;
        for read in &self.reads {
            let draft = if read.is_new {
                (read.make)()
            } else {
                (read.load)(repository, &read.stream, fetched.take(&read.stream)).await?
            };
            entries.push(Entry { stream: read.stream.clone(), is_new: read.is_new, draft });
        }
        Ok(Work { reads: self.id, entries, asked_at: None, actor: None })
    }
}

/// A draft of an aggregate of any type.
pub(crate) trait Held: Any + Send + Sync {
    fn version(&self) -> u64;

    fn events(&self) -> &[Event];

    fn claims(&self) -> &[ClaimChange];

    /// Moves the aggregate with its events into the cache, and returns the events.
    fn keep(self: Box<Self>, repository: &Repository, stream: &StreamId) -> Vec<Event>;
}

impl<A: Member> Held for Draft<A> {
    fn version(&self) -> u64 {
        Draft::version(self)
    }

    fn events(&self) -> &[Event] {
        Draft::events(self)
    }

    fn claims(&self) -> &[ClaimChange] {
        Draft::claims(self)
    }

    fn keep(self: Box<Self>, repository: &Repository, stream: &StreamId) -> Vec<Event> {
        let (loaded, events): (Loaded<A>, _) = self.into_appended();
        repository.put(stream, Arc::new(loaded));
        events
    }
}

pub(crate) struct Entry {
    pub stream: StreamId,
    is_new: bool,
    pub draft: Box<dyn Held>,
}

impl Entry {
    /// Whether the decision depends on it; not if it was to be created and was not.
    pub fn counts(&self) -> bool {
        !self.is_new || !self.draft.events().is_empty()
    }

    fn of<A: Member>(&self) -> &Draft<A> {
        let any: &dyn Any = &*self.draft;
        any.downcast_ref().expect("a stream's name determines its aggregate")
    }

    fn of_mut<A: Member>(&mut self) -> &mut Draft<A> {
        let any: &mut dyn Any = &mut *self.draft;
        any.downcast_mut().expect("a stream's name determines its aggregate")
    }
}

/// What a decision works on: the aggregates read for it, and what was decided so far.
///
/// # Panics
/// Its methods panic for a [`Handle`] from other [`Reads`].
pub struct Work {
    reads: u64,
    pub(crate) entries: Vec<Entry>,
    /// The event that requested the mails that this decision is about, with its position.
    pub(crate) asked_at: Option<(EventId, u64)>,
    pub(crate) actor: Option<Actor>,
}

impl Work {
    /// An aggregate, including the decision's changes to it.
    pub fn get<A: Member>(&self, handle: Handle<A>) -> &A {
        self.entries[self.index(handle)].of::<A>()
    }

    /// The version an aggregate had when it was loaded.
    pub fn version<A: Member>(&self, handle: Handle<A>) -> u64 {
        self.entries[self.index(handle)].of::<A>().version()
    }

    /// The draft of an aggregate, for a decision that changes it.
    pub fn draft<A: Member>(&mut self, handle: Handle<A>) -> &mut Draft<A> {
        let index = self.index(handle);
        self.entries[index].of_mut()
    }

    /// Several aggregates for a decision that reads some and changes others: a tuple of drafts for a tuple of handles.
    ///
    /// # Panics
    /// When two of them are of the same aggregate.
    pub fn drafts<H: Handles>(&mut self, handles: H) -> H::Drafts<'_> {
        handles.of(self)
    }

    /// Executes a command on one aggregate. A refusal leaves it unchanged.
    ///
    /// # Errors
    /// The aggregate's own refusals.
    pub fn execute<A: Member>(&mut self, handle: Handle<A>, command: A::Command) -> Result<(), A::Error> {
        self.draft(handle).execute(command)
    }

    /// Sets the event that requested the mails that this decision is about: their claims are named after it.
    pub fn is_about_mails_of(&mut self, event: EventId, position: u64) {
        self.asked_at = Some((event, position));
    }

    /// Replaces the actor, if only the decision shows that it is not the one in the context.
    pub fn is_done_by(&mut self, actor: Actor) {
        self.actor = Some(actor);
    }

    /// The events decided so far.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.entries.iter().flat_map(|entry| entry.draft.events())
    }

    /// The claims taken, with their owners, and the claims released.
    pub(crate) fn claims(&self) -> (Vec<(&Claimed, &StreamId)>, Vec<&Claimed>) {
        let (mut taken, mut released) = (Vec::new(), Vec::new());
        for entry in &self.entries {
            for change in entry.draft.claims() {
                match change {
                    ClaimChange::Take(claimed) | ClaimChange::TakeUntil(claimed, _) => {
                        taken.push((claimed, &entry.stream));
                    }
                    ClaimChange::Release(claimed) => {
                        // The journal releases claims before it takes any.
                        taken.retain(|(taken, _)| *taken != claimed);
                        released.push(claimed);
                    }
                    ClaimChange::Extend(..) => {}
                }
            }
        }
        (taken, released)
    }

    fn index<A>(&self, handle: Handle<A>) -> usize {
        assert_eq!(
            handle.reads, self.reads,
            "a handle works only with the reads that returned it: take it from the reads that are passed to `run`"
        );
        handle.index
    }
}

/// Several handles.
pub trait Handles {
    /// Their drafts.
    type Drafts<'w>;

    /// Looks up the drafts in the decision's work.
    fn of(self, work: &mut Work) -> Self::Drafts<'_>;
}

macro_rules! handles {
    ($($A:ident $handle:ident),+) => {
        impl<$($A: Member),+> Handles for ($(Handle<$A>),+) {
            type Drafts<'w> = ($(&'w mut Draft<$A>),+);

            fn of(self, work: &mut Work) -> Self::Drafts<'_> {
                let ($($handle),+) = self;
                let indices = [$(work.index($handle)),+];
                let [$($handle),+] =
                    work.entries.get_disjoint_mut(indices).expect("these are different aggregates");
                ($($handle.of_mut::<$A>()),+)
            }
        }
    };
}

handles!(A a, B b);
handles!(A a, B b, C c);
handles!(A a, B b, C c, D d);
handles!(A a, B b, C c, D d, E e);
