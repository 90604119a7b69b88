//! What a decision works on: aggregates as they were loaded, with what was decided of them so far.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use cqrs_es::event_sink::EventSink;

use crate::Event;
use crate::claims::{ClaimChange, Claimed};
use crate::events::Recorded;

/// An aggregate as it is at a version of its stream.
#[derive(Clone, Debug, Default)]
pub struct Loaded<A> {
    /// The version: 0 where the stream does not exist.
    pub version: u64,
    /// The state.
    pub state: A,
}

/// An aggregate with the events that were decided of it so far, and what those do to claims. It reads as the state that they
/// lead to.
#[derive(Debug)]
pub struct Draft<A> {
    /// The state with the events, and the version without them.
    loaded: Arc<Loaded<A>>,
    events: Vec<Event>,
    claims: Vec<ClaimChange>,
}

impl<A: Recorded> Draft<A> {
    /// Of an aggregate as it was loaded.
    pub fn of(loaded: Arc<Loaded<A>>) -> Self {
        Self { loaded, events: Vec::new(), claims: Vec::new() }
    }

    /// Of one that is about to be made.
    pub fn new() -> Self {
        Self::of(Arc::default())
    }

    /// Lets it decide. A refusal leaves it as it was.
    ///
    /// This is the one place where the asynchronous side of [`cqrs_es::Aggregate`] is entered.
    ///
    /// # Errors
    /// The aggregate's own refusals.
    ///
    /// # Panics
    /// If an aggregate waits for something: decisions are pure.
    pub fn execute(&mut self, command: A::Command) -> Result<(), A::Error> {
        // A refused command may leave an aggregate half changed, so it works on a copy.
        let Loaded { version, mut state } = Loaded::clone(&self.loaded);
        let mut holding = state.held();
        let sink = EventSink::default();
        at_once(state.handle(command, &(), &sink))?;
        for event in at_once(sink.collect()) {
            self.claims.extend(holding.see(&event));
            self.events.push(event.into());
        }
        self.loaded = Arc::new(Loaded { version, state });
        Ok(())
    }

    /// Gives a claim back that no event gives back: that of a session which has expired.
    pub fn give_back(&mut self, claimed: Claimed) {
        self.claims.push(ClaimChange::Release(claimed));
    }

    /// The version that it was loaded at.
    pub fn version(&self) -> u64 {
        self.loaded.version
    }

    /// What was decided.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What that does to claims, in order.
    pub fn claims(&self) -> &[ClaimChange] {
        &self.claims
    }

    /// The aggregate as it is once the events are appended, and the events.
    pub fn into_appended(self) -> (Loaded<A>, Vec<Event>) {
        let Self { loaded, events, .. } = self;
        let Loaded { version, state } =
            Arc::try_unwrap(loaded).unwrap_or_else(|shared| Loaded::clone(&shared));
        (Loaded { version: version + events.len() as u64, state }, events)
    }
}

impl<A: Recorded> Default for Draft<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A> Deref for Draft<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.loaded.state
    }
}

/// The output of a future that waits for nothing.
fn at_once<F: Future<Output: fmt::Debug>>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("decisions are pure: they wait for nothing"),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Given, when, then, for decisions over several aggregates.

    use super::*;

    impl<A: Recorded> Draft<A> {
        /// One with these events behind it.
        pub(crate) fn given(events: impl IntoIterator<Item = A::Event>) -> Self {
            let mut loaded = Loaded::<A>::default();
            for event in events {
                loaded.state.apply(event);
                loaded.version += 1;
            }
            Self::of(Arc::new(loaded))
        }

        /// The names of what was decided.
        pub(crate) fn decided(&self) -> Vec<&'static str> {
            self.events.iter().map(Event::name).collect()
        }
    }
}
