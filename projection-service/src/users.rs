//! An app's users, as its admins and API keys see them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::access::PersonalDataSource;
use domain::user::User;
use domain::{AppId, Permission, Role, UserId};
use http_kit::cookies::Credentials;
use http_kit::problem::both;
use http_kit::{
    AfterToken, AppScope, AsOfParams, Looking, Moment, Page, Params, Problem, RequestContext, Segments,
    UserBody,
};
use read_models::users::{UserFilter, UserSort, UserStatus};
use schemas::field_codes;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ProjectionService;
use crate::answers::{answer, page_of, paging, refused, search_text, user_body};

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get_one))
}

/// Whether users are banned.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    Active,
    Banned,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
enum Sort {
    #[serde(rename = "created_at")]
    CreatedAt,
    #[default]
    #[serde(rename = "-created_at")]
    CreatedAtDescending,
    #[serde(rename = "updated_at")]
    UpdatedAt,
    #[serde(rename = "-updated_at")]
    UpdatedAtDescending,
}

type UserPage = Page<UserBody>;

/// The user in a path.
#[derive(Deserialize)]
pub(crate) struct OneUser {
    pub user_id: UserId,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListUsers {
    /// A whole email address, or prefixes of words of the name or address, without regard to case and accents.
    query: Option<String>,
    /// Only users with this role.
    role: Option<String>,
    /// Only banned or only active users.
    #[param(inline)]
    status: Option<Status>,
    /// Only users whose address is, or is not, verified.
    email_verified: Option<bool>,
    /// The order; newest first by default.
    #[param(inline)]
    sort: Option<Sort>,
    /// The maximum number of items: 1 to 200, 20 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

impl ListUsers {
    fn filter(&self) -> Result<UserFilter, Problem> {
        let bad_role = |error: domain::role::InvalidRole| {
            Problem::invalid_parameter("role", field_codes::INVALID_ROLE, error.to_string())
        };
        let query = search_text(self.query.clone());
        let role = self.role.as_deref().map(Role::parse).transpose().map_err(bad_role);
        let (query, role) = both(query, role)?;
        Ok(UserFilter {
            query,
            role,
            status: self.status.map(|status| match status {
                Status::Active => UserStatus::Active,
                Status::Banned => UserStatus::Banned,
            }),
            email_verified: self.email_verified,
            sort: match self.sort.unwrap_or_default() {
                Sort::CreatedAt => UserSort::CreatedAt,
                Sort::CreatedAtDescending => UserSort::CreatedAtDescending,
                Sort::UpdatedAt => UserSort::UpdatedAt,
                Sort::UpdatedAtDescending => UserSort::UpdatedAtDescending,
            },
        })
    }
}

/// List users.
///
/// Newest first unless `sort` says otherwise. A listed user matches all filters. With `query` or `role`, `total` is an estimate where
/// more than 5 000 users meet the rarest condition, or where a word of `query` has more than eight letters. A page may have fewer users
/// than `limit` although `next_cursor` leads on, where conditions rarely meet. Needs the permission `users:read`. The audit log shows who
/// looked.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/users", tag = "admin", operation_id = "list_users",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, ListUsers),
    responses((status = 200, description = "A page of users", body = UserPage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<ListUsers>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    let (filter, paging) = both(params.filter(), paging(params.limit, params.offset, params.cursor))?;
    service.wait_for_token(read_models::users::NAME, token).await?;
    let page = service.models.users().list(&app_id, &filter, &paging).await.map_err(refused)?;
    let looking = Looking::new(&request, &app_id, &caller.actor);
    let people = page.items.iter().map(|user| user.id);
    service.access_log.read(&looking, PersonalDataSource::UserList, people).await?;
    Ok(answer(page_of(page.map(user_body))))
}

/// Get a user.
///
/// Read from the log itself, so it is never out of date. With `as_of`, the user as of then: 404 before the account was
/// created and after it was erased. The header `As-Of-Position` names the last event that counts. Needs the permission
/// `users:read`. The audit log shows who looked.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/users/{user_id}", tag = "admin", operation_id = "get_user",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        AfterToken, AsOfParams),
    responses((status = 200, description = "The user", body = UserBody),
        (status = 422, description = "`validation_failed`")))]
async fn get_one(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(path): Segments<OneUser>,
    token: AfterToken,
    Params(AsOfParams { as_of }): Params<AsOfParams>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::UsersRead).await?;
    service.wait_for_journal(token).await?;
    let moment = service.moment(as_of).await?;
    let user = match moment {
        Some(moment) => user_as_of(&service, &app_id, path.user_id, moment).await?,
        None => existing_user(&service, &app_id, path.user_id).await?,
    };
    let looking = Looking::new(&request, &app_id, &caller.actor);
    service.access_log.read(&looking, PersonalDataSource::User, [path.user_id]).await?;
    let answer = answer(UserBody::of(&user));
    Ok(match moment {
        Some(moment) => (moment, answer).into_response(),
        None => answer,
    })
}

/// The user, decided from the log: a user of another app counts as absent.
pub(crate) async fn existing_user(
    service: &ProjectionService,
    app_id: &AppId,
    user_id: UserId,
) -> Result<User, Problem> {
    let user = service.repository.load::<User>(&user_id).await?;
    if user.state.is_of(app_id) { Ok(user.state.clone()) } else { Err(Problem::not_found()) }
}

/// The user as of a moment, with what can still be opened: who was erased since then has no personal data.
pub(crate) async fn user_as_of(
    service: &ProjectionService,
    app_id: &AppId,
    user_id: UserId,
    moment: Moment,
) -> Result<User, Problem> {
    let user = service.repository.load_as_of::<User>(&user_id, moment.position).await?;
    if user.state.is_of(app_id) { Ok(user.state) } else { Err(Problem::not_found()) }
}
