//! Users in bulk, from a list that says of each what another system knows of them.

mod hash;
pub(crate) mod lines;
mod memberships;
mod run;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::{AppId, Permission};
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Lines, Params, Segments, UnreadLines};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::admin::users::roles::OPENS;
use crate::api::answers::Done;
use crate::imports::{Begun, Import, ImportState, LineError};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(import)).routes(routes!(show))
}

/// The longest body, in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// How to import.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImportParams {
    /// Whether lines are only checked: nothing is imported.
    #[serde(default)]
    dry_run: bool,
}

/// An import that has begun.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserImportBegun {
    /// The import, for `GET …/import/{import_id}`.
    import_id: Uuid,
}

/// How far an import is, and what became of its lines.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserImport {
    /// The state.
    state: ImportState,
    /// Whether lines are only checked. Then `imported` counts those that would be.
    dry_run: bool,
    /// Lines that were looked at.
    lines: u64,
    /// People who were imported.
    imported: u64,
    /// People who were there already, from an earlier import of the same line.
    skipped: u64,
    /// Lines that were not imported, as `errors` says.
    failed: u64,
    /// Imported people with the app's `admin_role`.
    admins: u64,
    /// What that role opens, if somebody has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "the app's admin routes: its users, keys and settings")]
    opens: Option<&'static str>,
    /// What is wrong with lines: the first 1000 errors.
    errors: Vec<LineError>,
}

/// Import users.
///
/// The body is NDJSON, a person a line: `{id?, external_id?, email, email_verified, name?, phone?, avatar_url?, roles?,
/// created_at?, password_hash?, banned?, orgs?: [{slug, role}]}`, at most 64 KiB a line and 16 MiB in all. A longer list is sent in parts, as `watchword
/// users import` does. `password_hash` is a text as the other system stores it, or an object: `{algorithm, hash}` for `argon2`,
/// `bcrypt` and `sha-crypt`; `{algorithm, salt, iterations, hash}` for `pbkdf2-sha1`, `pbkdf2-sha256` and `pbkdf2-sha512`;
/// `{algorithm, salt, n, r, p, hash}` for `scrypt`; `{algorithm, salt, hash}` for `firebase-scrypt`, whose parameters are in a first
/// line `{firebase_hash_config: {signer_key, salt_separator, rounds, mem_cost}}`. Binary values are in base64. The operator's
/// `import.max_hash_cost` limits what verifying a hash may cost.
///
/// The answer comes before the lines are imported. A line that is wrong is reported, and the others are imported. A person's id
/// follows from `id`, `external_id` or else the address. So a list can be sent again, also after it was cut off: whoever is there
/// already is skipped, with their memberships. Organizations must be there before. A person who was erased since does not come back. Admins of the app need a verified address, and choose a
/// new password. Needs the platform or a full admin.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/import", tag = "admin", operation_id = "import_users",
    params(("app_id" = String, Path, description = "The app"), ImportParams),
    request_body(content = String, content_type = "application/x-ndjson", example = "{\"email\":\"ada@example.com\",\"email_verified\":true}\n"),
    security(("api_key" = []), ("user" = [])),
    responses((status = 202, description = "The import has begun", body = UserImportBegun),
        (status = 403, description = "`forbidden`"),
        (status = 413, description = "`payload_too_large`"),
        (status = 503, description = "`overloaded`: as many imports as the operator allows (`import.at_once`) are running")))]
async fn import(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    params: Result<Params<ImportParams>, Problem>,
    body: UnreadLines,
) -> Result<Response, Problem> {
    let caller = importer(&service, &app_id, &credentials).await?;
    let app = service.authenticator.existing_app(&app_id).await?;
    let Params(ImportParams { dry_run }) = params?;
    let Lines { bytes, idempotency } = body.read(MAX_BODY).await?;
    let context = service.context(&request, &app_id, caller.actor.clone(), None);
    let import_id = service.clock.new_id();
    let import = match service.imports.begin(import_id, app_id, dry_run, idempotency)? {
        Begun::Before(import) => import,
        Begun::New(import) => {
            run::start(&service, caller, context, app.state.created_at, Arc::clone(&import), bytes);
            import
        }
    };
    Ok(Done::accepted(UserImportBegun { import_id: import.id }))
}

/// Get an import of users.
///
/// Imports are remembered by the node that has taken them, until it stops or has taken 64 others. A list whose import is not
/// known any more can be sent again. Needs the platform or a full admin.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/users/import/{import_id}", tag = "admin",
    operation_id = "get_user_import",
    params(("app_id" = String, Path, description = "The app"), ("import_id" = Uuid, Path, description = "The import")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "How far it is", body = UserImport),
        (status = 403, description = "`forbidden`")))]
async fn show(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    Segments(ImportSegments { app_id, import_id }): Segments<ImportSegments>,
) -> Result<Response, Problem> {
    importer(&service, &app_id, &credentials).await?;
    let import = service.imports.find(&app_id, import_id).ok_or_else(Problem::not_found)?;
    Ok(Done::read(UserImport::of(&import)))
}

#[derive(Deserialize)]
struct ImportSegments {
    app_id: AppId,
    import_id: Uuid,
}

/// A caller who may import: nobody can judge the passwords behind hashes, and roles and proofs are taken as they are told.
async fn importer(
    service: &CommandService,
    app_id: &AppId,
    credentials: &Credentials,
) -> Result<AdminCaller, Problem> {
    let caller = service.authenticator.admin(app_id, credentials, Permission::UsersWrite).await?;
    if caller.full_admin {
        return Ok(caller);
    }
    Err(Problem::forbidden().detail("only the platform or a full admin may import users"))
}

impl UserImport {
    fn of(import: &Import) -> Self {
        let tally = import.tally();
        Self {
            state: tally.state,
            dry_run: import.dry_run,
            lines: tally.lines,
            imported: tally.imported,
            skipped: tally.skipped,
            failed: tally.failed,
            admins: tally.admins,
            opens: (tally.admins > 0).then_some(OPENS),
            errors: tally.errors.clone(),
        }
    }
}
