//! Receipts: an event with all that proves, offline, that it is in the log.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_kit::cookies::Credentials;
use http_kit::{Params, Problem};
use read_models::merkle_tree::{self, leaf};
use schemas::envelope::RecordedEvent;
use schemas::field_codes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tlog::Hash;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::signed_tree::SignedTree;
use crate::ProjectionService;
use crate::answers::answer;

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(receipt))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct GetReceipt {
    /// The position of the event.
    #[param(minimum = 1, example = 17)]
    position: u64,
}

/// An event, and what proves that it is in the log.
#[derive(Serialize, utoipa::ToSchema)]
struct Receipt {
    /// The position of the event. Its index in the tree is one less.
    position: u64,
    /// The event, of whose canonical form (RFC 8785) the leaf is the hash.
    #[schema(schema_with = http_kit::openapi::cloud_event)]
    event: Value,
    /// The number of events that the checkpoint covers.
    size: u64,
    /// The hashes that lead from the leaf to the root (RFC 9162, section 2.1.3), in base64.
    #[schema(value_type = Vec<String>)]
    hashes: Vec<Hash>,
    /// The signed checkpoint, with the signatures of witnesses.
    checkpoint: String,
}

/// Get a receipt of an event.
///
/// Everything that proves offline that the event is in the log: the event, a proof and the signed checkpoint that the proof leads
/// to. If none covers the event yet, one is signed. `watchword verify --receipt` checks it. Needs a platform key, or one with
/// `audit:read`.
#[utoipa::path(get, path = "/v1/audit/receipt", tag = "audit", operation_id = "get_receipt",
    security(("api_key" = [])), params(GetReceipt),
    responses((status = 200, description = "The receipt", body = Receipt),
        (status = 422, description = "`validation_failed`"),
        (status = 503, description = "`checkpoint_refused`, `projection_behind`")))]
async fn receipt(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    params: Result<Params<GetReceipt>, Problem>,
) -> Result<Response, Problem> {
    service.authenticator.auditor(&credentials).await?;
    let Params(GetReceipt { position }) = params?;
    let event = event_at(&service, position, service.journal().head().await?).await?;
    service.wait_for(merkle_tree::NAME, position).await?;
    let tree = SignedTree::covering(&service, position).await?;
    let (size, root) = (tree.size(), tree.newest.checkpoint.root);
    let hashes = tree.inclusion(position, leaf(&event, &service.origin), size, root).await?;
    let hashes = hashes.ok_or_else(|| other_bytes(position))?;
    let checkpoint = service.witnesses.note(&tree.newest);
    Ok(answer(Receipt { position, event: event.to_cloud_event(&service.origin), size, hashes, checkpoint }))
}

/// The event at a position that a request names: 422 if it is not within these.
pub(super) async fn event_at(
    service: &ProjectionService,
    position: u64,
    end: u64,
) -> Result<RecordedEvent, Problem> {
    let out_of_range = || {
        let detail = format!("give the position of an event: 1 to {end}");
        Problem::invalid_parameter("position", field_codes::OUT_OF_RANGE, detail)
    };
    if !(1..=end).contains(&position) {
        return Err(out_of_range());
    }
    let found = service.journal().read_positions(&[position]).await?.into_iter().next();
    found.ok_or_else(out_of_range)
}

/// The event that the journal has is not the one that was signed.
pub(super) fn other_bytes(position: u64) -> Problem {
    Problem::damaged(format!("event {position} is not as it was when the tree took it in"))
}
