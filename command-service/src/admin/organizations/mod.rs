//! Actions of an app's admins and API keys on its organizations: they rank above everybody in all of them.

mod change;
mod create;
mod delete;
mod members;

use std::sync::Arc;

use domain::organization::{Organization, OrganizationId};
use domain::{AppId, Permission};
use http_kit::answers::AppOrganizationBody;
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .merge(create::routes())
        .merge(change::routes())
        .merge(delete::routes())
        .merge(members::routes())
}

impl CommandService {
    /// A caller who may change the organizations of an app, and one of them: 404 if there is none.
    async fn managed(
        &self,
        app_id: &AppId,
        credentials: &Credentials,
        org_id: Uuid,
    ) -> Result<(AdminCaller, OrganizationId), Problem> {
        let caller = self.authenticator.admin(app_id, credentials, Permission::OrgsWrite).await?;
        let organization_id = OrganizationId(org_id);
        let organization = self.repository.load::<Organization>(&organization_id).await?;
        let is_there = organization.state.is_of(app_id);
        if is_there { Ok((caller, organization_id)) } else { Err(Problem::not_found()) }
    }

    /// The organization as it is now.
    async fn app_organization(&self, id: &OrganizationId) -> Result<AppOrganizationBody, Problem> {
        let now = self.repository.load::<Organization>(id).await?;
        AppOrganizationBody::of(&now.state).ok_or_else(Problem::not_found)
    }
}
