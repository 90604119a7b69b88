//! The keys that sign an app's access tokens: listing and rotation.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Premise, Reads};
use domain::app::{App, AppCommand};
use domain::signing_key::{KeyStatus, SigningKey, TokenAlgorithm};
use domain::{AppId, Permission, Timestamp};
use event_store::StoreError;
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, OptionalBody, Params};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::apps::{CLAIM, refused};

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
    /// When it was published. Not known of keys from before this was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    published_at: Option<Timestamp>,
    /// From when on it signs. A next key with this signs then by itself; one without waits for a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    signs_from: Option<Timestamp>,
    /// When it stops signing. It stays published until its tokens have expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    signs_until: Option<Timestamp>,
}

/// How to rotate.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyRotation)]
pub(crate) struct RotationBody {
    /// Whether a private key may have leaked. Then the next key signs at once, even if verifiers do not know it yet, and
    /// the tokens of all earlier keys are refused from now on: clients have to refresh theirs.
    #[serde(default)]
    #[schema(value_type = bool, required = false)]
    emergency: Option<bool>,
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
/// The next key starts to sign, and a new next key is published. If the next key was published less than `key_propagation`
/// seconds ago, as after another rotation, the switch is scheduled: `signs_from` says when it happens, and a further rotation
/// until then changes nothing. The previous key stays published until its tokens have expired.
///
/// An `emergency` rotation does not wait, and retires all earlier keys. If the next key may have leaked too, rotate twice.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/keys/rotate", tag = "keys", operation_id = "rotate_signing_keys",
    request_body = Option<RotationBody>, params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The published keys as they are now", body = SigningKeyPage)))]
async fn rotate(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<OptionalBody<RotationBody>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::KeysWrite).await?;
    let OptionalBody { value: body, idempotency } = body?;
    let emergency = body.unwrap_or_default().emergency.unwrap_or(false);
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
                let rotate = AppCommand::RotateKeys { next: Box::new(next.clone()), emergency, at };
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
    let body = |key: &SigningKey| SigningKeyBody {
        kid: key.public.kid.clone(),
        alg: key.public.alg,
        status: app.status_of(key, at),
        published_at: key.published_at,
        signs_from: key.signs_from,
        signs_until: key.superseded_at,
    };
    app.published_keys(at).map(body).collect()
}

/// A key that is to sign by itself.
#[derive(Clone, Debug)]
pub struct KeySwitch {
    /// The app.
    pub app_id: AppId,
    /// The key that is to sign.
    pub kid: String,
    /// Its algorithm.
    pub alg: TokenAlgorithm,
    /// From when on.
    pub signs_from: Timestamp,
}

impl KeySwitch {
    /// The one of this app, if one is scheduled.
    pub fn of(app: &App, at: Timestamp) -> Option<Self> {
        let key = app.scheduled_key(at)?;
        let (kid, alg) = (key.public.kid.clone(), key.public.alg);
        Some(Self { app_id: app.id.clone()?, kid, alg, signs_from: key.signs_from? })
    }
}

impl CommandService {
    /// The scheduled switches of all apps, by app.
    pub async fn key_switches(&self) -> Result<Vec<KeySwitch>, StoreError> {
        let mut switches = Vec::new();
        for (claim, _) in self.repository.journal().claims(CLAIM, "").await? {
            if let Ok(app_id) = AppId::parse(claim.key) {
                let app = self.repository.load::<App>(&app_id).await?;
                switches.extend(KeySwitch::of(&app.state, self.clock.now()));
            }
        }
        switches.sort_by(|one, other| one.app_id.cmp(&other.app_id));
        Ok(switches)
    }
}
