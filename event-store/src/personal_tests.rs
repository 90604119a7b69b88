use std::sync::Arc;

use domain::app::{AppDisabled, AppEvent};
use domain::lockout::{AccountUnlocked, LockoutEvent, LoginFailed};
use domain::session::{SessionEvent, SessionRefreshed, SessionStarted};
use domain::user::{UserBanned, UserEvent};
use domain::{ApiKeyId, AppId, SessionId, StreamId, Timestamp};
use schemas::envelope::Metadata;

use super::*;
use crate::key_store::KeyStore;
use crate::master_key::MasterKey;

const IP: &str = "192.0.2.7";

struct World {
    _folder: tempfile::TempDir,
    sealer: Sealer,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keys =
            KeyStore::open(&folder.path().join("keys.db"), &MasterKey::generate()).await.expect("opens");
        Self { _folder: folder, sealer: Sealer::new(Arc::new(keys)) }
    }

    /// The event as recorded after this request.
    async fn record(&self, event: Event, actor: &Actor) -> RecordedEvent {
        let client = Client { ip: Some(IP.to_owned()), user_agent: Some("Engine/1".to_owned()) };
        let id = Uuid::from_u128(42);
        let requested = Requested { client: &client, actor };
        let new = encode_for(&self.sealer, &event, id, &requested).await.expect("encodes");
        let metadata = Metadata {
            app_id: AppId::default_app(),
            actor: actor.clone(),
            correlation_id: id,
            causation_id: None,
            request_id: None,
            traceparent: None,
        };
        RecordedEvent {
            position: 1,
            id,
            // Not relevant here.
            stream: StreamId::user(user(1)),
            version: 1,
            name: new.name.into_owned(),
            schema_version: new.schema_version,
            at: at(),
            metadata,
            data: new.data,
            person: new.person,
            personal: new.personal,
        }
    }

    async fn ip(&self, recorded: &RecordedEvent) -> Option<String> {
        open(&self.sealer, recorded).await.expect("opens").and_then(|personal| personal.ip)
    }

    async fn erase(&self, person: UserId) {
        self.sealer.keys().erase_data_key(person).await.expect("erases");
    }
}

fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

fn at() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("in range")
}

fn failed() -> Event {
    LockoutEvent::LoginFailed(LoginFailed { user_id: user(1), failures: 1, device_id: None, at: at() }).into()
}

fn banned() -> Event {
    let personal = Personal { reason: Some("spam".to_owned()), ..Personal::default() };
    UserEvent::UserBanned(UserBanned { user_id: user(1), access_ended: true, at: at(), personal }).into()
}

#[tokio::test]
async fn an_event_says_where_its_request_came_from_and_nothing_of_it_is_in_the_clear() {
    let world = World::new().await;
    let (anonymous, key) = (Actor::anonymous(), Actor::api_key(ApiKeyId(Uuid::from_u128(9))));
    let unlocked = AccountUnlocked { user_id: user(1), at: at() };
    let unlocked: Event = LockoutEvent::AccountUnlocked(unlocked).into();
    let disabled: Event = AppEvent::AppDisabled(AppDisabled { at: at() }).into();
    for (event, actor) in [
        (failed(), &anonymous),
        (failed(), &Actor::user(user(1))),
        (failed(), &Actor::user(user(2))),
        (banned(), &key),
        (banned(), &Actor::user(user(2))),
        (unlocked, &key),
        // About no person.
        (disabled.clone(), &key),
        (disabled, &Actor::user(user(2))),
    ] {
        let recorded = world.record(event, actor).await;
        assert_eq!(world.ip(&recorded).await.as_deref(), Some(IP), "{} by {actor:?}", recorded.name);
        let sealed = recorded.personal.expect("a sealed part");
        let shown = format!("{} {}", recorded.data, String::from_utf8_lossy(&sealed));
        assert!(!shown.contains(IP) && !shown.contains("Engine") && !shown.contains("spam"), "{shown}");
    }
}

#[tokio::test]
async fn a_part_sealed_for_one_event_does_not_open_for_another() {
    let world = World::new().await;
    for actor in [Actor::user(user(2)), Actor::api_key(ApiKeyId(Uuid::from_u128(9)))] {
        let disabled: Event = AppEvent::AppDisabled(AppDisabled { at: at() }).into();
        for event in [banned(), disabled] {
            let recorded = world.record(event, &actor).await;
            let moved = RecordedEvent { id: Uuid::from_u128(43), ..recorded.clone() };
            assert!(open(&world.sealer, &moved).await.is_err(), "{}", moved.name);
            let renamed = RecordedEvent { name: "Other".to_owned(), ..recorded };
            assert!(open(&world.sealer, &renamed).await.is_err());
        }
    }
}

#[tokio::test]
async fn erasing_the_person_or_the_actor_erases_where_the_request_came_from() {
    for (forgotten, reason) in [(1, None), (2, Some("spam"))] {
        let world = World::new().await;
        let recorded = world.record(banned(), &Actor::user(user(2))).await;
        world.erase(user(forgotten)).await;
        assert_eq!(world.ip(&recorded).await, None);
        let left = open(&world.sealer, &recorded).await.expect("opens").unwrap_or_default();
        assert_eq!(left.reason.as_deref(), reason, "the rest belongs to the person it is about");
    }
    // An action on an app.
    let world = World::new().await;
    let disabled: Event = AppEvent::AppDisabled(AppDisabled { at: at() }).into();
    let recorded = world.record(disabled, &Actor::user(user(2))).await;
    assert_eq!(recorded.person, None, "it is about no person");
    world.erase(user(2)).await;
    assert_eq!(world.ip(&recorded).await, None);
}

#[tokio::test]
async fn an_event_that_says_where_from_itself_is_unchanged() {
    let world = World::new().await;
    let (session_id, user_id) = (SessionId(Uuid::from_u128(5)), user(1));
    let own = Personal { ip: Some("198.51.100.4".to_owned()), ..Personal::default() };
    let started = SessionEvent::SessionStarted(SessionStarted {
        session_id,
        user_id,
        app_id: AppId::default_app(),
        method: domain::session::LoginMethod::Password,
        epoch: 0,
        expires_at: at(),
        idle_expires_at: at(),
        at: at(),
        personal: own.clone(),
    });
    let recorded = world.record(started.into(), &Actor::anonymous()).await;
    assert_eq!(open(&world.sealer, &recorded).await.expect("opens"), Some(own));
    // The same client as at the session's previous use.
    let refreshed = SessionEvent::SessionRefreshed(SessionRefreshed {
        session_id,
        user_id,
        generation: 1,
        idle_expires_at: at(),
        at: at(),
        personal: Personal::default(),
    });
    let recorded = world.record(refreshed.into(), &Actor::user(user_id)).await;
    assert_eq!(recorded.personal, None);
}
