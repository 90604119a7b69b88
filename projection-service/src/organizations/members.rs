//! The members of an organization, as they are or as they were.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::access::PersonalDataSource;
use domain::organization::{Member, Organization};
use domain::user::User;
use domain::{OrganizationId, Permission, Role, UserId};
use http_kit::answers::MemberBody;
use http_kit::cookies::Credentials;
use http_kit::problem::both;
use http_kit::{
    AfterToken, AppScope, AsOf, Looking, Moment, Page, Params, Problem, RequestContext, Segments,
};
use read_models::Paging;
use read_models::members::{MemberFilter, MemberSort};
use schemas::field_codes;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{OneOrganization, as_of, existing};
use crate::ProjectionService;
use crate::answers::{answer, cut, paging, refused};

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
enum Sort {
    #[default]
    #[serde(rename = "joined_at")]
    JoinedAt,
    #[serde(rename = "-joined_at")]
    JoinedAtDescending,
}

type OrganizationMemberPage = Page<MemberBody>;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListMembers {
    /// Only members with this role.
    role: Option<String>,
    /// The order; longest a member first by default.
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
    /// A time, or a position of the log: the members as of then.
    #[param(value_type = Option<String>, example = "2026-01-31T09:30:00Z")]
    as_of: Option<AsOf>,
}

impl ListMembers {
    fn filter(&self) -> Result<MemberFilter, Problem> {
        let bad_role = |error: domain::role::InvalidRole| {
            Problem::invalid_parameter("role", field_codes::INVALID_ROLE, error.to_string())
        };
        let sort = match self.sort.unwrap_or_default() {
            Sort::JoinedAt => MemberSort::JoinedAt,
            Sort::JoinedAtDescending => MemberSort::JoinedAtDescending,
        };
        let role = self.role.as_deref().map(Role::parse).transpose().map_err(bad_role)?;
        Ok(MemberFilter { role, sort })
    }
}

/// List the members of an app's organization.
///
/// Whoever is no longer a member is not shown. With `as_of`, the members as of then: the header `As-Of-Position` names the
/// last event that counts. Needs the permission `orgs:read`; addresses, names and pictures need `users:read` too, and are
/// null without it. The audit log shows who looked at those.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/orgs/{org_id}/members", tag = "admin",
    operation_id = "list_app_organization_members", security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), AfterToken, ListMembers),
    responses((status = 200, description = "A page of members", body = OrganizationMemberPage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<ProjectionService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(OneOrganization { org_id }): Segments<OneOrganization>,
    token: AfterToken,
    Params(params): Params<ListMembers>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::OrgsRead).await?;
    let paging = paging(params.limit, params.offset, params.cursor.clone());
    let (filter, paging) = both(params.filter(), paging)?;
    let id = OrganizationId(org_id);
    if params.as_of.is_some() {
        service.wait_for_journal(token).await?;
    }
    let moment = service.moment(params.as_of).await?;
    let page = if let Some(moment) = moment {
        let organization = as_of(&service, &app_id, id, moment).await?;
        cut(chosen(&organization, &filter), &paging)?
    } else {
        let organization = existing(&service, &app_id, id).await?;
        service.wait_for_token(read_models::members::NAME, token).await?;
        now(&service, id, &organization.state, &filter, &paging).await?
    };
    let ids: Vec<UserId> = page.items.iter().map(|(user_id, _)| *user_id).collect();
    let people = if caller.may(Permission::UsersRead) {
        let looking = Looking::new(&request, &app_id, &caller.actor);
        service.access_log.read(&looking, PersonalDataSource::UserList, ids.iter().copied()).await?;
        accounts(&service, &ids, moment).await?
    } else {
        vec![]
    };
    let bodies = page.items.iter().enumerate();
    let bodies = bodies.map(|(n, (user_id, member))| MemberBody::of(*user_id, member, people.get(n)));
    let bodies = bodies.collect();
    let answer = answer(page.with(bodies));
    Ok(match moment {
        Some(moment) => (moment, answer).into_response(),
        None => answer,
    })
}

/// The read model lists the members; the organization itself decides who is one, however far behind the read model is.
async fn now(
    service: &ProjectionService,
    id: OrganizationId,
    organization: &Organization,
    filter: &MemberFilter,
    paging: &Paging,
) -> Result<Page<(UserId, Member)>, Problem> {
    let page = service.models.members().list(id, filter, paging).await.map_err(refused)?;
    let listed = page.items.len();
    let is_chosen = |member: &&Member| filter.role.as_ref().is_none_or(|role| *role == member.role);
    let member = |user_id| organization.members.get(&user_id).filter(is_chosen).cloned();
    let items = page.items.into_iter();
    let items: Vec<_> = items.filter_map(|row| Some((row.user_id, member(row.user_id)?))).collect();
    let total = page.total.saturating_sub((listed - items.len()) as u64);
    Ok(Page { items, total, next_cursor: page.next_cursor })
}

/// The members of an organization that a filter chooses, in its order.
fn chosen(organization: &Organization, filter: &MemberFilter) -> Vec<(UserId, Member)> {
    let members = organization.members.iter().map(|(user_id, member)| (*user_id, member.clone()));
    let mut members: Vec<_> = match &filter.role {
        Some(role) => members.filter(|(_, member)| member.role == *role).collect(),
        None => members.collect(),
    };
    members.sort_by_key(|(user_id, member)| (member.joined_at, *user_id));
    if filter.sort == MemberSort::JoinedAtDescending {
        members.reverse();
    }
    members
}

/// The accounts of these people, in their order.
async fn accounts(
    service: &ProjectionService,
    ids: &[UserId],
    moment: Option<Moment>,
) -> Result<Vec<User>, Problem> {
    if let Some(moment) = moment {
        let people = service.repository.load_all_as_of::<User>(ids, moment.position).await?;
        return Ok(people.into_iter().map(|person| person.state).collect());
    }
    let mut people = Vec::with_capacity(ids.len());
    for id in ids {
        people.push(service.repository.load::<User>(id).await?.state.clone());
    }
    Ok(people)
}
