//! Queries `merkle_tree`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event_store::{StoreError, TreeKey};
use tlog::proof::{Plan, extends, roots};
use tlog::tile::TileId;
use tlog::{Frontier, Hash, Node};

use super::{TreeHead, damaged};
use crate::database::Database;
use crate::sql::Query;
use crate::store::{ReadError, ReadModels};

/// Queries of `merkle_tree`.
pub struct MerkleTree<'a> {
    database: Arc<Database>,
    key: &'a TreeKey,
}

/// Hashes of the tree as the tiles have them: nothing proves them yet.
pub struct Hashes(BTreeMap<TileId, Vec<Hash>>);

impl Hashes {
    /// The hash of a complete subtree, if its tile was read.
    pub fn get(&self, node: Node) -> Option<Hash> {
        node.hash_in(self.0.get(&node.tile())?)
    }

    /// The hashes that a proof consists of.
    pub fn proof(&self, plan: &Plan) -> Result<Vec<Hash>, StoreError> {
        plan.hashes(|node| self.get(node)).ok_or_else(|| damaged("it lacks tiles"))
    }
}

impl<'a> MerkleTree<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), key: &models.tree_key }
    }

    /// The head of the tree, if this instance wrote it.
    pub async fn head(&self) -> Result<TreeHead, ReadError> {
        Ok(TreeHead::read(&self.database.read(TreeHead::query()).await?, self.key)?)
    }

    /// Reads the tiles that these hashes are in.
    pub async fn hashes(&self, nodes: impl IntoIterator<Item = Node>) -> Result<Hashes, ReadError> {
        let tiles: BTreeSet<TileId> = nodes.into_iter().map(Node::tile).collect();
        if tiles.is_empty() {
            return Ok(Hashes(BTreeMap::new()));
        }
        let mut query = Query::new("SELECT level, number, hashes FROM merkle_tiles_v1 WHERE ");
        for (number, tile) in tiles.iter().enumerate() {
            query.push(if number == 0 { "(level = " } else { " OR (level = " });
            query.push_bind(u32::from(tile.level)).push(" AND number = ").push_bind(tile.number).push(")");
        }
        let mut found = BTreeMap::new();
        for row in self.database.read(query).await? {
            let level = u8::try_from(row.get::<i64>("level")?).map_err(|_| damaged("a level"))?;
            let tile = TileId { level, number: row.get::<i64>("number")?.cast_unsigned() };
            found.insert(tile, Hash::list(row.get("hashes")?).ok_or_else(|| damaged("a tile"))?);
        }
        Ok(Hashes(found))
    }

    /// The hashes of a tile in a tree of this size; `None` if there are not so many.
    pub async fn tile(&self, tile: TileId, width: u64) -> Result<Option<Vec<Hash>>, ReadError> {
        let query = Query::new("SELECT hashes FROM merkle_tiles_v1 WHERE level = $1 AND number = $2");
        let query = query.bind(u32::from(tile.level)).bind(tile.number);
        let Some(row) = self.database.read(query).await?.into_iter().next() else { return Ok(None) };
        let mut hashes = Hash::list(row.get("hashes")?).ok_or_else(|| damaged("a tile"))?;
        let width = usize::try_from(width).unwrap_or(usize::MAX);
        if hashes.len() < width {
            return Ok(None);
        }
        hashes.truncate(width);
        Ok(Some(hashes))
    }

    /// The root of the tree of the first `size` events, which must be a beginning of the tree with this head: that is proved
    /// before anything is answered. `None` if the tree is smaller.
    pub async fn root(&self, size: u64, head: &TreeHead) -> Result<Option<Hash>, ReadError> {
        let Some(plan) = Plan::consistency(size, head.frontier.size()) else { return Ok(None) };
        if size == head.frontier.size() {
            return Ok(Some(head.frontier.root()));
        }
        let hashes = self.hashes(roots(size).chain(plan.nodes())).await?;
        let found: Option<Vec<Hash>> = roots(size).map(|node| hashes.get(node)).collect();
        let frontier = found.and_then(|roots| Frontier::new(size, roots));
        let root = frontier.ok_or_else(|| damaged("it lacks tiles"))?.root();
        let whole = (head.frontier.size(), head.frontier.root());
        if extends(&hashes.proof(&plan)?, (size, root), whole) {
            Ok(Some(root))
        } else {
            Err(damaged("its tiles do not give its root").into())
        }
    }
}
