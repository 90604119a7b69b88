//! The tree that the newest signed checkpoint is of: what every proof is about.

use event_store::KeptCheckpoint;
use http_kit::Problem;
use read_models::ReadError;
use read_models::merkle_tree::{MerkleTree, TreeHead};
use schemas::field_codes;
use tlog::Hash;
use tlog::proof::{Plan, extends, includes};

use super::NotSigned;
use crate::ProjectionService;
use crate::answers::refused;

/// A tree whose beginning was signed.
pub(super) struct SignedTree<'a> {
    tree: MerkleTree<'a>,
    head: TreeHead,
    /// The newest signed checkpoint.
    pub(super) newest: KeptCheckpoint,
}

impl<'a> SignedTree<'a> {
    /// The tree of the newest checkpoint; 404 before the first.
    pub(super) async fn newest(service: &'a ProjectionService) -> Result<Self, Problem> {
        match service.notary.newest().await? {
            Some(newest) => Self::of(service, newest).await,
            None => Err(Problem::not_found()
                .detail("no checkpoint was signed yet: POST /v1/audit/checkpoint signs one")),
        }
    }

    /// The tree of a checkpoint that covers this event: of the newest one, or of one that is signed now.
    pub(super) async fn covering(service: &'a ProjectionService, position: u64) -> Result<Self, Problem> {
        match service.notary.newest().await? {
            Some(newest) if newest.checkpoint.size >= position => Self::of(service, newest).await,
            _ => Self::of(service, service.notary.sign(position).await?).await,
        }
    }

    async fn of(service: &'a ProjectionService, newest: KeptCheckpoint) -> Result<Self, Problem> {
        let head = service.notary.head().await?;
        let signed = Self { tree: service.models.merkle_tree(), head, newest };
        let checkpoint = &signed.newest.checkpoint;
        if signed.head.frontier.size() < checkpoint.size {
            return Err(NotSigned::Behind.into());
        }
        if signed.root(checkpoint.size).await? != checkpoint.root {
            let what = format!("the first {} events are not those that were signed last", checkpoint.size);
            return Err(NotSigned::Refused(what).into());
        }
        Ok(signed)
    }

    /// The number of events that were signed.
    pub(super) fn size(&self) -> u64 {
        self.newest.checkpoint.size
    }

    /// A size that a request names, or that of the newest checkpoint.
    pub(super) fn size_of(&self, name: &str, given: Option<u64>) -> Result<u64, Problem> {
        let size = given.unwrap_or_else(|| self.size());
        if (1..=self.size()).contains(&size) {
            return Ok(size);
        }
        let detail = format!("the newest checkpoint covers {} events: give 1 to {0}", self.size());
        Err(Problem::invalid_parameter(name, field_codes::OUT_OF_RANGE, detail))
    }

    /// The root of the tree of the first `size` events, which are at most those that were signed.
    pub(super) async fn root(&self, size: u64) -> Result<Hash, Problem> {
        let root = self.tree.root(size, &self.head).await.map_err(refused)?;
        root.ok_or_else(|| NotSigned::Behind.into())
    }

    /// Proves that an event is in the tree of this size. `None` if it is not: its bytes are not those that were signed.
    pub(super) async fn inclusion(
        &self,
        position: u64,
        leaf: Hash,
        size: u64,
        root: Hash,
    ) -> Result<Option<Vec<Hash>>, Problem> {
        let index = position - 1;
        let Some(plan) = Plan::inclusion(index, size) else { return Ok(None) };
        let hashes = self.hashes(&plan).await?;
        Ok(includes(&hashes, index, leaf, size, root).then_some(hashes))
    }

    /// Proves that one tree begins another.
    pub(super) async fn consistency(
        &self,
        from: (u64, Hash),
        to: (u64, Hash),
    ) -> Result<Option<Vec<Hash>>, Problem> {
        let Some(plan) = Plan::consistency(from.0, to.0) else { return Ok(None) };
        let hashes = self.hashes(&plan).await?;
        Ok(extends(&hashes, from, to).then_some(hashes))
    }

    async fn hashes(&self, plan: &Plan) -> Result<Vec<Hash>, Problem> {
        let read = async { Ok(self.tree.hashes(plan.nodes()).await?.proof(plan)?) };
        read.await.map_err(|error: ReadError| refused(error))
    }

    /// The hashes of a tile, if so many were signed.
    pub(super) async fn tile(
        &self,
        tile: tlog::tile::TileId,
        width: u64,
    ) -> Result<Option<Vec<Hash>>, Problem> {
        if tile.width(self.size()) < width {
            return Ok(None);
        }
        self.tree.tile(tile, width).await.map_err(refused)
    }
}
