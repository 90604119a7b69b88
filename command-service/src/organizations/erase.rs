//! The memberships of a person who was erased.

use dispatcher::{Context, Reads, Work};
use domain::UserId;
use domain::decisions::RemoveMember;
use domain::memberships::Memberships;
use domain::organization::{Organization, OrganizationId};
use domain::user::User;
use http_kit::problem::Problem;

use crate::CommandService;
use crate::organizations::not_organized;

impl CommandService {
    /// Ends the memberships of a person whose erasure is in the log. They can do nothing any more; this takes them from the
    /// lists of members. A failure is only logged, as the person is erased already.
    pub(crate) async fn end_memberships(&self, person: UserId, context: Context) {
        if let Err(problem) = self.try_to_end_memberships(person, context).await {
            tracing::warn!(code = problem.code(), "could not end the memberships of an erased person");
        }
    }

    async fn try_to_end_memberships(&self, person: UserId, context: Context) -> Result<(), Problem> {
        let memberships = self.repository.load::<Memberships>(&person).await?;
        for organization_id in &memberships.state.organizations {
            self.end_membership(person, *organization_id, context.clone()).await?;
        }
        Ok(())
    }

    async fn end_membership(
        &self,
        person: UserId,
        organization_id: OrganizationId,
        context: Context,
    ) -> Result<(), Problem> {
        let context = Context { idempotency: None, ..context };
        let (user_id, at) = (person, context.at);
        let remove = RemoveMember { organization_id, acting: None, user_id, at };
        let (mut reads, user) = Reads::one::<User>(&person);
        let organization = reads.of::<Organization>(&organization_id);
        let memberships = reads.of::<Memberships>(&person);
        let decide = move |work: &mut Work| {
            let (user, organization, memberships) = work.drafts((user, organization, memberships));
            if !user.erased {
                return Ok(());
            }
            remove.decide(user, organization, memberships).map_err(not_organized)
        };
        self.dispatcher.run(context, reads, decide).await?;
        Ok(())
    }
}
