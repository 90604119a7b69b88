//! The members of an organization, as an admin of the app decides.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::UserId;
use domain::app::App;
use domain::decisions::{MayActOn, RemoveMember, SetMember};
use domain::memberships::Memberships;
use domain::organization::{Acting, Organization};
use domain::role_templates::RoleTemplates;
use domain::user::User;
use http_kit::answers::MemberBody;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::refusals::may_not_act;
use crate::organizations::members::{MemberRole, MemberSegments};
use crate::organizations::{not_organized, parse_role};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(set, remove))
}

/// Make a user a member of an app's organization, or change their role.
///
/// It holds at once. An organization whose last owner is gone gets a new one so. Address, name and picture are null in the
/// answer. Needs the permission `orgs:write`; only the platform or an admin can act on an admin of the app.
#[utoipa::path(put, path = "/v1/apps/{app_id}/admin/orgs/{org_id}/members/{user_id}", tag = "admin",
    operation_id = "set_app_organization_member",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), ("user_id" = Uuid, Path, description = "The user")),
    security(("api_key" = []), ("user" = [])), request_body = MemberRole,
    responses((status = 200, description = "The member", body = MemberBody),
        (status = 403, description = "`forbidden`, also for a user who is an admin of the app"),
        (status = 409, description = "`last_owner`, `too_many_members`, `too_many_organizations`"),
        (status = 422, description = "`validation_failed`")))]
async fn set(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(MemberSegments { org_id, user_id }): Segments<MemberSegments>,
    body: Result<Body<MemberRole>, Problem>,
) -> Result<Response, Problem> {
    let (caller, organization_id) = service.managed(&app_id, &credentials, org_id).await?;
    let Body { value: body, idempotency } = body?;
    let role = parse_role(&body.role)?;
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let user_id = UserId(user_id);
    let set = SetMember { organization_id, acting: Acting::App, user_id, role, at: context.at };
    let may_act = MayActOn { app_id: app_id.clone(), full_admin: caller.full_admin };
    let (mut reads, user) = Reads::one::<User>(&user_id);
    let app = reads.of::<App>(&app_id);
    let organization = reads.of::<Organization>(&organization_id);
    let templates = reads.of::<RoleTemplates>(&app_id);
    let memberships = reads.of::<Memberships>(&user_id);
    let decide = move |work: &mut Work| {
        may_act.decide(work.get(app), work.get(user)).map_err(may_not_act)?;
        let (user, organization, templates, memberships) =
            work.drafts((user, organization, templates, memberships));
        set.decide(user, organization, templates, memberships).map_err(not_organized)
    };
    let done = service.run_as(&caller, context, reads, decide).await?;
    let now = service.repository.load::<Organization>(&organization_id).await?;
    let member = now.state.members.get(&user_id).ok_or_else(Problem::not_found)?;
    Ok(Done::ok(done.position, MemberBody::of(user_id, member, None)))
}

/// Remove a member of an app's organization.
///
/// The last owner stays: name another one first. It holds at once. Needs the permission `orgs:write`; only the platform or an
/// admin can act on an admin of the app.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/orgs/{org_id}/members/{user_id}", tag = "admin",
    operation_id = "remove_app_organization_member",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), ("user_id" = Uuid, Path, description = "The member")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "They are no longer a member"),
        (status = 403, description = "`forbidden`, also for a user who is an admin of the app"),
        (status = 409, description = "`last_owner`")))]
async fn remove(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(MemberSegments { org_id, user_id }): Segments<MemberSegments>,
) -> Result<Response, Problem> {
    let (caller, organization_id) = service.managed(&app_id, &credentials, org_id).await?;
    let context = service.context(&request, &app_id, caller.actor.clone(), None);
    let user_id = UserId(user_id);
    let acting = Some(Acting::App);
    let remove = RemoveMember { organization_id, acting, user_id, at: context.at };
    let may_act = MayActOn { app_id: app_id.clone(), full_admin: caller.full_admin };
    let (mut reads, user) = Reads::one::<User>(&user_id);
    let app = reads.of::<App>(&app_id);
    let organization = reads.of::<Organization>(&organization_id);
    let memberships = reads.of::<Memberships>(&user_id);
    let decide = move |work: &mut Work| {
        // Who was erased is no user any more, and yet a member until this.
        if !work.get(user).erased {
            may_act.decide(work.get(app), work.get(user)).map_err(may_not_act)?;
        }
        let (user, organization, memberships) = work.drafts((user, organization, memberships));
        remove.decide(user, organization, memberships).map_err(not_organized)
    };
    let done = service.run_as(&caller, context, reads, decide).await?;
    Ok(Done::no_content(done.position))
}
