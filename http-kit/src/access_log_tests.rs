use domain::{ApiKeyId, Personal};
use event_store::StoreError;
use futures::future::join_all;
use jiff::SignedDuration;
use schemas::envelope::RecordedEvent;
use uuid::Uuid;

use super::*;
use crate::testing::World;

fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

fn key(n: u128) -> Actor {
    Actor::api_key(ApiKeyId(Uuid::from_u128(n)))
}

fn request() -> RequestContext {
    RequestContext {
        request_id: "request-1".into(),
        correlation_id: Uuid::from_u128(1),
        traceparent: None,
        client: Client { ip: Some("192.0.2.7".to_owned()), user_agent: None },
        address: None,
        idempotency_key: None,
    }
}

fn acme() -> AppId {
    AppId::parse("acme").expect("valid")
}

/// The log of another node, with an empty cache.
fn log(world: &World) -> AccessLog {
    AccessLog::new(Arc::clone(&world.repository), Arc::clone(&world.clock) as Arc<dyn Clock>)
}

/// People have keys from their first event on.
async fn people(world: &World) {
    for n in 1..4 {
        world.keys.create_data_key(user(n)).await.expect("a key");
    }
}

async fn events(world: &World) -> Vec<RecordedEvent> {
    world.repository.journal().read_all(0, 1000).await.expect("reads")
}

#[tokio::test]
async fn a_read_is_recorded_once_for_caller_person_and_hour() {
    let world = World::new().await;
    people(&world).await;
    let (first, second, request) = (log(&world), log(&world), request());
    let reads = async |log: &AccessLog, actor: &Actor, people: &[u128], source| {
        let looking = Looking::new(&request, &acme(), actor);
        log.read(&looking, source, people.iter().copied().map(user)).await.expect("is written");
        events(&world).await.len()
    };
    let (list, one) = (PersonalDataSource::UserList, PersonalDataSource::User);
    assert_eq!(reads(&first, &key(1), &[1, 2, 2], list).await, 2);
    for log in [&first, &second] {
        assert_eq!(reads(log, &key(1), &[1], one).await, 2, "again, or on another node");
    }
    assert_eq!(reads(&second, &key(1), &[1, 2, 3], list).await, 3, "one is new");
    assert_eq!(reads(&first, &key(2), &[1], one).await, 4, "another caller");
    assert_eq!(
        reads(&first, &Actor::user(user(2)), &[1, 2], list).await,
        5,
        "reading about oneself is not recorded"
    );
    assert_eq!(reads(&first, &Actor::user(user(2)), &[2], one).await, 5);
    assert_eq!(reads(&first, &key(1), &[], list).await, 5);
    world.clock.advance(SignedDuration::from_secs(3600));
    assert_eq!(reads(&first, &key(1), &[1], one).await, 6, "another hour");

    let recorded = events(&world).await;
    for event in &recorded {
        assert_eq!(event.name, "PersonalDataRead");
        assert_eq!((event.version, event.stream.aggregate()), (1, "access"));
        assert_eq!(event.metadata.app_id, acme());
        let personal = world.repository.personal(event).await.expect("opens").unwrap_or_default();
        assert_eq!(personal.ip.as_deref(), Some("192.0.2.7"), "sealed for the person it is about");
        assert!(!event.data.contains("192.0.2.7"));
    }
    assert_eq!(recorded[4].metadata.actor, Actor::user(user(2)));
}

#[tokio::test]
async fn concurrent_readers_write_one_event_each() {
    let world = World::new().await;
    let (nodes, request) = ([log(&world), log(&world)], request());
    let people: Vec<UserId> = (1..=20).map(user).collect();
    let looks = (0..20).map(|n: usize| {
        let (node, request, people) = (&nodes[n % 2], &request, &people);
        async move {
            let looking = Looking::new(request, &acme(), &key(1));
            // Partly the same, so that they conflict.
            let shown = people.iter().skip(n / 2).take(10).copied();
            node.read(&looking, PersonalDataSource::UserList, shown).await
        }
    });
    for written in join_all(looks).await {
        written.expect("is written");
    }
    let mut about: Vec<UserId> = events(&world).await.iter().filter_map(|event| event.person).collect();
    about.sort();
    assert_eq!(about, people[..19]);
}

#[tokio::test]
async fn an_export_is_recorded_by_form_and_person() {
    let world = World::new().await;
    people(&world).await;
    let (log, request, app) = (log(&world), request(), acme());
    let exports = async |form, person: Option<u128>, opened| {
        let looking = Looking::new(&request, &app, &key(1));
        log.exported(&looking, Some(&app), form, person.map(user), opened).await.expect("is written");
        events(&world).await.len()
    };
    assert_eq!(exports(ExportForm::Csv, None, true).await, 1);
    assert_eq!(exports(ExportForm::Csv, None, true).await, 1);
    assert_eq!(exports(ExportForm::Csv, None, false).await, 2);
    assert_eq!(exports(ExportForm::Ndjson, None, false).await, 3);
    assert_eq!(exports(ExportForm::Ndjson, Some(1), false).await, 4);
    let recorded = events(&world).await;
    let personal: Vec<Option<Personal>> = {
        let mut opened = vec![];
        for event in &recorded {
            opened.push(world.repository.personal(event).await.expect("opens"));
        }
        opened
    };
    assert!(personal.iter().all(|it| it.as_ref().is_some_and(|it| it.ip.is_some())), "{personal:?}");
    assert_eq!(recorded[3].person, Some(user(1)));
    assert_eq!(recorded[0].person, None);
}

#[tokio::test]
async fn a_read_about_a_person_without_a_key_is_recorded_without_the_origin_of_the_request() {
    let world = World::new().await;
    let (log, request) = (log(&world), request());
    people(&world).await;
    world.keys.erase_data_key(user(1)).await.expect("erases");
    let looking = Looking::new(&request, &acme(), &key(1));
    log.read(&looking, PersonalDataSource::Audit, [user(1), user(2), user(9)]).await.expect("is written");
    let recorded = events(&world).await;
    let sealed = recorded.iter().map(|event| (event.person, event.personal.is_some()));
    let sealed: std::collections::BTreeMap<_, _> = sealed.collect();
    assert_eq!(sealed, [(Some(user(1)), false), (Some(user(2)), true), (Some(user(9)), false)].into());
    assert!(!world.keys.has_row(user(9)).await.expect("reads"), "none is made by looking");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_refused() {
    let world = World::new().await;
    let (log, request) = (log(&world), request());
    world.repository.journal().close().await;
    let looking = Looking::new(&request, &acme(), &key(1));
    let refused = log.read(&looking, PersonalDataSource::User, [user(1)]).await.expect_err("closed");
    let expected: Problem = StoreError::Unavailable("".into()).into();
    assert_eq!(refused.code(), expected.code());
    let refused = log.exported(&looking, None, ExportForm::Csv, None, true).await.expect_err("closed");
    assert_eq!(refused.code(), expected.code());
}
