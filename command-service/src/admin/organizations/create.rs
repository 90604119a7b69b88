//! Organizations created by an admin of the app, for one of its users.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Committed, Context, DispatchError, Reads, Work};
use domain::app::App;
use domain::decisions::{CreateOrganization, MayActOn};
use domain::memberships::Memberships;
use domain::organization::{Organization, OrganizationId};
use domain::user::User;
use domain::{AppId, Permission, UserId};
use http_kit::answers::AppOrganizationBody;
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::refusals::may_not_act;
use crate::apps::check_name;
use crate::organizations::create::{created_organization, parse_slug, slug_problem, slugs};
use crate::organizations::not_organized;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(create))
}

/// A new organization of a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAppOrganization {
    /// The name shown to people.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Its name in URLs. If absent, one is made of the name.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 40, pattern = "^[a-z0-9](-?[a-z0-9])*$")]
    slug: Option<String>,
    /// Its owner: a user of the app.
    owner_id: Uuid,
}

/// Create an organization for a user.
///
/// The user is its owner. Its name is a label that everybody who works with its events can read, so it should say nothing
/// personal. Needs the permission `orgs:write`; only the platform or an admin can make an admin of the app its owner.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/orgs", tag = "admin", operation_id = "create_app_organization",
    params(("app_id" = String, Path, description = "The app")), security(("api_key" = []), ("user" = [])),
    request_body = NewAppOrganization,
    responses((status = 201, description = "The organization", body = AppOrganizationBody),
        (status = 403, description = "`forbidden`, also for an owner who is an admin of the app"),
        (status = 409, description = "`slug_taken`, `too_many_organizations`"),
        (status = 422, description = "`validation_failed`, also if the app has no such user")))]
async fn create(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<Body<NewAppOrganization>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::OrgsWrite).await?;
    let Body { value: body, idempotency } = body?;
    let (name, slug) = both(check_name(&body.name), body.slug.map(|slug| parse_slug(&slug)).transpose())?;
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let organization_id = OrganizationId(service.clock.new_id());
    let (owner, at) = (UserId(body.owner_id), context.at);
    let (slug, otherwise) = slugs(slug, &name, organization_id);
    let create = CreateOrganization { organization_id, name, slug, owner, at };
    let mut done = service.create_organization_for(&caller, &app_id, context.clone(), create.clone()).await;
    if let (Err(DispatchError::ClaimTaken { .. }), Some(slug)) = (&done, otherwise) {
        let create = CreateOrganization { slug, ..create };
        done = service.create_organization_for(&caller, &app_id, context, create).await;
    }
    let done = done.map_err(slug_problem)?;
    let body = AppOrganizationBody::of(&created_organization(&done))
        .ok_or_else(|| Problem::internal("no event says that the organization was created"))?;
    Ok(Done::created(done.position, body))
}

impl CommandService {
    async fn create_organization_for(
        &self,
        caller: &AdminCaller,
        app_id: &AppId,
        context: Context,
        create: CreateOrganization,
    ) -> Result<Committed<()>, DispatchError<Problem>> {
        let may_act = MayActOn { app_id: app_id.clone(), full_admin: caller.full_admin };
        let (mut reads, app) = Reads::one::<App>(app_id);
        let user = reads.of::<User>(&create.owner);
        let organization = reads.new_one::<Organization>(&create.organization_id);
        let memberships = reads.of::<Memberships>(&create.owner);
        let decide = move |work: &mut Work| {
            let (app, user, organization, memberships) = work.drafts((app, user, organization, memberships));
            create.decide_for(app, user, organization, memberships).map_err(not_organized)?;
            may_act.decide(app, user).map_err(may_not_act)
        };
        self.run_as(caller, context, reads, decide).await
    }
}
