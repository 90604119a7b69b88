//! The rotation of the key that signs checkpoints of the journal.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::AppId;
use event_store::checkpoint_keys::{Asked, CheckpointKeyring, Standing};
use event_store::{StoreError, origin};
use http::header::CONTENT_TYPE;
use http_kit::answers::uncached;
use http_kit::consistency::ConsistencyToken;
use http_kit::cookies::Credentials;
use http_kit::extract::NoBody;
use http_kit::problem::{self, Problem};
use http_kit::request::RequestContext;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(rotate))
}

/// Rotate the key that signs checkpoints.
///
/// A new key signs from now on, beside the one before it, until `checkpoint.key_overlap` is over or the next rotation. The event
/// `CheckpointKeyAdded` holds it, endorsed by the key before it, so that auditors who trust that one can trust the new one. Answers
/// the public keys that sign now, one a line, the newest first. Needs a platform key.
#[utoipa::path(post, path = "/v1/audit/key/rotate", tag = "audit", operation_id = "rotate_checkpoint_key",
    security(("api_key" = [])),
    responses((status = 200, description = "The keys", body = String, content_type = "text/plain",
        example = json!("login.example.com+3a7f1c2e+AQID…\n"))))]
async fn rotate(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.platform(&credentials).await?;
    let NoBody { idempotency } = body?;
    let journal = &**service.repository.journal();
    let absent = || StoreError::Unavailable("the journal has not begun yet".into());
    let origin = origin::read(journal).await?.ok_or_else(absent)?;
    let keyring = CheckpointKeyring { instance: service.key_store.instance_key(), origin: &origin };
    let asked = Asked { metadata: request.metadata(AppId::platform(), caller.actor), idempotency };
    problem::is_writing(true);
    let rotated = keyring.rotate(journal, &*service.clock, asked).await;
    problem::is_writing(false);
    let position = rotated?;
    problem::has_written();
    let keys = keyring.published(&Standing::of(journal).await?.keys)?;
    let text = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok(uncached((ConsistencyToken(position), text, keys).into_response()))
}
