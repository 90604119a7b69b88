//! Fills `merkle_tree`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use domain::LogOrigin;
use event_store::{StoreError, TreeKey};
use tlog::tile::TileId;
use tlog::{Frontier, Hash};

use super::{TreeHead, damaged, leaf};
use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::sql::{Query, Rows, Transaction};
use crate::store::ReadModels;

/// Writes `merkle_tree`. It needs only the envelope, so that an event that cannot be decoded is proved, too.
pub struct MerkleTreeProjector {
    key: TreeKey,
    origin: Arc<OnceLock<LogOrigin>>,
}

impl MerkleTreeProjector {
    pub(crate) fn new(models: &ReadModels) -> Self {
        Self { key: models.tree_key.clone(), origin: Arc::clone(&models.origin) }
    }

    /// The head after the event before a batch.
    async fn head(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<Frontier, ProjectError> {
        let TreeHead { frontier, .. } = TreeHead::read(&tx.run(TreeHead::query()).await?, &self.key)?;
        let next = batch.first().map(ProjectedEvent::position);
        if next != Some(frontier.size() + 1) {
            return Err(damaged("its head is not at the checkpoint").into());
        }
        Ok(frontier)
    }
}

#[async_trait]
impl Projector for MerkleTreeProjector {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["merkle_tiles_v1", "merkle_head_v1"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let Some(origin) = self.origin.get() else {
            return Err(StoreError::Unavailable("the origin of the journal is not known yet".into()).into());
        };
        let Some(last) = batch.last().map(|event| event.recorded.id) else { return Ok(()) };
        let mut frontier = self.head(tx, batch).await?;
        let size = frontier.size();
        let mut grown: BTreeMap<TileId, Vec<Hash>> = BTreeMap::new();
        for event in batch {
            frontier.push(leaf(&event.recorded, origin), |node, hash| {
                if node.place().is_some() {
                    grown.entry(node.tile()).or_default().push(hash);
                }
            });
        }
        let mut rows = Rows::new(["level", "number", "hashes"]);
        for (tile, new) in grown {
            let mut hashes = kept(tx, tile, size).await?;
            hashes.extend(Hash::bytes(&new));
            rows.push([u32::from(tile.level).into(), tile.number.into(), hashes.as_slice().into()]);
        }
        tx.run_for(
            &rows,
            "INSERT INTO merkle_tiles_v1 ({columns}) SELECT * FROM {rows} WHERE true
             ON CONFLICT (level, number) DO UPDATE SET hashes = excluded.hashes",
        )
        .await?;
        let hashes = Hash::bytes(frontier.roots());
        let mark = self.key.mark(frontier.size(), last, &hashes);
        let head = Query::new(
            "INSERT INTO merkle_head_v1 (id, size, event, hashes, mac) VALUES (0, $1, $2, $3, $4)
             ON CONFLICT (id) DO UPDATE SET size = excluded.size, event = excluded.event, hashes = excluded.hashes,
             mac = excluded.mac",
        );
        let head = head.bind(frontier.size()).bind(last).bind(hashes.as_slice()).bind(mark.as_slice());
        tx.run(head).await?;
        Ok(())
    }
}

/// What a tile holds already in a tree of this size.
async fn kept(tx: &mut Transaction, tile: TileId, size: u64) -> Result<Vec<u8>, ProjectError> {
    let width = tile.width(size);
    if width == 0 {
        return Ok(vec![]);
    }
    let query = Query::new("SELECT hashes FROM merkle_tiles_v1 WHERE level = $1 AND number = $2");
    let found = tx.run(query.bind(u32::from(tile.level)).bind(tile.number)).await?;
    let hashes: Vec<u8> = found.first().map_or(Ok(vec![]), |row| row.get("hashes"))?;
    if hashes.len() as u64 != width * Hash::LENGTH as u64 {
        return Err(damaged(&format!("tile {} of level {} is not whole", tile.number, tile.level)).into());
    }
    Ok(hashes)
}
