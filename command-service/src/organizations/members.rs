//! The members of an organization.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::UserId;
use domain::decisions::{RemoveMember, SetMember};
use domain::memberships::Memberships;
use domain::organization::{Acting, Organization};
use domain::role_templates::RoleTemplates;
use domain::user::User;
use event_store::Loaded;
use http_kit::Page;
use http_kit::answers::MemberBody;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Params, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::organizations::{OrganizationSegments, not_organized, parse_role};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(set, remove))
}

type OrganizationMemberPage = Page<MemberBody>;

/// The role of a member.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberRole {
    /// `owner`, `admin`, `member`, or a role of the organization or of the app.
    pub role: String,
}

#[derive(Deserialize)]
pub(crate) struct MemberSegments {
    pub org_id: Uuid,
    pub user_id: Uuid,
}

/// List the members of an organization.
///
/// For its members, who see one another's name, picture and address. Read from the log itself, so it is never out of date.
#[utoipa::path(get, path = "/v1/apps/{app_id}/orgs/{org_id}/members", tag = "organizations",
    operation_id = "list_organization_members",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), PageParams), security(("user" = [])),
    responses((status = 200, description = "A page of members", body = OrganizationMemberPage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let members = caller.organization.state.members.iter().collect();
    let page = params.of(members)?;
    let users = service.users(page.items.iter().map(|(user_id, _)| **user_id)).await?;
    let bodies = page.items.iter().zip(&users);
    let bodies = bodies.map(|((user_id, member), user)| MemberBody::of(**user_id, member, Some(&user.state)));
    let bodies = bodies.collect();
    Ok(Done::read(page.with(bodies)))
}

/// Change the role of a member.
///
/// Needs the role `admin` or `owner`. Nobody changes the role of a member who ranks higher, or gives a role above their own;
/// the last owner stays. It holds at once. Others become members by an invitation.
#[utoipa::path(put, path = "/v1/apps/{app_id}/orgs/{org_id}/members/{user_id}", tag = "organizations",
    operation_id = "change_organization_member",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), ("user_id" = Uuid, Path, description = "The member")),
    security(("user" = [])), request_body = MemberRole,
    responses((status = 200, description = "The member", body = MemberBody),
        (status = 403, description = "`forbidden`: the caller's role does not allow it"),
        (status = 409, description = "`last_owner`"),
        (status = 422, description = "`validation_failed`")))]
async fn set(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(MemberSegments { org_id, user_id }): Segments<MemberSegments>,
    body: Result<Body<MemberRole>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let Body { value: body, idempotency } = body?;
    let role = parse_role(&body.role)?;
    let context = service.context(&request, &app_id, caller.user.actor(), idempotency);
    let (organization_id, user_id) = (caller.organization_id, UserId(user_id));
    let acting = Acting::User(caller.user.user_id);
    let set = SetMember { organization_id, acting, user_id, role, at: context.at };
    let (mut reads, user) = Reads::one::<User>(&user_id);
    let organization = reads.of::<Organization>(&organization_id);
    let templates = reads.of::<RoleTemplates>(&app_id);
    let memberships = reads.of::<Memberships>(&user_id);
    let decide = move |work: &mut Work| {
        let (user, organization, templates, memberships) =
            work.drafts((user, organization, templates, memberships));
        set.decide(user, organization, templates, memberships).map_err(not_organized)?;
        let member = organization.members.get(&user_id).ok_or_else(Problem::not_found)?;
        Ok(MemberBody::of(user_id, member, Some(user)))
    };
    let done = service.run_live(&caller.user, context, reads, decide).await?;
    let body = match done.value {
        Some(body) => body,
        None => service.member_now(&caller.organization_id, user_id).await?,
    };
    Ok(Done::ok(done.position, body))
}

/// Remove a member, or leave the organization.
///
/// Everybody may leave; removing others needs the role `admin` or `owner`, and theirs must not be higher. The last owner
/// stays. It holds at once.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/orgs/{org_id}/members/{user_id}", tag = "organizations",
    operation_id = "remove_organization_member",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), ("user_id" = Uuid, Path, description = "The member")),
    security(("user" = [])),
    responses((status = 204, description = "They are no longer a member"),
        (status = 403, description = "`forbidden`: the caller's role does not allow it"),
        (status = 409, description = "`last_owner`")))]
async fn remove(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(MemberSegments { org_id, user_id }): Segments<MemberSegments>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let context = service.context(&request, &app_id, caller.user.actor(), None);
    let (organization_id, user_id) = (caller.organization_id, UserId(user_id));
    let acting = Some(Acting::User(caller.user.user_id));
    let remove = RemoveMember { organization_id, acting, user_id, at: context.at };
    let (mut reads, user) = Reads::one::<User>(&user_id);
    let organization = reads.of::<Organization>(&organization_id);
    let memberships = reads.of::<Memberships>(&user_id);
    let decide = move |work: &mut Work| {
        let (user, organization, memberships) = work.drafts((user, organization, memberships));
        remove.decide(user, organization, memberships).map_err(not_organized)
    };
    let done = service.run_live(&caller.user, context, reads, decide).await?;
    Ok(Done::no_content(done.position))
}

impl CommandService {
    async fn member_now(
        &self,
        organization_id: &domain::OrganizationId,
        user_id: UserId,
    ) -> Result<MemberBody, Problem> {
        let organization = self.repository.load::<Organization>(organization_id).await?;
        let member = organization.state.members.get(&user_id).ok_or_else(Problem::not_found)?;
        let user = self.repository.load::<User>(&user_id).await?;
        Ok(MemberBody::of(user_id, member, Some(&user.state)))
    }

    /// These users, as they are now.
    async fn users(
        &self,
        ids: impl Iterator<Item = UserId> + Clone,
    ) -> Result<Vec<Arc<Loaded<User>>>, Problem> {
        let reads = self.repository.reads();
        loop {
            let mut users = Vec::new();
            for user_id in ids.clone() {
                users.push(reads.load::<User>(&user_id).await?);
            }
            if reads.are_current().await? {
                return Ok(users);
            }
        }
    }
}
