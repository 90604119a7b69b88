//! What a database of read models refuses, and what is not in it.

use std::sync::Arc;

use domain::{AppId, Personal};
use event_store::{Journal, Location};
use sqlx::{ConnectOptions, Connection};
use test_services::Postgres;

use super::world::*;
use crate::users::UserFilter;
use crate::{ApplyError, JournalError, Lease, OpenError, Paging, ReadModels};

async fn inv_l_a_gap_is_refused_and_nothing_of_it_stays(on: On) {
    let world = small_world(on).await;
    let fresh = world.open(&world.other("second.db")).await;
    let events = world.events(0).await;
    for projector in fresh.projectors() {
        let empty = fresh.dump(&*projector).await.expect("dumps");
        let refused = fresh.apply(&*projector, &events[1..], Lease::UNSHARED).await;
        assert!(matches!(refused, Err(ApplyError::Gap { expected: 1, found: 2 })), "{refused:?}");
        let with_hole = [&events[..2], &events[3..]].concat();
        let refused = fresh.apply(&*projector, &with_hole, Lease::UNSHARED).await;
        assert!(matches!(refused, Err(ApplyError::Gap { expected: 3, found: 4 })), "{refused:?}");
        assert_eq!(fresh.dump(&*projector).await.expect("dumps"), empty);
        assert_eq!(fresh.checkpoint(&*projector).await.expect("reads"), 0);
        fresh.apply(&*projector, &events[..5], Lease::UNSHARED).await.expect("applies");
        let twice = fresh.apply(&*projector, &events[..5], Lease::UNSHARED).await;
        assert!(matches!(twice, Err(ApplyError::Gap { expected: 6, found: 1 })), "{twice:?}");
    }
}

async fn another_journal_is_recognized(on: On) {
    let world = small_world(on).await;
    let mut other = World::new(On::Sqlite).await;
    other.ids = 1000;
    let users = projector(&world.models, "users");
    let check = async |journal: &Arc<dyn Journal>| world.models.check_journal(&*users, &**journal).await;
    check(&world.journal).await.expect("its own");
    assert!(matches!(check(&other.journal).await, Err(JournalError::Other { .. })), "it is shorter");
    for n in 1..=20 {
        other.append(&registered(n, &format!("user{n}@example.com"), "Somebody", 0), 0).await;
    }
    assert!(
        matches!(check(&other.journal).await, Err(JournalError::Other { .. })),
        "it has another event there"
    );
    let head = world.journal.head().await.expect("reads");
    world.models.close().await;
    let looked = ReadModels::look(&world.location).await.expect("looks");
    assert_eq!(looked.len(), world.models.projectors().len());
    assert!(looked.iter().all(|checkpoint| checkpoint.position == head && checkpoint.event.is_some()));
}

#[tokio::test]
async fn a_file_whose_checkpoints_do_not_name_their_events_is_upgraded() {
    let world = small_world(On::Sqlite).await;
    world.models.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.path("read-models.db"));
    let mut connection = options.connect().await.expect("connects");
    sqlx::raw_sql("ALTER TABLE checkpoints DROP COLUMN event")
        .execute(&mut connection)
        .await
        .expect("changes");
    connection.close().await.expect("closes");
    let looked = ReadModels::look(&world.location).await.expect("looks");
    assert!(looked.iter().all(|checkpoint| checkpoint.position > 0 && checkpoint.event.is_none()));
    let models = world.open(&world.location).await;
    for projector in models.projectors() {
        let checked = models.check_journal(&*projector, &*world.journal).await;
        assert!(
            matches!(checked, Err(JournalError::Other { .. })),
            "it does not say what it has: filled anew"
        );
        models.reset(&*projector).await.expect("empties");
    }
    world.append(&registered(9, "barbara@example.com", "Barbara", 9), 9).await;
    world.catch_up(&models, 10).await;
    let checkpoints = models.checkpoints().await.expect("reads");
    assert!(checkpoints.iter().all(|checkpoint| checkpoint.event.is_some()));
}

async fn inv_n_no_stored_byte_tells_who_somebody_is(on: On) {
    let world = small_world(on).await;
    let bytes = match on {
        On::Sqlite => {
            world.models.close().await;
            let mut bytes = Vec::new();
            for name in ["read-models.db", "read-models.db-wal", "read-models.db-shm"] {
                bytes.extend(std::fs::read(world.path(name)).unwrap_or_default());
            }
            bytes
        }
        On::Postgres => {
            let Location::Postgres(url) = &world.location else { unreachable!("they are in PostgreSQL") };
            let (server, name) = (Postgres::shared(), url.options().get_database().expect("it has one"));
            let mut bytes = Vec::new();
            for projector in world.models.projectors() {
                for table in projector.tables() {
                    let query = format!("SELECT t FROM watchword_read.{table} t");
                    bytes.extend(server.psql(&server.url(name), &query).into_bytes());
                }
            }
            bytes
        }
    };
    assert!(bytes.len() > 4096, "what is stored was read");
    let secrets =
        ["ada@", "example.com", "Lovelace", "lovelace", "Ada", "Hopper", "203.0.113", "Mozilla", "argon2id"];
    for secret in secrets {
        // psql prints bytes as hexadecimal digits.
        for form in [secret.to_owned(), hex::encode(secret.as_bytes())] {
            let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "{secret} is stored {on:?}");
        }
    }
}

async fn an_erased_person_is_no_longer_shown(on: On) {
    let world = small_world(on).await;
    world.sealer.keys().erase_data_key(user(1)).await.expect("erases");
    let (app, filter, paging) = (AppId::default_app(), UserFilter::default(), Paging::default());
    let rows = world.models.users().list(&app, &filter, &paging).await.expect("lists").items;
    let ada = rows.iter().find(|row| row.id == user(1)).expect("her account is there");
    assert_eq!(ada.personal, Personal::default());
    // A rebuild after the erasure has nothing to seal, and creates no new key.
    for projector in world.models.projectors() {
        world.models.reset(&*projector).await.expect("resets");
    }
    world.catch_up(&world.models, 1000).await;
    assert!(!dump(&world.models, "users").await.contains("Ada"));
    assert!(world.sealer.keys().data_key(user(1)).await.expect("asks").is_none());
}

#[tokio::test]
async fn a_file_of_something_else_is_left_alone() {
    let world = World::new(On::Sqlite).await;
    let open = async |name| {
        let location = Location::File(world.path(name));
        ReadModels::open(&location, world.sealer.clone(), world.lookup.clone()).await
    };
    assert!(matches!(open("journal.db").await, Err(OpenError::Foreign(_))));
    std::fs::write(world.path("text.db"), "not a database, but long enough to be taken for one ".repeat(10))
        .expect("writes");
    assert!(matches!(open("text.db").await, Err(OpenError::Failed { .. })));
    let text = std::fs::read_to_string(world.path("text.db")).expect("reads");
    assert!(text.starts_with("not a database"));
}

#[tokio::test]
async fn an_error_never_contains_the_password() {
    let world = World::new(On::Sqlite).await;
    let location: Location = "postgres://ada:swordfish@127.0.0.1:1/nowhere".parse().expect("a URL");
    let opened = ReadModels::open(&location, world.sealer.clone(), world.lookup.clone()).await;
    let Err(error) = opened else { panic!("there is nothing") };
    let told = format!("{error} {error:?} {location} {location:?}");
    assert!(!told.contains("swordfish"), "{told}");
    assert!(told.contains("127.0.0.1:1/nowhere"), "{told}");
}

on_both! {
    inv_l_a_gap_is_refused_and_nothing_of_it_stays,
    another_journal_is_recognized,
    inv_n_no_stored_byte_tells_who_somebody_is,
    an_erased_person_is_no_longer_shown,
}
