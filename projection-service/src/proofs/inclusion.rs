//! Proofs that an event is in the tree.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_kit::cookies::Credentials;
use http_kit::{Params, Problem};
use serde::{Deserialize, Serialize};
use tlog::Hash;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::receipt::event_at;
use super::signed_tree::SignedTree;
use crate::ProjectionService;
use crate::answers::answer;

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(inclusion))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ProveInclusion {
    /// The position of the event.
    #[param(minimum = 1, example = 17)]
    position: u64,
    /// The number of events of the tree: at most, and by default, that of the newest checkpoint.
    #[param(minimum = 1)]
    size: Option<u64>,
}

/// A proof that an event is in the tree (RFC 9162, section 2.1.3).
#[derive(Serialize, utoipa::ToSchema)]
struct InclusionProof {
    /// The position of the event.
    position: u64,
    /// Its index in the tree: its position less one.
    leaf_index: u64,
    /// The number of events of the tree.
    size: u64,
    /// The hash of the event's canonical bytes (RFC 8785), in base64.
    #[schema(value_type = String)]
    leaf_hash: Hash,
    /// The hashes that lead from it to the root, in base64.
    #[schema(value_type = Vec<String>)]
    hashes: Vec<Hash>,
    /// The root of the tree, in base64.
    #[schema(value_type = String)]
    root: Hash,
}

/// Prove that an event is in the tree.
///
/// Only of trees that a signed checkpoint covers. Needs a platform key, or one with `audit:read`.
#[utoipa::path(get, path = "/v1/audit/proof/inclusion", tag = "audit", operation_id = "get_inclusion_proof",
    security(("api_key" = [])), params(ProveInclusion),
    responses((status = 200, description = "The proof", body = InclusionProof),
        (status = 422, description = "`validation_failed`")))]
async fn inclusion(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    params: Result<Params<ProveInclusion>, Problem>,
) -> Result<Response, Problem> {
    service.authenticator.auditor(&credentials).await?;
    let Params(params) = params?;
    let tree = SignedTree::newest(&service).await?;
    let size = tree.size_of("size", params.size)?;
    let event = event_at(&service, params.position, size).await?;
    let (leaf_hash, root) = (read_models::merkle_tree::leaf(&event, &service.origin), tree.root(size).await?);
    let hashes = tree.inclusion(event.position, leaf_hash, size, root).await?;
    let hashes = hashes.ok_or_else(|| super::receipt::other_bytes(event.position))?;
    let position = event.position;
    Ok(answer(InclusionProof { position, leaf_index: position - 1, size, leaf_hash, hashes, root }))
}
