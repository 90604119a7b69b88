//! What a role or an API key of an organization's own allows: its members decide that, as far as the app lets them.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::draft::Draft;
use crate::organization::{
    Acting, IssueKey, Organization, OrganizationCommand, OrganizationError, Rank, RolePermission,
    require_no_reserved,
};
use crate::role::Role;
use crate::role_templates::RoleTemplates;

/// Makes such a role, or changes it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct SetOrganizationRole {
    pub acting: Acting,
    pub role: Role,
    pub permissions: BTreeSet<RolePermission>,
    pub at: Timestamp,
}

impl SetOrganizationRole {
    /// Decides it. What the app allows owners alone, an admin puts into no role: they could give it to themselves.
    ///
    /// # Errors
    /// See [`OrganizationError`].
    pub fn decide(
        &self,
        organization: &mut Draft<Organization>,
        templates: &RoleTemplates,
    ) -> Result<(), OrganizationError> {
        let Self { acting, role, permissions, at } = self.clone();
        // First what a member may not: they learn nothing of what the app reserves.
        let rank = organization.require(acting, Rank::Admin)?;
        require_no_reserved(rank, &permissions, templates)?;
        organization.execute(OrganizationCommand::SetRole { acting, role, permissions, at })
    }
}

impl IssueKey {
    /// Decides it. Whoever makes a key knows it: an admin puts nothing into one that they may put into no role.
    ///
    /// # Errors
    /// See [`OrganizationError`].
    pub fn decide(
        &self,
        organization: &mut Draft<Organization>,
        templates: &RoleTemplates,
    ) -> Result<(), OrganizationError> {
        let rank = organization.require(self.acting, Rank::Admin)?;
        require_no_reserved(rank, &self.permissions, templates)?;
        organization.execute(OrganizationCommand::IssueKey(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::organizations::{NotOrganized, SetMember};
    use super::super::testing::*;
    use super::*;
    use crate::app_id::AppId;
    use crate::ids::UserId;
    use crate::organization::{
        MAX_PERMISSIONS, MAX_ROLES, MemberAdded, OrganizationCreated, OrganizationEvent, OrganizationId,
        OrganizationKeyId, RoleProblem, Slug,
    };
    use crate::role_templates::{RoleTemplateSet, RoleTemplatesEvent};

    const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(20));
    const OWNER: UserId = UserId(Uuid::from_u128(21));
    const BEA: UserId = UserId(Uuid::from_u128(22));

    fn role(text: &str) -> Role {
        Role::parse(text).expect("valid")
    }

    fn permissions(names: &[&str]) -> BTreeSet<RolePermission> {
        names.iter().map(|name| RolePermission::parse(*name).expect("valid")).collect()
    }

    /// Of an owner, an admin and Ada.
    fn organization() -> Draft<Organization> {
        let created = OrganizationEvent::OrganizationCreated(OrganizationCreated {
            organization_id: ORGANIZATION,
            app_id: AppId::default_app(),
            name: "Engines".to_owned(),
            slug: Slug::parse("engines").expect("valid"),
            at: at(0),
        });
        let added = |user_id, name| {
            let (organization_id, role) = (ORGANIZATION, role(name));
            OrganizationEvent::MemberAdded(MemberAdded { organization_id, user_id, role, at: at(1) })
        };
        Draft::given([created, added(OWNER, "owner"), added(BEA, "admin"), added(USER, "member")])
    }

    fn templates(given: &[(&str, &[&str])]) -> Draft<RoleTemplates> {
        Draft::given(given.iter().map(|(name, names)| {
            let (app_id, role, permissions) = (AppId::default_app(), role(name), permissions(names));
            RoleTemplatesEvent::RoleTemplateSet(RoleTemplateSet { app_id, role, permissions, at: at(0) })
        }))
    }

    fn set(acting: UserId, name: &str, names: &[&str]) -> SetOrganizationRole {
        let (acting, role, permissions) = (Acting::User(acting), role(name), permissions(names));
        SetOrganizationRole { acting, role, permissions, at: at(2) }
    }

    fn give(acting: UserId, user_id: UserId, name: &str) -> SetMember {
        let acting = Acting::User(acting);
        SetMember { organization_id: ORGANIZATION, acting, user_id, role: role(name), at: at(3) }
    }

    fn given(
        give: &SetMember,
        organization: &mut Draft<Organization>,
        templates: &RoleTemplates,
    ) -> Result<(), OrganizationError> {
        let decided = give.decide(&registered(), organization, templates, &mut Draft::new());
        decided.map_err(|error| match error {
            NotOrganized::Organization(error) => error,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn admins_and_owners_make_roles_and_members_do_not() {
        let (mut organization, none) = (organization(), RoleTemplates::default());
        set(BEA, "support", &["tickets:*"]).decide(&mut organization, &none).expect("is made");
        set(OWNER, "support", &["tickets:*"]).decide(&mut organization, &none).expect("changes nothing");
        set(OWNER, "support", &["tickets:read"]).decide(&mut organization, &none).expect("is changed");
        assert_eq!(organization.permissions(&role("support"), &none), Some(&permissions(&["tickets:read"])));
        let by_member = set(USER, "support", &["tickets:*"]).decide(&mut organization, &none);
        assert_eq!(by_member, Err(OrganizationError::NotAllowed));
        let stranger = UserId(Uuid::from_u128(99));
        let by_stranger = set(stranger, "support", &[]).decide(&mut organization, &none);
        assert_eq!(by_stranger, Err(OrganizationError::Absent));
        assert_eq!(organization.decided(), ["OrganizationRoleSet"; 2]);
    }

    #[test]
    fn inv_v_a_key_holds_nothing_that_the_app_gives_to_owners_alone() {
        let templates = templates(&[("owner", &["billing:*"]), ("admin", &["tickets:read"])]);
        let issue = |acting, name: &str| IssueKey {
            acting: Acting::User(acting),
            key_id: OrganizationKeyId(Uuid::from_u128(30)),
            name: "ci".to_owned(),
            permissions: permissions(&[name]),
            expires_at: None,
            at: at(2),
        };
        for (acting, name, why) in [
            (BEA, "billing:*", Err(OrganizationError::AboveOneself)),
            (BEA, "billing:read", Err(OrganizationError::AboveOneself)),
            (BEA, "tickets:read", Ok(())),
            (OWNER, "billing:*", Ok(())),
            (USER, "tickets:read", Err(OrganizationError::NotAllowed)),
        ] {
            assert_eq!(issue(acting, name).decide(&mut organization(), &templates), why, "{name}");
        }
    }

    #[test]
    fn the_built_in_roles_stay_what_they_are() {
        let (mut organization, none) = (organization(), RoleTemplates::default());
        for name in ["owner", "admin", "member", "Owner", "ADMIN"] {
            let refused = set(OWNER, name, &["billing:*"]).decide(&mut organization, &none);
            assert_eq!(refused, Err(OrganizationError::Role(RoleProblem::Reserved)), "{name}");
        }
        assert_eq!(organization.decided(), [""; 0]);
    }

    #[test]
    fn what_the_app_gives_owners_alone_no_admin_gives_anybody() {
        let app = templates(&[("owner", &["billing:*", "members:*"]), ("admin", &["members:*"])]);
        let mut organization = organization();
        for names in [&["billing:read"][..], &["billing:*"], &["tickets:read", "billing:a:b"]] {
            let refused = set(BEA, "treasurer", names).decide(&mut organization, &app);
            assert_eq!(refused, Err(OrganizationError::AboveOneself), "{names:?}");
        }
        set(BEA, "support", &["members:read", "tickets:*"]).decide(&mut organization, &app).expect("is made");
        set(OWNER, "treasurer", &["billing:read"]).decide(&mut organization, &app).expect("is made");
        // Nor a role that an owner has made: neither to others nor to oneself.
        for user_id in [USER, BEA] {
            let refused = given(&give(BEA, user_id, "treasurer"), &mut organization, &app);
            assert_eq!(refused, Err(OrganizationError::AboveOneself));
        }
        given(&give(OWNER, USER, "treasurer"), &mut organization, &app).expect("is given");
        given(&give(BEA, USER, "support"), &mut organization, &app).expect("is given");
        // What the app gives another role, too, is no owner's alone; and a role of the app's, any admin gives.
        let app = templates(&[("owner", &["billing:*"]), ("clerk", &["billing:read"])]);
        set(BEA, "reader", &["billing:read"]).decide(&mut organization, &app).expect("is made");
        let refused = set(BEA, "reader", &["billing:*"]).decide(&mut organization, &app);
        assert_eq!(refused, Err(OrganizationError::AboveOneself));
        given(&give(BEA, USER, "clerk"), &mut organization, &app).expect("is given");
    }

    #[test]
    fn a_role_of_the_organization_hides_the_apps() {
        let app = templates(&[("support", &["tickets:read"]), ("member", &["read"])]);
        let mut organization = organization();
        assert_eq!(organization.permissions(&role("support"), &app), Some(&permissions(&["tickets:read"])));
        assert_eq!(organization.permissions(&role("member"), &app), Some(&permissions(&["read"])));
        given(&give(BEA, USER, "support"), &mut organization, &app).expect("the app has it");
        let unknown = given(&give(BEA, USER, "support"), &mut organization, &RoleTemplates::default());
        assert_eq!(unknown, Err(OrganizationError::NoSuchRole));
        set(OWNER, "support", &[]).decide(&mut organization, &app).expect("is made");
        assert_eq!(organization.permissions(&role("support"), &app), Some(&permissions(&[])));
    }

    #[test]
    fn a_role_that_somebody_has_is_not_deleted() {
        let (mut organization, none) = (organization(), RoleTemplates::default());
        let delete = |acting| {
            let acting = Acting::User(acting);
            OrganizationCommand::DeleteRole { acting, role: role("support"), at: at(4) }
        };
        let absent = Err(OrganizationError::Role(RoleProblem::Absent));
        assert_eq!(organization.execute(delete(OWNER)), absent);
        set(OWNER, "support", &[]).decide(&mut organization, &none).expect("is made");
        given(&give(OWNER, USER, "support"), &mut organization, &none).expect("is given");
        assert_eq!(organization.execute(delete(USER)), Err(OrganizationError::NotAllowed));
        assert_eq!(organization.execute(delete(BEA)), Err(OrganizationError::Role(RoleProblem::InUse)));
        given(&give(BEA, USER, "member"), &mut organization, &none).expect("is given");
        organization.execute(delete(BEA)).expect("is deleted");
        assert_eq!(organization.execute(delete(BEA)), absent);
        assert_eq!(organization.decided().last(), Some(&"OrganizationRoleDeleted"));
    }

    #[test]
    fn roles_and_their_permissions_have_an_end() {
        let (mut organization, none) = (organization(), RoleTemplates::default());
        let many: Vec<String> = (0..=MAX_PERMISSIONS).map(|number| format!("p{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let refused = set(OWNER, "support", &many).decide(&mut organization, &none);
        assert_eq!(refused, Err(OrganizationError::Role(RoleProblem::TooManyPermissions)));
        for number in 0..MAX_ROLES {
            set(OWNER, &format!("r{number}"), &many[1..]).decide(&mut organization, &none).expect("is made");
        }
        let refused = set(OWNER, "support", &[]).decide(&mut organization, &none);
        assert_eq!(refused, Err(OrganizationError::Role(RoleProblem::TooMany)));
        set(OWNER, "r0", &[]).decide(&mut organization, &none).expect("is there already");
    }

    /// Whoever left has no role any more, so it can go.
    #[test]
    fn nobodys_role_can_go() {
        let (mut organization, none) = (organization(), RoleTemplates::default());
        set(OWNER, "support", &[]).decide(&mut organization, &none).expect("is made");
        given(&give(OWNER, USER, "support"), &mut organization, &none).expect("is given");
        let remove =
            OrganizationCommand::RemoveMember { acting: Acting::User(BEA), user_id: USER, at: at(5) };
        organization.execute(remove).expect("is removed");
        let delete =
            OrganizationCommand::DeleteRole { acting: Acting::App, role: role("support"), at: at(6) };
        organization.execute(delete).expect("is deleted");
    }
}
