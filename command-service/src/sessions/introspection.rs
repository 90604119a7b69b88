//! For OAuth resource servers and clients: introspection (RFC 7662) and revocation (RFC 7009).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::app::App;
use domain::memberships::Memberships;
use domain::organization::{Organization, RolePermission};
use domain::session::{RevocationReason, Session};
use domain::user::User;
use domain::{AppId, OrganizationId, SessionId, Stream as _, Timestamp, UserId};
use event_store::Reads;
use http::StatusCode;
use http_kit::auth::{ClientCaller, InBody};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, FormOrJson};
use http_kit::limits::{RateClass, Standing};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use schemas::field_codes;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokens::org_claims::MAX_ORGS;
use tokens::{AccessClaims, OrgClaim, OrganizationKeyToken};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::callers::live::require_live;
use crate::organizations::claims::Sought;
use crate::sessions::refresh::KnownToken;

/// How API keys begin, of apps and of organizations.
const API_KEY: &str = "wwk_";

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(introspect)).routes(routes!(revoke))
}

/// A token.
#[derive(Deserialize, ToSchema)]
#[schema(as = TokenRequest)]
pub(crate) struct TokenBody {
    /// An access token, a refresh token or, for introspection, an API key of an organization.
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
    /// `Bearer` for an access token, `refresh_token` for a refresh token, `api_key` for an API key of an organization.
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
    /// The organizations that the user is a member of now, by id. Absent if they take more than 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    orgs: Option<BTreeMap<String, IntrospectedOrg>>,
    /// `true` if the organizations, or the permissions in the active one, take more than 4 KiB.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    orgs_truncated: bool,
    /// The organization of an API key of one, that an access token names, or that the session of a refresh token acts for. Absent once the user is
    /// no longer a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<Uuid>,
    /// The user's current role in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    org_role: Option<String>,
    /// What that role allows now.
    #[serde(skip_serializing_if = "Option::is_none")]
    org_permissions: Option<Vec<String>>,
    /// What an API key of an organization allows: its permissions, separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// What the user of a token is in an organization now.
#[derive(Serialize, ToSchema)]
#[schema(as = IntrospectedOrganization)]
struct IntrospectedOrg {
    /// Its name in URLs.
    slug: String,
    /// The user's role in it.
    role: String,
    /// What the role allows.
    permissions: Vec<String>,
}

/// Introspect a token (RFC 7662).
///
/// Needs an API key of the app, with any permissions, or of the platform: as a bearer token, or as the client secret of a
/// client whose id is the app's, by HTTP Basic or in the form body. Unlike verifying the signature, it detects a revoked
/// session at once, and roles, organizations and permissions are those of now.
/// An API key of an organization is introspected too: `org_id` and `scope` say what it allows. API keys of apps are never active
/// here.
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
    let found = match OrganizationKeyToken::decode(&service.tokens, &body.token) {
        Some(key) => service.look_at_key(&app_id, key).await?,
        None => service.look_at(&app_id, &body.token).await?,
    };
    let found = found.unwrap_or_default();
    Ok(described(Done::read(found), standing))
}

/// Revoke a token (RFC 7009).
///
/// Ends the session that the token belongs to. Possession of the token is enough. A client may authenticate, as for
/// introspection; wrong credentials are refused. The answer to text that is not a token is the same.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/revoke", tag = "auth", operation_id = "revoke_token",
    params(("app_id" = String, Path, description = "The app")), security((), ("api_key" = []), ("client" = [])),
    request_body(content((TokenBody = "application/x-www-form-urlencoded"), (TokenBody = "application/json"))),
    responses((status = 200, description = "The token is invalid now"),
        (status = 400, description = "`malformed_request`: an API key, which is revoked elsewhere (unsupported_token_type of RFC 7009)")))]
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
    if body.token.starts_with(API_KEY) {
        return Err(unsupported_token_type());
    }
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

/// RFC 7009 section 2.2.1. Whoever has found an API key must not believe that this has ended it.
fn unsupported_token_type() -> Problem {
    let detail = "an API key is revoked by an admin, or by an owner or admin of its organization";
    Problem::malformed_member("/token", field_codes::NOT_SUPPORTED, detail).as_oauth("unsupported_token_type")
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

    /// An API key of an organization of the app, as it is on all nodes.
    async fn look_at_key(
        &self,
        app_id: &AppId,
        key: OrganizationKeyToken,
    ) -> Result<Option<Introspection>, Problem> {
        let OrganizationKeyToken { organization_id, key_id } = key;
        let reads = self.repository.reads();
        let (app, organization) = loop {
            let app = reads.load::<App>(app_id).await?;
            let organization = reads.load::<Organization>(&organization_id).await?;
            if reads.are_current().await? {
                break (app, organization);
            }
        };
        let organization = Some(&organization.state).filter(|it| it.is_of(app_id) && !app.state.disabled);
        let known = organization.and_then(|it| it.key(key_id, self.clock.now()));
        Ok(known.map(|known| {
            let permissions: Vec<_> = known.permissions.iter().map(RolePermission::as_str).collect();
            Introspection {
                active: true,
                token_type: Some("api_key"),
                iss: Some(self.signing.issuer(app_id)),
                aud: Some(app_id.to_string()),
                client_id: Some(app_id.to_string()),
                exp: known.expires_at.map(Timestamp::as_second),
                iat: Some(known.at.as_second()),
                jti: Some(key_id.to_string()),
                org_id: Some(organization_id.0),
                scope: Some(permissions.join(" ")),
                ..Introspection::default()
            }
        }))
    }

    async fn look_at(&self, app_id: &AppId, token: &str) -> Result<Option<Introspection>, Problem> {
        let reads = self.repository.reads();
        loop {
            let found = self.look_on(&reads, app_id, token).await;
            if reads.are_current().await? {
                return found;
            }
        }
    }

    async fn look_on(
        &self,
        reads: &Reads<'_>,
        app_id: &AppId,
        token: &str,
    ) -> Result<Option<Introspection>, Problem> {
        let app = reads.load::<App>(app_id).await?;
        let now = self.clock.now();
        let known = if let Ok(claims) = self.access_tokens.verify(&app.state, token, now) {
            Known::Access(claims)
        } else {
            match self.session_of(app_id, token).await {
                Ok(known) => Known::Refresh(known),
                Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => return Ok(None),
                Err(problem) => return Err(problem),
            }
        };
        let (user_id, session_id) = known.whose();
        reads
            .fetch(&[User::stream(&user_id), Session::stream(&session_id), Memberships::stream(&user_id)])
            .await?;
        let user = reads.load::<User>(&user_id).await?;
        let session = reads.load::<Session>(&session_id).await?;
        if require_live(&app.state, &user.state, &session.state, app_id, now).is_err() {
            return Ok(None);
        }
        let Some((of_token, active)) = known.described(&session.state) else { return Ok(None) };
        let sought = Sought { user_id, listed: None, active, bytes: MAX_ORGS };
        let orgs = self.org_claims(reads, &app.state, &sought).await?;
        let active = orgs.active();
        Ok(Some(Introspection {
            active: true,
            iss: Some(self.signing.issuer(app_id)),
            sub: Some(user_id.to_string()),
            aud: Some(app_id.to_string()),
            client_id: Some(app_id.to_string()),
            sid: Some(session_id.to_string()),
            roles: Some(user.state.roles.iter().map(ToString::to_string).collect()),
            orgs: orgs.orgs().map(|orgs| orgs.iter().map(|(id, org)| (id.to_string(), org.into())).collect()),
            orgs_truncated: orgs.are_truncated(),
            org_id: active.map(|active| active.id.0),
            org_role: active.map(|active| active.role.to_string()),
            org_permissions: active.and_then(|active| active.permissions.as_deref().map(texts)),
            ..of_token
        }))
    }
}

/// A genuine token of the app.
enum Known {
    Access(Arc<AccessClaims>),
    Refresh(KnownToken),
}

impl Known {
    fn whose(&self) -> (UserId, SessionId) {
        match self {
            Self::Access(claims) => (claims.sub, claims.sid),
            Self::Refresh(known) => (known.user_id, known.token.session_id),
        }
    }

    /// What the token says of itself, and the organization that it acts for: an access token for the one that it names, a
    /// refresh token for the one that the session has chosen. `None` if it was used.
    fn described(&self, session: &Session) -> Option<(Introspection, Option<OrganizationId>)> {
        match self {
            Self::Access(claims) => {
                let described = Introspection {
                    token_type: Some("Bearer"),
                    exp: Some(claims.exp),
                    iat: Some(claims.iat),
                    jti: Some(claims.jti.clone()),
                    ..Introspection::default()
                };
                Some((described, claims.org_id))
            }
            Self::Refresh(known) if known.token.generation == session.generation => {
                let described = Introspection {
                    token_type: Some("refresh_token"),
                    exp: Some(session.expires_at.min(session.idle_expires_at).as_second()),
                    iat: Some(session.refreshed_at.as_second()),
                    ..Introspection::default()
                };
                Some((described, session.organization))
            }
            Self::Refresh(_) => None,
        }
    }
}

fn texts(permissions: &[RolePermission]) -> Vec<String> {
    permissions.iter().map(ToString::to_string).collect()
}

impl From<&OrgClaim> for IntrospectedOrg {
    fn from(claim: &OrgClaim) -> Self {
        let OrgClaim { slug, role, permissions } = claim;
        Self { slug: slug.to_string(), role: role.to_string(), permissions: texts(permissions) }
    }
}
