//! Members who make a request, and the organizations of a person, as they are on all nodes.

use std::sync::Arc;

use dispatcher::{Committed, Context, DispatchError, Reads, Work};
use domain::memberships::Memberships;
use domain::organization::{Organization, OrganizationId};
use domain::{AppId, UserId};
use event_store::Loaded;
use http_kit::auth::UserCaller;
use http_kit::cookies::Credentials;
use http_kit::problem::Problem;
use uuid::Uuid;

use crate::CommandService;
use crate::callers::live::LiveCaller;

/// A user who is a member of the organization of the request.
pub(crate) struct MemberCaller {
    pub user: UserCaller,
    pub organization_id: OrganizationId,
    /// As it was when the request arrived. A decision reads it again.
    pub organization: Arc<Loaded<Organization>>,
}

impl CommandService {
    /// The caller, if they are a member; 404 for everybody else.
    pub(crate) async fn member_of(
        &self,
        app_id: &AppId,
        credentials: &Credentials,
        org_id: Uuid,
    ) -> Result<MemberCaller, Problem> {
        let organization_id = OrganizationId(org_id);
        let reads = self.repository.reads();
        let found = async || {
            let user = self.authenticator.user_on(&reads, app_id, credentials).await?;
            let organization = reads.load::<Organization>(&organization_id).await?;
            let state = &organization.state;
            if state.is_of(app_id) && state.role_of(user.user_id).is_some() {
                Ok(MemberCaller { user, organization_id, organization })
            } else {
                Err(Problem::not_found())
            }
        };
        loop {
            let found = found().await;
            if reads.are_current().await? {
                return found;
            }
        }
    }

    /// The organizations that a user of the app is a member of, by id.
    pub(crate) async fn organizations_of(
        &self,
        app_id: &AppId,
        user_id: UserId,
    ) -> Result<Vec<Arc<Loaded<Organization>>>, Problem> {
        let reads = self.repository.reads();
        loop {
            let memberships = reads.load::<Memberships>(&user_id).await?;
            let mut organizations = Vec::with_capacity(memberships.state.organizations.len());
            for organization_id in &memberships.state.organizations {
                let organization = reads.load::<Organization>(organization_id).await?;
                // The list only says where to look.
                if organization.state.is_of(app_id) && organization.state.role_of(user_id).is_some() {
                    organizations.push(organization);
                }
            }
            if reads.are_current().await? {
                return Ok(organizations);
            }
        }
    }

    /// Runs a decision of a user whose session is live when it is made.
    pub(crate) async fn run_live<T: Send + 'static>(
        &self,
        caller: &UserCaller,
        context: Context,
        mut reads: Reads,
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, DispatchError<Problem>> {
        let (live, at) = (LiveCaller::read(caller, &mut reads), context.at);
        let decide = move |work: &mut Work| {
            live.require(work, at)?;
            decide(work)
        };
        self.dispatcher.run(context, reads, decide).await
    }
}
