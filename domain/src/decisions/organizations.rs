//! Who comes into an organization and who leaves it: the organization decides, and the person's list of organizations
//! follows in the same append.

use jiff::Timestamp;

use super::enter::{AppClosed, require_active};
use crate::app::App;
use crate::draft::Draft;
use crate::ids::UserId;
use crate::memberships::{Memberships, MembershipsCommand, TooManyOrganizations};
use crate::organization::{
    Acting, Organization, OrganizationCommand, OrganizationError, OrganizationId, Rank, Slug,
};
use crate::role::Role;
use crate::role_templates::RoleTemplates;
use crate::user::User;

/// Why an organization, or its members, stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOrganized {
    /// The app takes no requests.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// The organization refused.
    #[error(transparent)]
    Organization(#[from] OrganizationError),
    /// The person is in too many of them.
    #[error(transparent)]
    Memberships(#[from] TooManyOrganizations),
    /// The app has no such user.
    #[error("the owner must be a user of the app")]
    NoSuchOwner,
}

/// Creates an organization. Who creates it is its owner.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct CreateOrganization {
    pub organization_id: OrganizationId,
    pub name: String,
    pub slug: Slug,
    pub owner: UserId,
    pub at: Timestamp,
}

impl CreateOrganization {
    /// Decides it. The claim on the slug ensures that no other organization of the app has it.
    ///
    /// # Errors
    /// See [`NotOrganized`].
    pub fn decide(
        &self,
        app: &App,
        organization: &mut Draft<Organization>,
        memberships: &mut Draft<Memberships>,
    ) -> Result<(), NotOrganized> {
        let app_id = require_active(app)?.clone();
        let Self { organization_id, name, slug, owner, at } = self.clone();
        organization.execute(OrganizationCommand::Create { organization_id, app_id, name, slug, at })?;
        let role = Role::owner();
        organization.execute(OrganizationCommand::AddMember {
            acting: Acting::App,
            user_id: owner,
            role,
            is_template: false,
            at,
        })?;
        Ok(memberships.execute(MembershipsCommand::Join { user_id: owner, organization_id, at })?)
    }

    /// Decides it for an admin of the app, who names the owner.
    ///
    /// # Errors
    /// See [`NotOrganized`].
    pub fn decide_for(
        &self,
        app: &App,
        owner: &User,
        organization: &mut Draft<Organization>,
        memberships: &mut Draft<Memberships>,
    ) -> Result<(), NotOrganized> {
        if !owner.is_of(require_active(app)?) {
            return Err(NotOrganized::NoSuchOwner);
        }
        self.decide(app, organization, memberships)
    }
}

/// Gives a member another role, or makes a user a member.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct SetMember {
    pub organization_id: OrganizationId,
    pub acting: Acting,
    pub user_id: UserId,
    pub role: Role,
    pub at: Timestamp,
}

impl SetMember {
    /// Decides it. Only an admin of the app makes a user a member who was not asked: members invite.
    ///
    /// # Errors
    /// See [`NotOrganized`].
    pub fn decide(
        &self,
        user: &User,
        organization: &mut Draft<Organization>,
        templates: &RoleTemplates,
        memberships: &mut Draft<Memberships>,
    ) -> Result<(), NotOrganized> {
        let Self { organization_id, acting, user_id, role, at } = self.clone();
        organization.require(acting, Rank::Admin)?;
        if !organization.app_id.as_ref().is_some_and(|app_id| user.is_of(app_id)) {
            return Err(OrganizationError::NoSuchMember.into());
        }
        let is_template = templates.permissions(&role).is_some();
        if acting != Acting::App || organization.role_of(user_id).is_some() {
            organization.role_of(user_id).ok_or(OrganizationError::NoSuchMember)?;
            organization.require_may_give(acting, &role, templates)?;
            let change = OrganizationCommand::ChangeRole { acting, user_id, role, is_template, at };
            return Ok(organization.execute(change)?);
        }
        organization.execute(OrganizationCommand::AddMember { acting, user_id, role, is_template, at })?;
        Ok(memberships.execute(MembershipsCommand::Join { user_id, organization_id, at })?)
    }
}

/// Ends a membership.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct RemoveMember {
    pub organization_id: OrganizationId,
    /// Who removes the member; absent if that follows from the erasure of the person.
    pub acting: Option<Acting>,
    pub user_id: UserId,
    pub at: Timestamp,
}

impl RemoveMember {
    /// Decides it.
    ///
    /// # Errors
    /// See [`NotOrganized`].
    pub fn decide(
        self,
        user: &User,
        organization: &mut Draft<Organization>,
        memberships: &mut Draft<Memberships>,
    ) -> Result<(), NotOrganized> {
        let Self { organization_id, acting, user_id, at } = self;
        if let Some(acting) = acting {
            let is_own = acting == Acting::User(user_id);
            organization.require(acting, if is_own { Rank::Member } else { Rank::Admin })?;
        }
        organization.execute(match acting.filter(|_| !user.erased) {
            Some(acting) => OrganizationCommand::RemoveMember { acting, user_id, at },
            None => OrganizationCommand::RemoveErased { user_id, at },
        })?;
        Ok(memberships.execute(MembershipsCommand::Leave { user_id, organization_id, at })?)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::testing::*;
    use super::*;
    use crate::memberships::MAX_ORGANIZATIONS;

    const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(20));
    const OTHER: UserId = UserId(Uuid::from_u128(21));

    fn create(app: &App) -> Result<(Draft<Organization>, Draft<Memberships>), NotOrganized> {
        let (mut organization, mut memberships) = (Draft::new(), Draft::new());
        let create = CreateOrganization {
            organization_id: ORGANIZATION,
            name: "Engines".to_owned(),
            slug: Slug::parse("engines").expect("valid"),
            owner: OTHER,
            at: at(1),
        };
        create.decide(app, &mut organization, &mut memberships)?;
        Ok((organization, memberships))
    }

    fn set(acting: Acting, user_id: UserId, role: &str) -> SetMember {
        let role = Role::parse(role).expect("valid");
        SetMember { organization_id: ORGANIZATION, acting, user_id, role, at: at(2) }
    }

    #[test]
    fn whoever_creates_it_is_its_owner() {
        let (organization, memberships) = create(&app()).expect("is created");
        assert_eq!(organization.decided(), ["OrganizationCreated", "MemberAdded"]);
        assert_eq!(organization.role_of(OTHER), Some(&Role::owner()));
        assert_eq!(memberships.decided(), ["OrganizationJoined"]);
        assert_eq!(create(&disabled()).err(), Some(NotOrganized::App(AppClosed::Disabled)));
        assert_eq!(create(&Draft::new()).err(), Some(NotOrganized::App(AppClosed::Absent)));
    }

    #[test]
    fn an_admin_names_a_user_of_the_app_as_owner() {
        let create = CreateOrganization {
            organization_id: ORGANIZATION,
            name: "Engines".to_owned(),
            slug: Slug::parse("engines").expect("valid"),
            owner: USER,
            at: at(1),
        };
        let (mut organization, mut memberships) = (Draft::new(), Draft::new());
        for nobody in [user([erased()]), Draft::new()] {
            let refused = create.decide_for(&app(), &nobody, &mut organization, &mut memberships);
            assert_eq!(refused, Err(NotOrganized::NoSuchOwner));
        }
        assert!(organization.events().is_empty() && memberships.events().is_empty());
        create.decide_for(&app(), &registered(), &mut organization, &mut memberships).expect("is created");
        assert_eq!(organization.role_of(USER), Some(&Role::owner()));
    }

    #[test]
    fn nobody_is_made_a_member_unasked_but_by_the_app() {
        let (mut organization, _) = create(&app()).expect("is created");
        let mut memberships = Draft::new();
        let by_owner = set(Acting::User(OTHER), USER, "member");
        let refused =
            by_owner.decide(&registered(), &mut organization, &RoleTemplates::default(), &mut memberships);
        assert_eq!(refused, Err(NotOrganized::Organization(OrganizationError::NoSuchMember)));
        for nobody in [user([erased()]), Draft::new()] {
            let by_app = set(Acting::App, USER, "member");
            let refused =
                by_app.decide(&nobody, &mut organization, &RoleTemplates::default(), &mut memberships);
            assert_eq!(refused, Err(NotOrganized::Organization(OrganizationError::NoSuchMember)));
        }
        assert!(memberships.events().is_empty());
        let by_app = set(Acting::App, USER, "member");
        by_app
            .decide(&registered(), &mut organization, &RoleTemplates::default(), &mut memberships)
            .expect("is added");
        by_owner
            .decide(&registered(), &mut organization, &RoleTemplates::default(), &mut memberships)
            .expect("is that already");
        let admin = set(Acting::User(OTHER), USER, "admin");
        admin
            .decide(&registered(), &mut organization, &RoleTemplates::default(), &mut memberships)
            .expect("is changed");
        assert_eq!(organization.decided()[2..], ["MemberAdded", "MemberRoleChanged"]);
        assert_eq!(memberships.decided(), ["OrganizationJoined"]);
    }

    #[test]
    fn what_one_list_refuses_is_in_neither() {
        let (mut organization, _) = create(&app()).expect("is created");
        let mut memberships = Draft::<Memberships>::new();
        for number in 0..MAX_ORGANIZATIONS as u128 {
            let organization_id = OrganizationId(Uuid::from_u128(1000 + number));
            let join = MembershipsCommand::Join { user_id: USER, organization_id, at: at(1) };
            memberships.execute(join).expect("joins");
        }
        let by_app = set(Acting::App, USER, "member");
        let refused =
            by_app.decide(&registered(), &mut organization, &RoleTemplates::default(), &mut memberships);
        assert_eq!(refused, Err(NotOrganized::Memberships(TooManyOrganizations)));
    }

    #[test]
    fn a_membership_ends_in_both_lists() {
        let (mut organization, mut memberships) = create(&app()).expect("is created");
        let remove =
            |acting| RemoveMember { organization_id: ORGANIZATION, acting, user_id: OTHER, at: at(3) };
        let by = Some(Acting::User(OTHER));
        let last = remove(by).decide(&registered(), &mut organization, &mut memberships);
        assert_eq!(last, Err(NotOrganized::Organization(OrganizationError::LastOwner)));
        let erased = user([erased()]);
        let stranger = Some(Acting::User(USER));
        let refused = remove(stranger).decide(&erased, &mut organization, &mut memberships);
        assert_eq!(refused, Err(NotOrganized::Organization(OrganizationError::Absent)));
        remove(None).decide(&erased, &mut organization, &mut memberships).expect("is erased");
        assert_eq!(organization.decided().last(), Some(&"MemberRemoved"));
        assert_eq!(memberships.decided(), ["OrganizationJoined", "OrganizationLeft"]);
    }
}
