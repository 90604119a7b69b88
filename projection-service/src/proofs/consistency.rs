//! Proofs that one tree begins another.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_kit::cookies::Credentials;
use http_kit::{Params, Problem};
use schemas::field_codes;
use serde::{Deserialize, Serialize};
use tlog::Hash;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::signed_tree::SignedTree;
use crate::ProjectionService;
use crate::answers::answer;

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(consistency))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ProveConsistency {
    /// The number of events of the smaller tree.
    #[param(minimum = 1, example = 17)]
    from: u64,
    /// The number of events of the larger tree: at most, and by default, that of the newest checkpoint.
    #[param(minimum = 1)]
    to: Option<u64>,
}

/// A proof that one tree begins another (RFC 9162, section 2.1.4).
#[derive(Serialize, utoipa::ToSchema)]
struct ConsistencyProof {
    /// The number of events of the smaller tree.
    #[schema(example = 17)]
    from: u64,
    /// The number of events of the larger tree.
    #[schema(example = 21)]
    to: u64,
    /// The root of the smaller tree, in base64.
    #[schema(value_type = String)]
    from_root: Hash,
    /// The root of the larger tree, in base64.
    #[schema(value_type = String)]
    to_root: Hash,
    /// The hashes that lead from one root to the other, in base64.
    #[schema(value_type = Vec<String>)]
    hashes: Vec<Hash>,
}

/// Prove that one tree begins another.
///
/// Only of trees that a signed checkpoint covers. Needs a platform key, or one with `audit:read`.
#[utoipa::path(get, path = "/v1/audit/proof/consistency", tag = "audit", operation_id = "get_consistency_proof",
    security(("api_key" = [])), params(ProveConsistency),
    responses((status = 200, description = "The proof", body = ConsistencyProof),
        (status = 422, description = "`validation_failed`")))]
async fn consistency(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    params: Result<Params<ProveConsistency>, Problem>,
) -> Result<Response, Problem> {
    service.authenticator.auditor(&credentials).await?;
    let Params(params) = params?;
    let tree = SignedTree::newest(&service).await?;
    let to = tree.size_of("to", params.to)?;
    let from = tree.size_of("from", Some(params.from))?;
    if from > to {
        let detail = "the smaller tree is `from`";
        return Err(Problem::invalid_parameter("from", field_codes::OUT_OF_RANGE, detail));
    }
    let (from_root, to_root) = (tree.root(from).await?, tree.root(to).await?);
    let hashes = tree.consistency((from, from_root), (to, to_root)).await?;
    let hashes = hashes.ok_or_else(|| Problem::damaged("the tiles of the tree do not give its root"))?;
    Ok(answer(ConsistencyProof { from, to, from_root, to_root, hashes }))
}
