//! The organizations of a user.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::memberships::Memberships;
use domain::organization::Organization;
use domain::{AppId, Permission, Timestamp, UserId};
use http_kit::cookies::Credentials;
use http_kit::{AfterToken, AppScope, AsOf, Page, Params, Problem, Segments};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::ProjectionService;
use crate::answers::{answer, cut, paging};
use crate::users::{OneUser, existing_user, user_as_of};

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// An organization that a user is a member of.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = UserOrganization)]
struct UserOrganizationBody {
    /// The organization.
    id: Uuid,
    /// Its name shown to people.
    name: String,
    /// Its name in URLs.
    slug: String,
    /// The user's role in it.
    role: String,
    /// Since when they are a member.
    #[schema(value_type = String, format = DateTime)]
    joined_at: Timestamp,
}

type UserOrganizationPage = Page<UserOrganizationBody>;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListUserOrganizations {
    /// The maximum number of items: 1 to 200, 20 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// A time, or a position of the log: the organizations as of then.
    #[param(value_type = Option<String>, example = "2026-01-31T09:30:00Z")]
    as_of: Option<AsOf>,
}

/// List a user's organizations.
///
/// Oldest organization first. Read from the log itself, so it is never out of date. With `as_of`, those the user was in then:
/// the header `As-Of-Position` names the last event that counts. Needs the permission `orgs:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/users/{user_id}/orgs", tag = "admin",
    operation_id = "list_user_organizations", security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        AfterToken, ListUserOrganizations),
    responses((status = 200, description = "A page of organizations", body = UserOrganizationPage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(OneUser { user_id }): Segments<OneUser>,
    token: AfterToken,
    Params(params): Params<ListUserOrganizations>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::OrgsRead).await?;
    let paging = paging(params.limit, params.offset, params.cursor)?;
    service.wait_for_journal(token).await?;
    let moment = service.moment(params.as_of).await?;
    let Some(moment) = moment else {
        existing_user(&service, &app_id, user_id).await?;
        return Ok(answer(cut(now(&service, &app_id, user_id).await?, &paging)?));
    };
    user_as_of(&service, &app_id, user_id, moment).await?;
    let position = moment.position;
    let memberships = service.repository.load_as_of::<Memberships>(&user_id, position).await?.state;
    let ids: Vec<_> = memberships.organizations.into_iter().collect();
    let organizations = service.repository.load_all_as_of::<Organization>(&ids, position).await?;
    let bodies = organizations.iter().filter_map(|it| body(&app_id, &it.state, user_id)).collect();
    Ok((moment, answer(cut(bodies, &paging)?)).into_response())
}

async fn now(
    service: &ProjectionService,
    app_id: &AppId,
    user_id: UserId,
) -> Result<Vec<UserOrganizationBody>, Problem> {
    let reads = service.repository.reads();
    loop {
        let memberships = reads.load::<Memberships>(&user_id).await?;
        let mut bodies = Vec::with_capacity(memberships.state.organizations.len());
        for id in &memberships.state.organizations {
            let organization = reads.load::<Organization>(id).await?;
            bodies.extend(body(app_id, &organization.state, user_id));
        }
        if reads.are_current().await? {
            return Ok(bodies);
        }
    }
}

/// What the organization says of the user: the user's list only says where to look.
fn body(app_id: &AppId, organization: &Organization, user_id: UserId) -> Option<UserOrganizationBody> {
    let member = organization.members.get(&user_id).filter(|_| organization.is_of(app_id))?;
    Some(UserOrganizationBody {
        id: organization.id?.0,
        name: organization.name.clone(),
        slug: organization.slug.as_ref()?.to_string(),
        role: member.role.to_string(),
        joined_at: member.joined_at,
    })
}
