//! The Merkle tree over the events: it is that of RFC 9162 whatever the batches, and nothing else is ever taken for it.

use std::sync::Arc;

use domain::{AppId, StreamId};
use schemas::RecordedEvent;
use schemas::envelope::{Actor, Metadata};
use tlog::proof::{Plan, extends, includes};
use tlog::tile::TileId;
use tlog::{Frontier, Hash};
use uuid::Uuid;

use super::compared::alter;
use super::world::*;
use crate::merkle_tree::{TreeHead, leaf};
use crate::{ApplyError, Lease, ProjectError, ProjectedEvent};

/// More than two tiles at level 0.
const EVENTS: u64 = 700;

/// Events whose envelopes are all that matters.
fn events() -> Vec<ProjectedEvent> {
    let event = |position: u64| RecordedEvent {
        position,
        id: Uuid::from_u128(position.into()),
        stream: StreamId::from_stored("journal-7".to_owned()),
        version: position,
        name: "JournalCreated".to_owned(),
        schema_version: 1,
        at: at(position.cast_signed()),
        metadata: Metadata {
            app_id: AppId::platform(),
            actor: Actor::system(),
            correlation_id: Uuid::nil(),
            causation_id: None,
            request_id: None,
            traceparent: None,
        },
        data: format!(r#"{{"n":{position}}}"#),
        person: None,
        personal: None,
    };
    let undecoded = || Err(event_store::StoreError::Damaged("not decoded".to_owned()));
    (1..=EVENTS).map(|n| ProjectedEvent { recorded: Arc::new(event(n)), decoded: undecoded() }).collect()
}

fn leaves(events: &[ProjectedEvent]) -> Vec<Hash> {
    events.iter().map(|event| leaf(&event.recorded, &origin())).collect()
}

fn head_of(events: &[ProjectedEvent]) -> TreeHead {
    let mut frontier = Frontier::default();
    for leaf in leaves(events) {
        frontier.push(leaf, |_, _| {});
    }
    TreeHead { frontier, last: events.last().map_or(Uuid::nil(), |event| event.recorded.id) }
}

async fn apply(world: &World, batch: &[ProjectedEvent]) -> Result<u64, ApplyError> {
    let projector = projector(&world.models, "merkle_tree");
    world.models.apply(&*projector, batch, Lease::UNSHARED).await
}

async fn batches_make_no_difference(on: On) {
    let events = events();
    let mut dumps = Vec::new();
    for sizes in [vec![700], vec![1, 255, 1, 256, 187], vec![300, 212, 188], vec![7; 100]] {
        let world = World::new(on).await;
        let mut rest = events.as_slice();
        for size in sizes {
            let (batch, later) = rest.split_at(size);
            rest = later;
            apply(&world, batch).await.expect("applies");
            let applied = &events[..events.len() - rest.len()];
            assert_eq!(world.models.merkle_tree().head().await.expect("reads"), head_of(applied));
        }
        let tiles = dump(&world.models, "merkle_tree").await;
        // The MAC is another for each instance.
        dumps.push(tiles.lines().filter(|line| line.contains("level=")).collect::<Vec<_>>().join("\n"));
        // Nothing is applied twice, and nothing is left out.
        assert!(matches!(apply(&world, &events[..10]).await, Err(ApplyError::Gap { .. })));
    }
    assert_eq!(dumps[0].lines().count(), 4, "three tiles of leaves, one above them");
    dumps.dedup();
    assert_eq!(dumps.len(), 1);
}

async fn every_event_and_every_prefix_is_proved(on: On) {
    let (world, events) = (World::new(on).await, events());
    let leaves = leaves(&events);
    for batch in events.chunks(90) {
        apply(&world, batch).await.expect("applies");
    }
    let tree = world.models.merkle_tree();
    let head = tree.head().await.expect("reads");
    for size in [1, 2, 255, 256, 257, 511, 512, 513, 699, 700] {
        let root = tree.root(size, &head).await.expect("reads").expect("not beyond the end");
        let prefix = &events[..usize::try_from(size).expect("small")];
        assert_eq!(root, head_of(prefix).frontier.root(), "{size}");
        for index in [0, size / 3, size - 1] {
            let plan = Plan::inclusion(index, size).expect("within");
            let proof = tree.hashes(plan.nodes()).await.expect("reads").proof(&plan).expect("whole");
            let leaf = leaves[usize::try_from(index).expect("small")];
            assert!(includes(&proof, index, leaf, size, root), "{index} in {size}");
        }
        let plan = Plan::consistency(size, EVENTS).expect("within");
        let proof = tree.hashes(plan.nodes()).await.expect("reads").proof(&plan).expect("whole");
        assert!(extends(&proof, (size, root), (EVENTS, head.frontier.root())), "{size}");
    }
    assert_eq!(tree.root(701, &head).await.expect("reads"), None);
    assert_eq!(tree.root(0, &head).await.expect("reads"), Some(Hash::of_nothing()));
    let tile = async |level, number, width| tree.tile(TileId { level, number }, width).await.expect("reads");
    assert_eq!(tile(0, 1, 256).await.as_deref(), Some(&leaves[256..512]));
    assert_eq!(tile(0, 2, 100).await.as_deref(), Some(&leaves[512..612]));
    assert_eq!(tile(0, 2, 189).await, None);
    assert_eq!(tile(1, 0, 2).await.map(|hashes| hashes.len()), Some(2));
    assert_eq!(tile(2, 0, 1).await, None);
}

/// Whoever can write to the tables can stop the tree, and that is all.
async fn forged_rows_are_never_taken_for_the_tree(on: On) {
    let (world, events) = (World::new(on).await, events());
    let (now, later) = events.split_at(600);
    apply(&world, now).await.expect("applies");
    let tree = world.models.merkle_tree();
    let head = tree.head().await.expect("reads");
    alter(&world, "CREATE TABLE kept_head AS SELECT * FROM merkle_head_v1").await;
    alter(&world, "CREATE TABLE kept_tiles AS SELECT * FROM merkle_tiles_v1").await;
    let forged = format!("x'{}'", "00".repeat(32));
    for statement in [
        // The hashes of a history of somebody's own, with the mark of the real one and without any.
        format!("UPDATE merkle_head_v1 SET hashes = {forged}, size = 512"),
        "UPDATE merkle_head_v1 SET mac = x''".to_owned(),
        "UPDATE merkle_head_v1 SET size = 599".to_owned(),
        "UPDATE merkle_head_v1 SET event = x'00000000000000000000000000000001'".to_owned(),
        "DELETE FROM merkle_head_v1".to_owned(),
    ] {
        alter(&world, &statement).await;
        let found = tree.head().await;
        assert!(found.is_err() || found.expect("reads") == TreeHead::default(), "{statement}");
        let applied = apply(&world, later).await;
        assert!(
            matches!(applied, Err(ApplyError::Project(ProjectError::Seal(_)))),
            "{statement}: {applied:?}"
        );
        alter(&world, "DELETE FROM merkle_head_v1; INSERT INTO merkle_head_v1 SELECT * FROM kept_head").await;
    }
    for statement in [
        format!("UPDATE merkle_tiles_v1 SET hashes = {forged} WHERE level = 0 AND number = 0"),
        "UPDATE merkle_tiles_v1 SET hashes = (SELECT hashes FROM kept_tiles WHERE level = 0 AND number = 1) WHERE number = 0
         AND level = 0"
            .to_owned(),
        "DELETE FROM merkle_tiles_v1 WHERE number = 0".to_owned(),
    ] {
        alter(&world, &statement).await;
        assert!(tree.root(100, &head).await.is_err(), "{statement}");
        alter(&world, "DELETE FROM merkle_tiles_v1; INSERT INTO merkle_tiles_v1 SELECT * FROM kept_tiles").await;
    }
    // What tiles say changes nothing about what the tree becomes.
    alter(&world, &format!("UPDATE merkle_tiles_v1 SET hashes = {forged} WHERE level = 0 AND number = 0"))
        .await;
    apply(&world, later).await.expect("applies");
    assert_eq!(tree.head().await.expect("reads"), head_of(&events));
}

on_both!(
    batches_make_no_difference,
    every_event_and_every_prefix_is_proved,
    forged_rows_are_never_taken_for_the_tree,
);
