//! A person's organizations in access tokens and introspection: the one place that reads them for it.

use std::collections::BTreeSet;

use domain::app::App;
use domain::memberships::Memberships;
use domain::organization::{Organization, OrganizationId};
use domain::role_templates::RoleTemplates;
use domain::{AppId, Stream as _, StreamId, UserId};
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
        let Some(app_id) = app.id.as_ref().filter(|_| !listed.is_empty()) else { return Ok(claims) };
        let member = MemberOf { app_id, user_id };
        let is_too_much = claims.are_too_many(listed.len());
        let active = active.filter(|organization_id| listed.contains(organization_id));
        let ids: Vec<OrganizationId> = listed.iter().copied().filter(|_| !is_too_much).collect();
        let first = active.iter().chain(ids.iter().take(TOGETHER)).map(Organization::stream);
        let streams: Vec<StreamId> = first.chain([RoleTemplates::stream(app_id)]).collect();
        reads.fetch(&streams).await?;
        let templates = reads.load::<RoleTemplates>(app_id).await?;
        if let Some(id) = active
            && let Some(claim) = member.claim(reads, &templates.state, id).await?
        {
            claims.act_for(id, &claim);
        }
        if is_too_much {
            claims.leave_out();
        }
        for (number, ids) in ids.chunks(TOGETHER).enumerate() {
            if !claims.have_room() {
                break;
            }
            if number > 0 {
                reads.fetch(&ids.iter().map(Organization::stream).collect::<Vec<_>>()).await?;
            }
            for id in ids {
                if let Some(claim) = member.claim(reads, &templates.state, *id).await? {
                    claims.add(*id, claim);
                }
            }
        }
        Ok(claims)
    }
}

/// A person who may be a member of organizations of an app.
struct MemberOf<'a> {
    app_id: &'a AppId,
    user_id: UserId,
}

impl MemberOf<'_> {
    /// What they are in this organization, if they are a member.
    async fn claim(
        &self,
        reads: &Reads<'_>,
        templates: &RoleTemplates,
        organization_id: OrganizationId,
    ) -> Result<Option<OrgClaim>, Problem> {
        let organization = reads.load::<Organization>(&organization_id).await?;
        let organization = &organization.state;
        let role = organization.role_of(self.user_id).filter(|_| organization.is_of(self.app_id));
        let permissions = |role| organization.permissions(role, templates).into_iter().flatten().cloned();
        Ok(role.zip(organization.slug.as_ref()).map(|(role, slug)| OrgClaim {
            slug: slug.clone(),
            role: role.clone(),
            permissions: permissions(role).collect(),
        }))
    }
}
