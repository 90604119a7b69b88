//! `cqrs_es::CqrsFramework` runs on the journal: our aggregates use commands and events as it does.

use std::sync::Arc;

use cqrs_es::{AggregateError, CqrsFramework, EventStore};
use domain::lockout::{Lockout, LockoutCommand, LockoutPolicy};
use domain::{AppId, UserId};
use event_store::cqrs::CqrsStore;
use event_store::{FixedClock, KeyStore, MasterKey, Repository, Sealer, SqliteJournal};
use schemas::envelope::{Actor, Metadata};
use tempfile::TempDir;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_framework_runs_on_the_journal() {
    let directory = TempDir::new().expect("makes a directory");
    let journal = SqliteJournal::open(&directory.path().join("journal.db"), &event_store::contract::macs())
        .await
        .expect("opens");
    let keys =
        KeyStore::open(&directory.path().join("keys.db"), &MasterKey::generate()).await.expect("opens");
    let repository = Arc::new(Repository::new(Arc::new(journal), Arc::new(Sealer::new(Arc::new(keys))), 10));
    let at = domain::Timestamp::from_second(1_800_000_000).expect("in range");
    let clock = Arc::new(FixedClock::new(at));
    let metadata = Metadata {
        app_id: AppId::default_app(),
        actor: Actor::system(),
        correlation_id: Uuid::from_u128(1),
        causation_id: None,
        request_id: None,
        traceparent: None,
    };
    let store = || CqrsStore::new(Arc::clone(&repository), clock.clone(), metadata.clone());
    let framework = CqrsFramework::<Lockout, _>::new(store(), vec![], ());
    let user_id = UserId(Uuid::from_u128(7));
    let id = user_id.to_string();
    let policy = LockoutPolicy { failures: 2, ..LockoutPolicy::default() };
    let fail = || LockoutCommand::RecordFailure { user_id, device: None, policy, at };

    framework.execute(&id, fail()).await.expect("counts");
    framework.execute(&id, fail()).await.expect("counts and locks");
    let refusal = framework.execute(&id, fail()).await;
    assert!(matches!(refusal, Err(AggregateError::UserError(_))), "{refusal:?}");

    let events = EventStore::<Lockout>::load_events(&store(), &id).await.expect("loads");
    let found: Vec<_> = events
        .iter()
        .map(|event| (event.sequence, cqrs_es::DomainEvent::event_type(&event.payload)))
        .collect();
    let expected = [(1, "LoginFailed"), (2, "LoginFailed"), (3, "AccountLocked")];
    assert_eq!(found, expected.map(|(sequence, name)| (sequence, name.to_owned())));

    // Each event is applied once: the library's own stores apply them twice.
    let loaded = repository.load::<Lockout>(&user_id).await.expect("loads");
    assert_eq!(loaded.version, 3);
    assert!(loaded.state.require_open(None, policy, at).is_err());

    // Two commands are decided on the same state: the second is a conflict.
    let context = || async { EventStore::<Lockout>::load_aggregate(&store(), &id).await.expect("loads") };
    let (one, two) = (context().await, context().await);
    let event = vec![events[0].payload.clone()];
    store().commit(event.clone(), one, [].into()).await.expect("commits");
    let late = EventStore::<Lockout>::commit(&store(), event, two, [].into()).await;
    assert!(matches!(late, Err(AggregateError::AggregateConflict)));
    assert_eq!(repository.journal().head().await, Ok(4));
}
