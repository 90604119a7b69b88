//! Finds an organization by its slug.

use domain::AppId;
use domain::organization::{Organization, OrganizationId, Slug};
use event_store::lookup::slug_claim;
use http_kit::problem::Problem;

use crate::CommandService;

impl CommandService {
    /// The organization of the app that has this slug. The claim can be forged by anybody who can write to the store: it counts
    /// only if the organization's own events say that the slug is its own.
    pub(crate) async fn organization_of_slug(
        &self,
        app_id: &AppId,
        slug: &Slug,
    ) -> Result<Option<OrganizationId>, Problem> {
        let owner = self.repository.journal().claim_owner(&slug_claim(app_id, slug)).await?;
        let Some(organization_id) = owner.and_then(|stream| stream.uuid()).map(OrganizationId) else {
            return Ok(None);
        };
        let organization = self.repository.load::<Organization>(&organization_id).await?;
        let is_its_own = organization.state.is_of(app_id) && organization.state.slug.as_ref() == Some(slug);
        Ok(is_its_own.then_some(organization_id))
    }
}
