//! `cqrs_es::EventStore` over the journal, so that `CqrsFramework` runs on it. The services have a dispatcher of
//! their own; this shows that our aggregates and journal mean by events what the library means.

use std::collections::HashMap;
use std::sync::Arc;

use cqrs_es::{AggregateContext, AggregateError, EventEnvelope, EventStore};
use domain::{Event, Recorded, Stream, StreamId};
use schemas::envelope::Metadata;

use crate::clock::Clock;
use crate::journal::{Append, AppendError, StoreError, Write};
use crate::repository::{Loaded, Repository};

/// An event store of `cqrs-es`.
pub struct CqrsStore {
    repository: Arc<Repository>,
    clock: Arc<dyn Clock>,
    metadata: Metadata,
}

/// An aggregate on its way through `cqrs-es`.
pub struct CqrsContext<A> {
    id: String,
    loaded: Loaded<A>,
}

impl CqrsStore {
    /// A store that writes everything with this metadata.
    pub fn new(repository: Arc<Repository>, clock: Arc<dyn Clock>, metadata: Metadata) -> Self {
        Self { repository, clock, metadata }
    }
}

impl<A: Stream> AggregateContext<A> for CqrsContext<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.loaded.state
    }
}

fn stream<A: cqrs_es::Aggregate>(id: &str) -> StreamId {
    StreamId::from_stored(format!("{}-{id}", A::TYPE))
}

fn store_error<E: std::error::Error>(error: StoreError) -> AggregateError<E> {
    match error {
        StoreError::Damaged(_) => AggregateError::DeserializationError(Box::new(error)),
        StoreError::Unavailable(_) | StoreError::Erased(_) => {
            AggregateError::DatabaseConnectionError(Box::new(error))
        }
    }
}

fn append_error<E: std::error::Error>(error: AppendError) -> AggregateError<E> {
    match error {
        AppendError::Conflict { .. } => AggregateError::AggregateConflict,
        AppendError::Unavailable(_) => AggregateError::DatabaseConnectionError(Box::new(error)),
        other => AggregateError::UnexpectedError(Box::new(other)),
    }
}

impl<A> EventStore<A> for CqrsStore
where
    A: Recorded,
    A::Error: Send,
{
    type AC = CqrsContext<A>;

    async fn load_events(&self, id: &str) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let stream = stream::<A>(id);
        let mut envelopes = Vec::new();
        for recorded in self.repository.journal().read_stream(&stream, 0).await.map_err(store_error)? {
            let event = self.repository.decode(&recorded).await.map_err(store_error)?;
            let foreign = |_| StoreError::Damaged(format!("{} does not belong into {stream}", recorded.name));
            let payload = A::Event::try_from(event).map_err(foreign).map_err(store_error)?;
            let sequence = usize::try_from(recorded.version).unwrap_or(usize::MAX);
            let metadata = HashMap::from([("position".to_owned(), recorded.position.to_string())]);
            envelopes.push(EventEnvelope { aggregate_id: id.to_owned(), sequence, payload, metadata });
        }
        Ok(envelopes)
    }

    async fn load_aggregate(&self, id: &str) -> Result<CqrsContext<A>, AggregateError<A::Error>> {
        let loaded = self.repository.load_stream::<A>(&stream::<A>(id)).await.map_err(store_error)?;
        Ok(CqrsContext { id: id.to_owned(), loaded: Loaded::clone(&loaded) })
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: CqrsContext<A>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        if events.is_empty() {
            return Ok(vec![]);
        }
        let CqrsContext { id, loaded } = context;
        let stream = stream::<A>(&id);
        let mut encoded = Vec::with_capacity(events.len());
        for event in &events {
            let event: Event = event.clone().into();
            encoded.push(self.repository.encode(&event, self.clock.new_id()).await.map_err(store_error)?);
        }
        let append = Append {
            writes: vec![Write { stream: stream.clone(), expected: loaded.version, events: encoded }],
            guards: vec![],
            taken: vec![],
            released: vec![],
            idempotency: None,
            metadata: self.metadata.clone(),
            at: self.clock.now(),
        };
        let appended = self.repository.journal().append(append).await;
        // The cached state precedes this append, or a concurrent one.
        self.repository.evict(&stream);
        appended.map_err(append_error)?;
        let first = usize::try_from(loaded.version).unwrap_or(usize::MAX) + 1;
        let envelope = |(sequence, payload)| {
            let (aggregate_id, metadata) = (id.clone(), metadata.clone());
            EventEnvelope { aggregate_id, sequence, payload, metadata }
        };
        Ok((first..).zip(events).map(envelope).collect())
    }
}
