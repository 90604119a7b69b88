//! The organization that a session acts for: its access tokens name it, until the person is no longer a member.

use jiff::Timestamp;

use super::live::{NotLive, require_live};
use crate::app::App;
use crate::app_id::AppId;
use crate::draft::Draft;
use crate::organization::{Organization, OrganizationId};
use crate::session::{Session, SessionCommand};
use crate::user::User;

/// Chooses it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct ChooseOrganization {
    pub app_id: AppId,
    pub at: Timestamp,
}

/// Why the session acts for what it did before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChosen {
    /// The session, its user or its app is not active.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// There is no such organization, or the person is not a member.
    #[error("the person is no member of such an organization")]
    NoMember,
}

impl ChooseOrganization {
    /// Decides it. Without an organization, the session acts for none.
    ///
    /// # Errors
    /// See [`NotChosen`].
    pub fn decide(
        &self,
        app: &App,
        user: &User,
        organization: Option<&Organization>,
        session: &mut Draft<Session>,
    ) -> Result<(), NotChosen> {
        let Self { app_id, at } = self;
        require_live(app, user, session, app_id, *at)?;
        let organization_id = match organization {
            Some(organization) => Some(member_of(organization, app_id, user).ok_or(NotChosen::NoMember)?),
            None => None,
        };
        let choose = SessionCommand::ChooseOrganization { organization_id, at: *at };
        Ok(session.execute(choose).map_err(NotLive::from)?)
    }
}

fn member_of(organization: &Organization, app_id: &AppId, user: &User) -> Option<OrganizationId> {
    organization.role_of(user.id?)?;
    organization.id.filter(|_| organization.is_of(app_id))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::testing::*;
    use super::*;
    use crate::organization::{
        MemberAdded, OrganizationCreated, OrganizationDeleted, OrganizationEvent, Slug,
    };
    use crate::role::Role;

    const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(20));

    fn choose() -> ChooseOrganization {
        ChooseOrganization { app_id: AppId::default_app(), at: at(10) }
    }

    fn created(app_id: AppId) -> OrganizationEvent {
        OrganizationEvent::OrganizationCreated(OrganizationCreated {
            organization_id: ORGANIZATION,
            app_id,
            name: "Engines".to_owned(),
            slug: Slug::parse("engines").expect("valid"),
            at: at(0),
        })
    }

    fn joined() -> OrganizationEvent {
        OrganizationEvent::MemberAdded(MemberAdded {
            organization_id: ORGANIZATION,
            user_id: USER,
            role: Role::owner(),
            at: at(0),
        })
    }

    fn deleted() -> OrganizationEvent {
        OrganizationEvent::OrganizationDeleted(OrganizationDeleted {
            organization_id: ORGANIZATION,
            at: at(1),
        })
    }

    #[test]
    fn a_member_chooses_and_clears() {
        let organization = Draft::given([created(AppId::default_app()), joined()]);
        let mut session = session(0);
        choose().decide(&app(), &registered(), Some(&organization), &mut session).expect("chooses");
        assert_eq!(session.organization, Some(ORGANIZATION));
        choose().decide(&app(), &registered(), None, &mut session).expect("clears it");
        assert_eq!(session.organization, None);
        assert_eq!(session.decided(), ["ActiveOrganizationChosen"; 2]);
    }

    #[test]
    fn nobody_acts_for_what_they_are_no_member_of() {
        let other = AppId::parse("other").expect("valid");
        for organization in [
            Draft::new(),
            Draft::given([created(AppId::default_app())]),
            Draft::given([created(other), joined()]),
            Draft::given([created(AppId::default_app()), joined(), deleted()]),
        ] {
            let mut session = session(0);
            let refused = choose().decide(&app(), &registered(), Some(&organization), &mut session);
            assert_eq!(refused, Err(NotChosen::NoMember));
            assert!(session.events().is_empty());
        }
    }

    #[test]
    fn a_session_that_is_over_chooses_nothing() {
        let organization = Draft::given([created(AppId::default_app()), joined()]);
        for (app, user) in [(app(), user([banned()])), (disabled(), registered())] {
            let mut session = session(0);
            let refused = choose().decide(&app, &user, Some(&organization), &mut session);
            assert_eq!(refused, Err(NotChosen::NotLive(NotLive::Over)));
            let refused = choose().decide(&app, &user, None, &mut session);
            assert_eq!(refused, Err(NotChosen::NotLive(NotLive::Over)));
        }
    }
}
