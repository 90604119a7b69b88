//! Signatures of witnesses that somebody else brings: a witness that this service cannot reach is asked by others.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use event_store::StoreError;
use http_kit::Problem;
use http_kit::cookies::Credentials;
use http_kit::extract::Text;
use schemas::{field_codes, problems};
use tlog::Note;
use tlog::note::Signature;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::client::{Times, verified};
use crate::ProjectionService;
use crate::proofs::plain;

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(add))
}

/// Bring signatures of witnesses for the newest checkpoint.
///
/// The body is signature lines of a signed note, as witnesses answer them: for a witness that the service does not reach itself. Each
/// must be by a configured witness and of the newest checkpoint. The answer is that checkpoint with all its signatures. Needs a
/// platform key, or one with `audit:read`.
#[utoipa::path(post, path = "/v1/audit/checkpoint/cosignatures", tag = "audit", operation_id = "add_cosignatures",
    security(("api_key" = [])),
    request_body(content = String, content_type = "text/plain",
        example = json!("\u{2014} witness.example.com/w1 m2FDGgAAAABrDTWEgi3SsQSAJ+…\n")),
    responses((status = 200, description = "The signed note", body = String, content_type = "text/plain",
        example = json!("login.example.com\n21\nLZxXyFxVGzMpL1jAT0LXSYPGlRtVGbpnBQFNbPqe5xk=\n\n\u{2014} login.example.com On8cLgEC…\n\u{2014} witness.example.com/w1 m2FDGgAAAABrDTWEgi3SsQSAJ+…\n")),
        (status = 404, description = "No checkpoint was signed yet"),
        (status = 409, description = "`checkpoint_replaced`"),
        (status = 422, description = "`not_a_cosignature`")))]
async fn add(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    body: Result<Text, Problem>,
) -> Result<Response, Problem> {
    service.authenticator.auditor(&credentials).await?;
    let Text(body) = body?;
    let malformed = || {
        Problem::malformed(
            field_codes::INVALID,
            "the body is not lines of signatures, each with its line break",
        )
    };
    let lines = body.strip_suffix('\n').ok_or_else(malformed)?.split('\n');
    let signatures = lines.map(Signature::parse).collect::<Option<Vec<_>>>().ok_or_else(malformed)?;
    let newest = service.notary.newest().await?;
    let newest = newest.ok_or_else(|| Problem::not_found().detail("no checkpoint was signed yet"))?;
    let damaged = |_| StoreError::Damaged("the signed checkpoint is no note".to_owned());
    let note: Note = newest.checkpoint.note.parse().map_err(damaged)?;
    let times = Times { from: newest.checkpoint.signed_at, until: service.clock.now() };
    // All are verified before one is kept.
    let mut cosigned = Vec::new();
    for signature in signatures {
        let key = service.witnesses.keys.iter().find(|key| key.name() == signature.name());
        let key = key.ok_or_else(|| refused(&format!("{} is not a configured witness", signature.name())))?;
        let verified = verified(key, &note, vec![signature], times);
        cosigned.push((key, verified.map_err(|why| refused(&format!("{}: {why}", key.name())))?));
    }
    for (key, signature) in cosigned {
        let (key, line) = (key.to_string(), signature.to_string());
        if !service.notary.key_store().keep_cosignature(&newest.checkpoint, &key, &line).await? {
            return Err(Problem::new(problems::CHECKPOINT_REPLACED));
        }
    }
    let kept = service.notary.newest().await?.unwrap_or(newest);
    Ok(plain(service.witnesses.note(&kept)))
}

fn refused(why: &str) -> Problem {
    Problem::new(problems::NOT_A_COSIGNATURE).detail(why.to_owned())
}
