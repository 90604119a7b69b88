//! The keys that sign an app's access tokens: listing and rotation.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Premise, Reads};
use domain::app::{App, AppCommand};
use domain::signing_key::{KeyStatus, TokenAlgorithm};
use domain::{Permission, Timestamp};
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, NoBody, Params};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::apps::refused;

/// How often to retry a rotation because the app's algorithm changed meanwhile.
const MAX_LOOKS: usize = 8;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(rotate))
}

type SigningKeyPage = Page<SigningKeyBody>;

/// A signing key. Its public half is in the JWKS.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SigningKey)]
pub(crate) struct SigningKeyBody {
    /// Its RFC 7638 thumbprint, the `kid` of the tokens it signed.
    kid: String,
    /// Its signature algorithm.
    #[schema(schema_with = http_kit::openapi::token_algorithm)]
    alg: TokenAlgorithm,
    /// Its place in the rotation.
    #[schema(schema_with = http_kit::openapi::key_status)]
    status: KeyStatus,
}

/// List the signing keys of an app.
///
/// The published keys: previous, current and next, oldest first. Private keys never leave the service. Needs the permission
/// `keys:write`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/keys", tag = "keys", operation_id = "list_signing_keys",
    params(("app_id" = String, Path, description = "The app"), PageParams),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "Next, current and previous keys, oldest first", body = SigningKeyPage)))]
async fn list(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Params(page): Params<PageParams>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::KeysWrite).await?;
    let app = service.authenticator.existing_app(&app_id).await?;
    Ok(Done::read(page.of(published(&app.state, service.clock.now()))?))
}

/// Rotate the signing keys of an app.
///
/// The next key starts to sign, the current one becomes the previous one, the previous one is retired, and a new next key is
/// published.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/keys/rotate", tag = "keys", operation_id = "rotate_signing_keys",
    params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The published keys as they are now", body = SigningKeyPage)))]
async fn rotate(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::KeysWrite).await?;
    let NoBody { idempotency } = body?;
    for _ in 0..MAX_LOOKS {
        let app = service.authenticator.existing_app(&app_id).await?;
        let next = service.signing.generate(&app_id, app.state.settings.token_algorithm).await?;
        let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
        let at = context.at;
        let (reads, app_at) = Reads::one::<App>(&app_id);
        let committed = service
            .run_as(&caller, context, reads, move |work| {
                if work.get(app_at).settings.token_algorithm != next.alg {
                    return Ok(Premise::Changed);
                }
                let rotate = AppCommand::RotateKeys { next: Box::new(next.clone()), at };
                work.execute(app_at, rotate).map_err(refused)?;
                Ok(Premise::Held)
            })
            .await
            .map_err(Problem::from)?;
        if !matches!(committed.value, Some(Premise::Changed)) {
            let app = service.authenticator.existing_app(&app_id).await?;
            return Ok(Done::ok(committed.position, Page::whole(published(&app.state, service.clock.now()))));
        }
    }
    Err(Problem::overloaded("an app's algorithm kept changing"))
}

fn published(app: &App, at: Timestamp) -> Vec<SigningKeyBody> {
    app.published_keys(at)
        .map(|key| SigningKeyBody { kid: key.public.kid.clone(), alg: key.public.alg, status: key.status })
        .collect()
}
