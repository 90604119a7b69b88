//! The relay against a real nats-server that is stopped, killed, emptied and truncated.

use std::time::Duration;

use async_nats::HeaderMap;
use effects::relay::{Relay, RelaySettings, delete_stream, fill};
use event_store::{Clock, InstanceKey, Journal, Lost, Marked, MessageKey, SystemClock, epoch};
use schemas::{RecordedEvent, bus};
use test_services::Nats;
use uuid::Uuid;

use world::{World, append, client, open, origin, settings, until, until_true};

mod forged;
mod world;

#[tokio::test(flavor = "multi_thread")]
async fn inv_m_the_stream_is_the_journal_in_order_with_positions_as_sequences() {
    let world = World::new().await;
    world.append(3000).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
    // And later events, one by one.
    for _ in 0..20 {
        world.append(1).await;
    }
    world.assert_complete(&relay).await;
    let config = world.info().await.config;
    assert_eq!(config.subjects, ["auth.v1.>"]);
    assert!(config.allow_atomic_publish && config.deny_delete && config.deny_purge);
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_m_relays_that_compete_publish_each_event_once() {
    let world = World::new().await;
    let (journal, key) = (world.journal.clone(), world.key.clone());
    let second = Relay::start(client(&world.nats).await, journal, origin(), key, settings());
    let first = world.relay();
    for _ in 0..100 {
        world.append(20).await;
    }
    world.assert_complete(&first).await;
    // The loser stands by, and takes over when the other is gone.
    first.shutdown().await;
    world.append(500).await;
    world.assert_complete(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_t_a_server_that_comes_later_gets_everything() {
    let mut world = World::new().await;
    world.nats.stop();
    world.client = client(&world.nats).await;
    let relay = world.relay();
    world.append(300).await;
    let status = until(&relay, |status| status.state == "interrupted" && status.lag == 300).await;
    assert!(status.error.expect("says why").contains("NATS"));
    world.nats.up();
    world.assert_complete(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_t_a_server_that_is_killed_under_load_has_everything_after_its_restart() {
    let mut world = World::new().await;
    let relay = world.relay();
    let journal = world.journal.clone();
    let load = tokio::spawn(async move {
        for _ in 0..60 {
            append(&*journal, 50, 500).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for _ in 0..3 {
        let position = relay.status().position;
        until(&relay, |status| {
            status.position > position + 100 || status.lag == 0 && status.position >= 3000
        })
        .await;
        world.nats.kill();
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.nats.up();
    }
    load.await.expect("the load runs");
    world.assert_complete(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_is_made_again_with_the_same_sequences() {
    let world = World::new().await;
    world.append(700).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
    world.jetstream().delete_stream(bus::STREAM).await.expect("is deleted");
    // Idle, it notices by its timer.
    until(&relay, |status| status.position < 700).await;
    world.assert_complete(&relay).await;
    // Under load, it notices by the answer to a batch.
    world.jetstream().delete_stream(bus::STREAM).await.expect("is deleted");
    world.append(10).await;
    world.assert_complete(&relay).await;
}

/// A killed server forgets how far the stream went, and continues after what remains of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lost_its_tail_gets_it_again() {
    let mut world = World::new().await;
    append(&*world.journal, 3000, 300).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
    relay.shutdown().await;
    world.nats.kill();
    world.cut_and_start();
    until_true(async || world.try_state().await.is_some()).await;
    let made = world.info().await.created;
    let end = world.state().await.last_sequence;
    assert!((1..3000).contains(&end), "the stream ends at {end}");
    let relay = world.relay();
    world.assert_complete(&relay).await;
    assert_eq!(world.info().await.created, made, "it is the same stream");
    world.append(100).await;
    world.assert_complete(&relay).await;
}

/// A stopped server knows how far the stream went: the messages are gone, their sequences are used up.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_holes_is_made_anew() {
    let mut world = World::new().await;
    append(&*world.journal, 3000, 300).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
    relay.shutdown().await;
    world.nats.stop();
    world.cut_and_start();
    until_true(async || world.try_state().await.is_some()).await;
    let state = world.state().await;
    assert!(state.last_sequence == 3000 && state.messages < 3000, "{state:?}");
    let relay = world.relay();
    world.assert_complete(&relay).await;
    world.append(100).await;
    world.assert_complete(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_makes_an_idle_relay_look() {
    let mut world = World::new().await;
    append(&*world.journal, 3000, 300).await;
    let relay = world.relay_with(RelaySettings { check_interval: Duration::from_hours(1), ..settings() });
    world.assert_complete(&relay).await;
    for kill in [true, false] {
        if kill {
            world.nats.kill();
        } else {
            world.nats.stop();
        }
        world.cut_and_start();
        let whole = async || {
            world.try_state().await.is_some_and(|state| state.last_sequence == 3000 && state.messages == 3000)
        };
        until_true(whole).await;
        world.assert_complete(&relay).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_emptied_is_filled_again() {
    let world = World::new().await;
    world.append(100).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
    relay.shutdown().await;
    let mut config = world.info().await.config;
    config.deny_purge = false;
    let jetstream = world.jetstream();
    assert!(jetstream.update_stream(&config).await.is_err(), "the protection cannot be removed");
    jetstream.delete_stream(bus::STREAM).await.expect("is deleted");
    config.first_sequence = Some(101);
    jetstream.create_stream(config).await.expect("is made");
    let relay = world.relay();
    world.assert_complete(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_memory_is_filled_again_after_a_restart() {
    let mut world = World::new().await;
    world.append(200).await;
    let relay = world.relay_with(RelaySettings { in_memory: true, ..settings() });
    world.assert_complete(&relay).await;
    world.nats.stop();
    world.nats.up();
    world.append(1).await;
    world.assert_complete(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_there_twice_when_the_server_has_forgotten_the_ids() {
    let world = World::new().await;
    world.append(200).await;
    let forgetful = RelaySettings { duplicate_window: Duration::from_millis(100), ..settings() };
    let relay = world.relay_with(forgetful.clone());
    world.assert_complete(&relay).await;
    relay.shutdown().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Relays that do not know what was published, started together.
    let others = [world.relay_with(forgetful.clone()), world.relay_with(forgetful)];
    world.append(50).await;
    for relay in &others {
        world.assert_complete(relay).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_aged_away_do_not_move_the_sequences() {
    let world = World::new().await;
    world.append(50).await;
    let aging = RelaySettings { max_age: Some(Duration::from_secs(1)), ..settings() };
    let relay = world.relay_with(aging.clone());
    until(&relay, |status| status.position == 50).await;
    while world.state().await.messages > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    relay.shutdown().await;
    let relay = world.relay_with(aging);
    world.append(1).await;
    until(&relay, |status| status.position == 51 && status.state == "running").await;
    assert_eq!(world.state().await.last_sequence, 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_brought_to_a_stream_that_is_there() {
    let world = World::new().await;
    world.append(10).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
    relay.shutdown().await;
    let day = Duration::from_hours(24);
    let relay = world.relay_with(RelaySettings {
        max_age: Some(day),
        max_bytes: Some(1 << 30),
        duplicate_window: Duration::from_mins(1),
        ..settings()
    });
    world.append(1).await;
    world.assert_complete(&relay).await;
    let config = world.info().await.config;
    assert_eq!((config.max_age, config.max_bytes), (day, 1 << 30));
    assert_eq!(config.duplicate_window, Duration::from_mins(1));
}

/// A journal restored from a backup is shorter than the stream, and later has other events at the same positions.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_more_or_other_events_than_the_journal_is_left_alone() {
    let mut world = World::new().await;
    world.append(100).await;
    let backup = world.back_up().await;
    world.append(50).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
    relay.shutdown().await;

    world.journal = open(&backup).await;
    let relay = world.relay();
    let status = until(&relay, |status| status.state == "stopped").await;
    let error = status.error.expect("says why");
    assert!(error.contains("ends at 150, but the journal at 100"), "{error}");

    world.append(80).await;
    let status =
        until(&relay, |status| status.error.as_ref().is_some_and(|error| error.contains("message 150")))
            .await;
    assert_eq!((status.state, status.lag), ("stopped", 180));
    assert_eq!(world.state().await.last_sequence, 150, "nothing was published");

    // An operator decides for the journal.
    world.jetstream().delete_stream(bus::STREAM).await.expect("is deleted");
    world.assert_complete(&relay).await;
    relay.shutdown().await;

    // For another journal, positions are not even compared.
    let other = world.folder.path().join("other.db");
    world.journal = open(&other).await;
    world.append(500).await;
    let relay = world.relay();
    let status = until(&relay, |status| status.state == "stopped").await;
    assert!(status.error.expect("says why").contains("another journal"));
    assert_eq!(world.state().await.last_sequence, 180);
}

/// A node has recorded that the journal went back: the stream is filled anew, and what was lost is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_history_that_was_lost_is_filled_anew_and_its_end_is_kept() {
    let mut world = World::new().await;
    event_store::origin::establish(&*world.journal, &SystemClock, &origin()).await.expect("has an origin");
    world.append(99).await;
    let backup = world.back_up().await;
    world.append(50).await;
    let newest = world.journal.read_positions(&[150]).await.expect("reads").remove(0);
    let relay = world.relay();
    world.assert_complete(&relay).await;
    relay.shutdown().await;

    world.journal = open(&backup).await;
    world.append(10).await;
    // Somebody has seen less than the stream has: whose it is, somebody has to find out.
    let lost = Lost { position: 140, event: SystemClock.new_id(), head: 110 };
    epoch::record(&*world.journal, &SystemClock, &lost).await.expect("is recorded");
    let relay = world.relay();
    until(&relay, |status| status.state == "stopped").await;
    assert_eq!(world.state().await.last_sequence, 150, "it is left alone");
    for _ in 0..2 {
        let lost = Lost { position: 150, event: newest.id, head: 111 };
        epoch::record(&*world.journal, &SystemClock, &lost).await.expect("is recorded");
    }
    assert_eq!(world.head().await, 112, "each loss once");
    world.assert_complete(&relay).await;
    let kept = world.jetstream().get_stream("WATCHWORD-LOST").await.expect("it is kept");
    assert_eq!(kept.cached_info().state.messages, 50);
    let newest_kept = kept.get_raw_message(50).await.expect("is there");
    assert_eq!(newest_kept.headers.get("Nats-Msg-Id").map(ToString::to_string), Some(newest.id.to_string()));
    assert_eq!(newest_kept.subject.as_str(), format!("lost.{}", newest.subject()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_server_does_not_take_stops_the_relay_at_it() {
    let mut world = World::new().await;
    world.nats = Nats::start_with("max_payload: 16KB");
    world.client = client(&world.nats).await;
    world.append(70).await;
    append(&*world.journal, 1, 20_000).await;
    world.append(10).await;
    let relay = world.relay();
    let status = until(&relay, |status| status.state == "stopped").await;
    let error = status.error.expect("says why");
    assert!(error.contains("event 71") && error.contains("max_payload"), "{error}");
    assert_eq!((status.position, status.lag), (70, 11));
    assert_eq!(world.state().await.last_sequence, 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn big_events_go_in_smaller_batches() {
    let world = World::new().await;
    append(&*world.journal, 100, 100_000).await;
    let relay = world.relay();
    world.assert_complete(&relay).await;
}
