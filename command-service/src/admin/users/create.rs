//! Users created by an admin.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cqrs_es::Aggregate;
use dispatcher::{Committed, DispatchError, Reads};
use domain::app::App;
use domain::decisions::{CreateUser, GrantRole, NotCreated};
use domain::password::{Password, PasswordHash};
use domain::user::User;
use domain::{Event, Permission, UserId};
use http_kit::answers::UserBody;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body};
use http_kit::problem::{Problem, both, each};
use http_kit::request::RequestContext;
use schemas::field_codes;
use schemas::problems;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::admin::users::roles::parse_role;
use crate::api::answers::Done;
use crate::api::fields;
use crate::api::refusals::{app_closed, not_granted, user_problem};
use crate::passwords::imported::{ImportedHash, NotImported};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(create))
}

/// A user created by an admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// The address. It starts unverified.
    #[schema(example = "ada@example.com")]
    email: String,
    /// A password. Without one the user cannot log in with a password until they set one.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 1024)]
    password: Option<SecretString>,
    /// Instead of a password: its hash from another system, as that system stores it: argon2 (`$argon2id$`, `$argon2i$`),
    /// bcrypt (`$2a$`, `$2b$`, `$2y$`), scrypt (`$scrypt$`), PBKDF2 (`$pbkdf2-sha256$` and the like), SHA-2 crypt (`$5$`,
    /// `$6$`), Django, Firebase (`$fbscrypt$`), better-auth, ASP.NET Core Identity (base64, versions 2 and 3), WordPress
    /// (`$wp$2y$`, `$P$`) or LDAP (`{SSHA}`, `{SSHA512}`). It is stored sealed, verified at the first login and then replaced. Needs full admin rights.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password, max_length = 512,
        example = "AQAAAAIAAYagAAAAEGtb3qchjOAn+DezQi2ufCJyNP0aiVKF2n3NeFfTvoSkNyNwrXwg/1DOF/J3Ay1qsQ==")]
    password_hash: Option<SecretString>,
    /// The name shown to people.
    #[serde(default)]
    name: Option<String>,
    /// A telephone number.
    #[serde(default)]
    phone: Option<String>,
    /// The profile picture.
    #[serde(default)]
    avatar_url: Option<String>,
    /// Initial roles; not `admin`, which needs a verified address.
    #[serde(default)]
    #[schema(value_type = BTreeSet<String>)]
    roles: Vec<String>,
}

/// Create a user.
///
/// The address starts unverified, and no mail is sent. A user without a password logs in with a magic link, or chooses a
/// password through a reset. Needs the permission `users:write`; `password_hash` needs the platform or a full
/// admin, because the password behind it cannot be judged. The operator's `import.max_hash_cost` limits what verifying it may
/// cost.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users", tag = "admin", operation_id = "create_user",
    params(("app_id" = String, Path, description = "The app")), request_body = NewUser,
    security(("api_key" = []), ("user" = [])),
    responses((status = 201, description = "The user", body = UserBody),
        (status = 403, description = "`forbidden`, also for roles and hashes that only a full admin may set"),
        (status = 409, description = "`email_taken`; `email_not_verified` for the admin role"),
        (status = 422, description = "`invalid_email`, `weak_password` or `validation_failed`")))]
async fn create(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<Body<NewUser>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::UsersWrite).await?;
    let Body { value: body, idempotency } = body?;
    let app = service.authenticator.existing_app(&app_id).await?;
    let mut context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    if let Some(done) = service.dispatcher.replayed::<(), Problem>(&mut context).await? {
        return Ok(created(&done));
    }
    let profile = fields::profile(body.name, body.phone, body.avatar_url);
    let roles = body.roles.iter().enumerate().map(|(at, role)| parse_role(role, &format!("/roles/{at}")));
    let roles = each::<_, BTreeSet<_>>(roles);
    let full_admin = caller.full_admin;
    if body.password_hash.is_some() && !full_admin {
        return Err(Problem::forbidden().detail("only the platform or a full admin may set a password hash"));
    }
    let password = match (&body.password, &body.password_hash) {
        (Some(_), Some(_)) => {
            let detail = "send either `password` or `password_hash`";
            Err(Problem::invalid("/password_hash", field_codes::INVALID, detail))
        }
        (Some(password), None) => {
            let min_length = app.state.settings.password_min_length;
            service
                .new_password(password.expose_secret(), min_length, "/password")
                .await
                .map(Secret::Password)
        }
        (None, hash) => {
            hash.as_ref().map(|hash| service.imported(hash.expose_secret())).transpose().map(Secret::Hash)
        }
    };
    let ((email, profile), (roles, password)) =
        both(both(fields::new_email(&body.email, "/email"), profile), both(roles, password))?;
    for role in &roles {
        GrantRole::require_may_handle(&app.state, role, full_admin).map_err(not_granted)?;
    }
    let password_hash = match password {
        Secret::Password(password) => Some(service.passwords.hash(&password).await?),
        Secret::Hash(hash) => hash,
    };
    let user_id = UserId(service.clock.new_id());
    let at = context.at;
    let create = CreateUser { user_id, email, password_hash, profile, roles, full_admin, at };
    let (mut reads, app) = Reads::one::<App>(&app_id);
    let user = reads.new_one::<User>(&user_id);
    let committed = service
        .run_as(&caller, context, reads, move |work| {
            let (app, user) = work.drafts((app, user));
            create.decide(app, user).map_err(not_created)
        })
        .await
        .map_err(|error: DispatchError<Problem>| match error {
            DispatchError::ClaimTaken { .. } => Problem::new(problems::EMAIL_TAKEN).field(
                "/email",
                problems::EMAIL_TAKEN,
                "this address belongs to another account",
            ),
            other => other.into(),
        })?;
    Ok(created(&committed))
}

impl CommandService {
    /// The hash of another system, if it can be verified at an acceptable cost.
    fn imported(&self, text: &str) -> Result<PasswordHash, Problem> {
        ImportedHash::accept(text, self.settings.imported_hash_cost).map_err(unwelcome_hash)
    }
}

/// The refusal of a hash.
pub(super) fn unwelcome_hash(why: NotImported) -> Problem {
    let code = match why {
        NotImported::TooCostly { .. } | NotImported::TooLarge { .. } => field_codes::OUT_OF_RANGE,
        NotImported::Unknown | NotImported::Malformed(_) => field_codes::INVALID,
    };
    Problem::invalid("/password_hash", code, why.to_string())
}

/// How the user proves who they are, if with a password at all.
enum Secret {
    Password(Password),
    Hash(Option<PasswordHash>),
}

/// The user as these events created them, not as they are now: a repetition gets the original answer.
fn created(committed: &Committed<()>) -> Response {
    let mut user = User::default();
    for event in &committed.events {
        if let Event::User(event) = event {
            user.apply(event.clone());
        }
    }
    Done::created(committed.position, UserBody::of(&user))
}

fn not_created(why: NotCreated) -> Problem {
    match why {
        NotCreated::App(closed) => app_closed(closed),
        NotCreated::User(error) => user_problem(error),
        NotCreated::Role(why) => not_granted(why),
    }
}
