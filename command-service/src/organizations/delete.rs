//! Deleting an organization.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Context, Handle, Reads, Work};
use domain::memberships::{Memberships, MembershipsCommand};
use domain::organization::{Acting, Organization, OrganizationCommand, OrganizationId};
use domain::{Timestamp, UserId};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::organizations::{OrganizationSegments, refused};

/// How many people's lists one append changes at most.
const TOGETHER: usize = 200;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(delete))
}

/// Delete an organization.
///
/// Ends all memberships. It cannot be undone, and only an owner can do it.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/orgs/{org_id}", tag = "organizations",
    operation_id = "delete_organization",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization")), security(("user" = [])),
    responses((status = 204, description = "The organization is deleted")))]
async fn delete(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let context = service.context(&request, &app_id, caller.user.actor(), None);
    let (organization_id, at) = (caller.organization_id, context.at);
    let acting = Acting::User(caller.user.user_id);
    let (reads, organization) = Reads::one::<Organization>(&organization_id);
    let done = service
        .run_live(&caller.user, context.clone(), reads, move |work: &mut Work| {
            delete_with_members(work, organization, acting, at)
        })
        .await?;
    let members = done.value.unwrap_or_default();
    let shortened = service.shorten_all_lists(organization_id, &members, &context).await;
    Ok(Done::no_content(done.position.max(shortened)))
}

/// Deletes it, and says who was a member.
pub(crate) fn delete_with_members(
    work: &mut Work,
    organization: Handle<Organization>,
    acting: Acting,
    at: Timestamp,
) -> Result<Vec<UserId>, Problem> {
    let members = work.get(organization).members.keys().copied().collect();
    work.execute(organization, OrganizationCommand::Delete { acting, at }).map_err(refused)?;
    Ok(members)
}

impl CommandService {
    /// Takes a deleted organization from the lists of those who were members, and says where the last change is. The deletion
    /// has ended all memberships, so a failure changes nothing for anybody.
    pub(crate) async fn shorten_all_lists(
        &self,
        organization_id: OrganizationId,
        members: &[UserId],
        context: &Context,
    ) -> u64 {
        let mut position = 0;
        for members in members.chunks(TOGETHER) {
            match self.shorten_lists(organization_id, members, context.clone(), context.at).await {
                Ok(last) => position = position.max(last),
                Err(problem) => {
                    tracing::warn!(
                        code = problem.code(),
                        "a deleted organization stays in its members' lists"
                    );
                    break;
                }
            }
        }
        position
    }

    async fn shorten_lists(
        &self,
        organization_id: OrganizationId,
        members: &[UserId],
        context: Context,
        at: Timestamp,
    ) -> Result<u64, Problem> {
        let mut reads = Reads::new();
        let lists: Vec<_> =
            members.iter().map(|user_id| (*user_id, reads.of::<Memberships>(user_id))).collect();
        let decide = move |work: &mut Work| {
            for (user_id, list) in &lists {
                let leave = MembershipsCommand::Leave { user_id: *user_id, organization_id, at };
                work.execute(*list, leave).map_err(Problem::internal)?;
            }
            Ok::<_, Problem>(())
        };
        Ok(self.dispatcher.run(context, reads, decide).await?.position)
    }
}
