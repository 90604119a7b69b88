//! Invitations whose token was presented.

use dispatcher::{Handle, Reads, Work};
use domain::app::App;
use domain::decisions::InviterNow;
use domain::organization::Organization;
use domain::role_templates::RoleTemplates;
use domain::user::User;
use domain::{AppId, Email, InvitationId, OrganizationId, UserId};
use http_kit::problem::Problem;
use tokens::InvitationToken;

use crate::CommandService;
use crate::api::refusals::dead_token;

/// An invitation whose token was presented. A decision still asks whether it holds.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    app_id: AppId,
    pub organization_id: OrganizationId,
    pub invitation_id: InvitationId,
    /// The address that it is for; `None` once its owner was erased.
    pub address: Option<Email>,
    inviter: Option<UserId>,
}

/// What a decision looks at to see whether an invitation holds.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub organization: Handle<Organization>,
    inviter: Option<Handle<User>>,
    platform: Handle<App>,
    templates: Handle<RoleTemplates>,
}

impl Presented {
    pub fn read(&self, reads: &mut Reads) -> Shown {
        Shown {
            organization: reads.of(&self.organization_id),
            inviter: self.inviter.map(|inviter| reads.of(&inviter)),
            platform: reads.of(&AppId::platform()),
            templates: reads.of(&self.app_id),
        }
    }
}

impl Shown {
    /// Whoever made it, as they are now.
    pub fn inviter(self, work: &Work) -> InviterNow<'_> {
        InviterNow {
            user: self.inviter.map(|inviter| work.get(inviter)),
            platform: work.get(self.platform),
            templates: work.get(self.templates),
        }
    }
}

impl CommandService {
    /// What a token stands for; 400 if it is none of this app's, or cannot be accepted any more.
    pub(crate) async fn presented(&self, app_id: &AppId, token: &str) -> Result<Presented, Problem> {
        let InvitationToken { organization_id, invitation_id } =
            InvitationToken::decode(&self.tokens, token).ok_or_else(dead_token)?;
        let organization = self.repository.load::<Organization>(&organization_id).await?;
        let organization = Some(&organization.state).filter(|it| it.is_of(app_id)).ok_or_else(dead_token)?;
        let invitation = organization.invitation(invitation_id, self.clock.now()).ok_or_else(dead_token)?;
        let address = self.invited_address(organization_id, invitation_id, invitation).await?;
        let (app_id, inviter) = (app_id.clone(), invitation.inviter.user());
        Ok(Presented { app_id, organization_id, invitation_id, address, inviter })
    }
}
