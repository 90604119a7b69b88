//! For OAuth resource servers and clients: introspection (RFC 7662) and revocation (RFC 7009).

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::AppId;
use domain::app::App;
use domain::session::{RevocationReason, Session};
use domain::user::User;
use http::StatusCode;
use http_kit::auth::{ClientCaller, InBody};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, FormOrJson};
use http_kit::limits::{RateClass, Standing};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::callers::live::require_live;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(introspect)).routes(routes!(revoke))
}

/// An access or refresh token.
#[derive(Deserialize, ToSchema)]
#[schema(as = TokenRequest)]
pub(crate) struct TokenBody {
    /// An access token or a refresh token.
    token: String,
    /// `access_token` or `refresh_token`. It is ignored: tokens identify their own type.
    #[serde(default)]
    #[expect(dead_code, reason = "the RFCs define it and allow ignoring it")]
    token_type_hint: Option<String>,
    /// The id of the app, for libraries that authenticate with `client_secret_post`.
    #[serde(default)]
    client_id: Option<String>,
    /// An API key, for the same.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password)]
    client_secret: Option<SecretString>,
}

impl TokenBody {
    fn client(&self) -> InBody<'_> {
        InBody { id: self.client_id.as_deref(), secret: self.client_secret.as_ref() }
    }
}

/// The state of a token. For one that is not active, nothing else is returned.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Introspection {
    /// Whether the token is currently valid.
    active: bool,
    /// `Bearer` for an access token, `refresh_token` for a refresh token.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// The app, as the audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    /// The app, as the client id.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// When it expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// When it was issued, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    /// The id of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    /// The user's current roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
}

/// Introspect a token (RFC 7662).
///
/// Needs an API key of the app, with any permissions, or of the platform: as a bearer token, or as the client secret of a
/// client whose id is the app's, by HTTP Basic or in the form body. Unlike verifying the signature, it detects a revoked
/// session at once.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/introspect", tag = "auth", operation_id = "introspect",
    params(("app_id" = String, Path, description = "The app")), security(("api_key" = []), ("client" = [])),
    request_body(content((TokenBody = "application/x-www-form-urlencoded"), (TokenBody = "application/json"))),
    responses((status = 200, description = "The state of the token", body = Introspection)))]
pub(crate) async fn introspect(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<FormOrJson<TokenBody>, Problem>,
) -> Result<Response, Problem> {
    let in_body = body.as_ref().map(|body| body.value.client()).unwrap_or_default();
    let client = service.authenticator.client(&app_id, &credentials, in_body).await?;
    let standing = match client {
        Some(client) => service.count_client(&client, &request)?,
        // What is left is no API key: it says what is wrong with the credentials.
        None => service.authenticator.any_key(&app_id, &credentials).await.map(|_| None)?,
    };
    let FormOrJson { value: body, .. } = body.map_err(invalid_request)?;
    let found = service.look_at(&app_id, &body.token).await?.unwrap_or_default();
    Ok(described(Done::read(found), standing))
}

/// Revoke a token (RFC 7009).
///
/// Ends the session that the token belongs to. Possession of the token is enough. A client may authenticate, as for
/// introspection; wrong credentials are refused. The answer to text that is not a token is the same.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/revoke", tag = "auth", operation_id = "revoke_token",
    params(("app_id" = String, Path, description = "The app")), security((), ("api_key" = []), ("client" = [])),
    request_body(content((TokenBody = "application/x-www-form-urlencoded"), (TokenBody = "application/json"))),
    responses((status = 200, description = "The token is invalid now")))]
pub(crate) async fn revoke(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<FormOrJson<TokenBody>, Problem>,
) -> Result<Response, Problem> {
    let in_body = body.as_ref().map(|body| body.value.client()).unwrap_or_default();
    let client = service.authenticator.client(&app_id, &credentials, in_body).await?;
    let standing = client.map(|client| service.count_client(&client, &request)).transpose()?.flatten();
    let FormOrJson { value: body, idempotency } = body.map_err(invalid_request)?;
    let app = service.authenticator.existing_app(&app_id).await?;
    let of_refresh = service.session_of(&app_id, &body.token).await;
    let found = match of_refresh {
        Ok(known) => Some((known.token.session_id, known.user_id)),
        Err(problem) if problem.status() != StatusCode::UNAUTHORIZED => return Err(problem),
        Err(_) => {
            let claims = service.access_tokens.verify(&app.state, &body.token, service.clock.now()).ok();
            claims.map(|claims| (claims.sid, claims.sub))
        }
    };
    let position = if let Some((session_id, user_id)) = found {
        let context = service.context(&request, &app_id, Actor::user(user_id), idempotency);
        service.end_session(&app_id, session_id, user_id, RevocationReason::Logout, context).await?
    } else {
        service.repository.journal().head().await?
    };
    Ok(described(Done::empty(position), standing))
}

/// RFC 6749 section 5.2.
fn invalid_request(problem: Problem) -> Problem {
    if problem.status() == StatusCode::BAD_REQUEST { problem.as_oauth("invalid_request") } else { problem }
}

fn described(mut response: Response, standing: Option<Standing>) -> Response {
    if let Some(standing) = standing {
        standing.describe(response.headers_mut());
    }
    response
}

impl CommandService {
    /// Counts a request whose API key is in the body by that key, like those with it in a header, and no longer by address.
    fn count_client(
        &self,
        client: &ClientCaller,
        request: &RequestContext,
    ) -> Result<Option<Standing>, Problem> {
        let Some(key_id) = client.key_in_body() else { return Ok(None) };
        let standing = self.limits.check_server(key_id).map_err(Problem::rate_limited)?;
        self.limits.give_back(RateClass::General, request.address);
        Ok(standing)
    }

    async fn look_at(&self, app_id: &AppId, token: &str) -> Result<Option<Introspection>, Problem> {
        let app = self.repository.load::<App>(app_id).await?;
        let now = self.clock.now();
        let (mut found, session_id, user_id, generation) =
            if let Ok(claims) = self.access_tokens.verify(&app.state, token, now) {
                let found = Introspection {
                    token_type: Some("Bearer"),
                    exp: Some(claims.exp),
                    iat: Some(claims.iat),
                    jti: Some(claims.jti.clone()),
                    ..Introspection::default()
                };
                (found, claims.sid, claims.sub, None)
            } else {
                match self.session_of(app_id, token).await {
                    Ok(known) => {
                        let token_type = Some("refresh_token");
                        let found = Introspection { token_type, ..Introspection::default() };
                        (found, known.token.session_id, known.user_id, Some(known.token.generation))
                    }
                    Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => return Ok(None),
                    Err(problem) => return Err(problem),
                }
            };
        let user = self.repository.load::<User>(&user_id).await?;
        let session = self.repository.load::<Session>(&session_id).await?;
        if require_live(&app.state, &user.state, &session.state, app_id, now).is_err() {
            return Ok(None);
        }
        if let Some(generation) = generation {
            if generation != session.state.generation {
                return Ok(None);
            }
            found.exp = Some(session.state.expires_at.min(session.state.idle_expires_at).as_second());
            found.iat = Some(session.state.refreshed_at.as_second());
        }
        Ok(Some(Introspection {
            active: true,
            iss: Some(self.signing.issuer(app_id)),
            sub: Some(user_id.to_string()),
            aud: Some(app_id.to_string()),
            client_id: Some(app_id.to_string()),
            sid: Some(session_id.to_string()),
            roles: Some(user.state.roles.iter().map(ToString::to_string).collect()),
            ..found
        }))
    }
}
