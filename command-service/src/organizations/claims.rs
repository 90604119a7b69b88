//! A person's organizations in access tokens and introspection: the one place that reads them for it.

use std::collections::BTreeSet;

use domain::app::App;
use domain::memberships::Memberships;
use domain::organization::{Organization, OrganizationId};
use domain::{Stream as _, StreamId, UserId};
use event_store::Reads;
use http_kit::cookies::longest_access_token;
use http_kit::problem::Problem;
use tokens::org_claims::{MAX_ORGS, MAX_ORGS_IN_COOKIE};
use tokens::{OrgClaim, OrgClaims};

use crate::CommandService;

/// How many organizations are read together that are not at hand.
const TOGETHER: usize = 16;

/// Whose organizations to look for, and where.
pub(crate) struct Sought<'a> {
    pub user_id: UserId,
    /// The person's list, if a decision has read it and its append has checked it. Otherwise it is read.
    pub listed: Option<&'a BTreeSet<OrganizationId>>,
    /// The organization that the session acts for.
    pub active: Option<OrganizationId>,
    /// How many bytes the organizations may take.
    pub bytes: usize,
}

/// How many bytes organizations may take in this app's access tokens.
pub(crate) fn room_in_tokens(app: &App) -> usize {
    if app.settings.cookies { MAX_ORGS_IN_COOKIE } else { MAX_ORGS }
}

impl CommandService {
    /// The most bytes of an access token of this app.
    pub(crate) fn longest_token(&self, app: &App) -> Option<usize> {
        longest_access_token(app, self.access_tokens.public_url())
    }

    /// The organizations that the person is a member of, as far as they fit. They are valid once [`Reads::are_current`] says
    /// so, unless the list was given and is empty.
    ///
    /// The list only says where to look. It is read to the end only if everything fits.
    pub(crate) async fn org_claims(
        &self,
        reads: &Reads<'_>,
        app: &App,
        sought: &Sought<'_>,
    ) -> Result<OrgClaims, Problem> {
        let Sought { user_id, listed, active, bytes } = *sought;
        let read;
        let listed = if let Some(listed) = listed {
            listed
        } else {
            read = reads.load::<Memberships>(&user_id).await?;
            &read.state.organizations
        };
        let mut claims = OrgClaims::within(bytes);
        let active = active.filter(|organization_id| listed.contains(organization_id));
        if let Some(id) = active
            && let Some(claim) = self.org_claim(reads, app, user_id, id).await?
        {
            claims.act_for(id, &claim);
        }
        if claims.are_too_many(listed.len()) {
            claims.leave_out();
            return Ok(claims);
        }
        let ids: Vec<OrganizationId> = listed.iter().copied().collect();
        for ids in ids.chunks(TOGETHER) {
            if !claims.have_room() {
                break;
            }
            let streams: Vec<StreamId> = ids.iter().map(Organization::stream).collect();
            reads.fetch(&streams).await?;
            for id in ids {
                if let Some(claim) = self.org_claim(reads, app, user_id, *id).await? {
                    claims.add(*id, claim);
                }
            }
        }
        Ok(claims)
    }

    /// What the person is in this organization, if they are a member.
    async fn org_claim(
        &self,
        reads: &Reads<'_>,
        app: &App,
        user_id: UserId,
        organization_id: OrganizationId,
    ) -> Result<Option<OrgClaim>, Problem> {
        let organization = reads.load::<Organization>(&organization_id).await?;
        let organization = &organization.state;
        let is_of_app = app.id.as_ref().is_some_and(|app_id| organization.is_of(app_id));
        let member = organization.role_of(user_id).zip(organization.slug.as_ref()).filter(|_| is_of_app);
        Ok(member.map(|(role, slug)| OrgClaim {
            slug: slug.clone(),
            role: role.clone(),
            permissions: vec![],
        }))
    }
}
