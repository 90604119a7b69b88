//! Accepting an invitation: whoever has proven that its address is theirs becomes a member.

use jiff::Timestamp;

use super::admin::require_key;
use super::enter::require_active;
use super::organizations::NotOrganized;
use crate::app::{ApiKey, App};
use crate::draft::Draft;
use crate::email::Email;
use crate::memberships::{Memberships, MembershipsCommand};
use crate::organization::{
    Invitation, InvitationId, Inviter, Organization, OrganizationCommand, OrganizationError, OrganizationId,
};
use crate::permission::Permission;
use crate::role_templates::RoleTemplates;
use crate::user::User;

/// Accepts an invitation.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct AcceptInvitation {
    pub organization_id: OrganizationId,
    pub invitation_id: InvitationId,
    /// The address that its event names, which never changes; absent once the person was erased.
    pub invited: Option<Email>,
    pub at: Timestamp,
}

/// Why it is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// The user has another address.
    #[error("the invitation is for another address")]
    OtherAddress,
    /// The user has not proven that the address is theirs.
    #[error("the user's address is not verified")]
    EmailNotVerified,
    /// The app, the organization or the list of memberships refused.
    #[error(transparent)]
    Organized(#[from] NotOrganized),
}

impl From<OrganizationError> for NotAccepted {
    fn from(error: OrganizationError) -> Self {
        NotOrganized::from(error).into()
    }
}

/// What shows whether whoever made an invitation could still make it, besides the organization itself.
#[derive(Clone, Copy, Debug)]
pub struct InviterNow<'a> {
    /// The user who made it, if a user did.
    pub user: Option<&'a User>,
    /// The platform's own app, which has its keys.
    pub platform: &'a App,
    /// What the app's roles allow.
    pub templates: &'a RoleTemplates,
}

impl InviterNow<'_> {
    /// Whether they still may. Of members, the organization knows their role.
    fn may_invite(self, inviter: Inviter, app: &App, at: Timestamp) -> bool {
        let is_active =
            |user: &User| user.is_active() && app.id.as_ref().is_some_and(|app_id| user.is_of(app_id));
        let user = self.user.filter(|user| user.id == inviter.user() && is_active(user));
        match inviter {
            Inviter::Member(_) => user.is_some(),
            Inviter::Admin(_) => user.is_some_and(|user| app.is_admin(user)),
            Inviter::Key(key_id) => {
                let may = |key: &ApiKey| {
                    let enough = [Permission::OrgsWrite, Permission::Orgs, Permission::Platform];
                    enough.iter().any(|it| key.permissions.contains(it))
                };
                [app, self.platform].into_iter().any(|app| require_key(app, key_id, at).is_ok_and(may))
            }
        }
    }
}

/// The invitation, if it can be accepted and whoever made it still could.
fn open<'a>(
    organization: &'a Organization,
    invitation_id: InvitationId,
    app: &App,
    inviter: InviterNow<'_>,
    at: Timestamp,
) -> Option<&'a Invitation> {
    let app_id = app.id.as_ref()?;
    let invitation = organization.invitation(invitation_id, at).filter(|_| organization.is_of(app_id))?;
    // A role that is gone, or that a member may no longer give, is nobody's.
    let may_give =
        organization.require_may_give(invitation.inviter.acting(), &invitation.role, inviter.templates);
    (may_give.is_ok() && inviter.may_invite(invitation.inviter, app, at)).then_some(invitation)
}

/// Registers with an invitation, in an app that takes nobody else.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct RegisterInvited {
    pub invitation_id: InvitationId,
    /// The address that its event names.
    pub invited: Option<Email>,
    pub at: Timestamp,
}

impl RegisterInvited {
    /// Whether the invitation lets this address register. Whoever registers still has to prove that it is theirs.
    pub fn lets_in(
        &self,
        app: &App,
        inviter: InviterNow<'_>,
        organization: &Organization,
        email: &Email,
    ) -> bool {
        self.invited.as_ref() == Some(email)
            && open(organization, self.invitation_id, app, inviter, self.at).is_some()
    }
}

impl AcceptInvitation {
    /// Decides it for the user who accepts.
    ///
    /// # Errors
    /// See [`NotAccepted`].
    pub fn decide(
        &self,
        app: &App,
        inviter: InviterNow<'_>,
        user: &User,
        organization: &mut Draft<Organization>,
        memberships: &mut Draft<Memberships>,
    ) -> Result<(), NotAccepted> {
        let Self { organization_id, invitation_id, ref invited, at } = *self;
        let app_id = require_active(app).map_err(NotOrganized::from)?;
        let user_id = user.id.filter(|_| user.is_active() && user.is_of(app_id));
        let is_open = open(organization, invitation_id, app, inviter, at).is_some();
        let Some(user_id) = user_id.filter(|_| is_open) else {
            return Err(OrganizationError::NoSuchInvitation.into());
        };
        if invited.is_none() || *invited != user.email {
            return Err(NotAccepted::OtherAddress);
        }
        if !user.email_verified {
            return Err(NotAccepted::EmailNotVerified);
        }
        organization.execute(OrganizationCommand::AcceptInvitation { invitation_id, user_id, at })?;
        let join = MembershipsCommand::Join { user_id, organization_id, at };
        Ok(memberships.execute(join).map_err(NotOrganized::from)?)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::testing::*;
    use super::*;
    use crate::app::{ApiKeyId, ApiKeyIssued, ApiKeyRevoked, AppCreated, AppEvent};
    use crate::ids::UserId;
    use crate::organization::{Acting, Invite, MemberAdded, OrganizationCreated, OrganizationEvent, Slug};
    use crate::role::Role;
    use crate::settings::{AppSettings, SentBy};
    use crate::user::{RegistrationMethod, UserEvent, UserRegistered};
    use crate::{AppId, Personal};

    const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(20));
    const INVITATION: InvitationId = InvitationId(Uuid::from_u128(21));
    const KEY: ApiKeyId = ApiKeyId(Uuid::from_u128(22));
    const OWNER: UserId = UserId(Uuid::from_u128(23));
    const BEA: UserId = UserId(Uuid::from_u128(24));

    fn role(text: &str) -> Role {
        Role::parse(text).expect("valid")
    }

    fn added(user_id: UserId, name: &str) -> OrganizationEvent {
        let (organization_id, role) = (ORGANIZATION, role(name));
        OrganizationEvent::MemberAdded(MemberAdded { organization_id, user_id, role, at: at(1) })
    }

    /// Of an owner and an admin, with an invitation to Ada.
    fn inviting(inviter: Inviter, name: &str) -> Draft<Organization> {
        let created = OrganizationEvent::OrganizationCreated(OrganizationCreated {
            organization_id: ORGANIZATION,
            app_id: AppId::default_app(),
            name: "Engines".to_owned(),
            slug: Slug::parse("engines").expect("valid"),
            at: at(0),
        });
        let mut organization =
            Draft::<Organization>::given([created, added(OWNER, "owner"), added(BEA, "admin")]);
        let invite = Invite {
            invitation_id: INVITATION,
            invitee_id: USER,
            email: email(),
            role: role(name),
            is_template: false,
            inviter,
            delivery: SentBy::Platform,
            ttl: 100,
            at: at(2),
        };
        organization.execute(OrganizationCommand::Invite(invite)).expect("is made");
        let (loaded, _) = organization.into_appended();
        Draft::of(loaded.into())
    }

    fn member(id: UserId, events: impl IntoIterator<Item = UserEvent>) -> Draft<User> {
        let registered = UserEvent::UserRegistered(UserRegistered {
            user_id: id,
            app_id: AppId::default_app(),
            method: RegistrationMethod::Password,
            at: at(0),
            personal: Personal::default(),
        });
        Draft::given([registered].into_iter().chain(events))
    }

    fn accept_at(second: i64) -> AcceptInvitation {
        let (organization_id, invitation_id) = (ORGANIZATION, INVITATION);
        AcceptInvitation { organization_id, invitation_id, invited: Some(email()), at: at(second) }
    }

    fn accepted(
        accept: &AcceptInvitation,
        inviter: &User,
        user: &User,
        organization: &mut Draft<Organization>,
    ) -> Result<(), NotAccepted> {
        let platform = Draft::new();
        let inviter =
            InviterNow { user: Some(inviter), platform: &platform, templates: &RoleTemplates::default() };
        accept.decide(&app(), inviter, user, organization, &mut Draft::new())
    }

    fn dead() -> Result<(), NotAccepted> {
        Err(OrganizationError::NoSuchInvitation.into())
    }

    #[test]
    fn inv_q_makes_a_member_of_whoever_has_proven_the_address_and_only_once() {
        let ada = user([verified()]);
        let mut organization = inviting(Inviter::Member(BEA), "member");
        let bea = member(BEA, []);
        accepted(&accept_at(50), &bea, &ada, &mut organization).expect("is accepted");
        assert_eq!(organization.decided(), ["InvitationAccepted"]);
        assert_eq!(organization.role_of(USER), Some(&role("member")));
        assert_eq!(accepted(&accept_at(51), &bea, &ada, &mut organization), dead(), "it was used");
    }

    #[test]
    fn is_for_nobody_else_and_not_for_ever() {
        let bea = member(BEA, []);
        let elsewhere = AcceptInvitation { invited: Some(eve()), ..accept_at(50) };
        let forgotten = AcceptInvitation { invited: None, ..accept_at(50) };
        let absent = AcceptInvitation { invitation_id: InvitationId(Uuid::nil()), ..accept_at(50) };
        for (accept, user, why) in [
            (elsewhere, user([verified()]), Err(NotAccepted::OtherAddress)),
            (forgotten, user([verified()]), Err(NotAccepted::OtherAddress)),
            (accept_at(50), registered(), Err(NotAccepted::EmailNotVerified)),
            (accept_at(50), user([verified(), banned()]), dead()),
            (accept_at(50), user([erased()]), dead()),
            (accept_at(102), user([verified()]), dead()),
            (absent, user([verified()]), dead()),
        ] {
            let mut organization = inviting(Inviter::Member(BEA), "member");
            assert_eq!(accepted(&accept, &bea, &user, &mut organization), why);
            assert!(organization.events().is_empty());
        }
    }

    #[test]
    fn inv_v_dies_with_the_right_of_whoever_made_it() {
        let ada = user([verified()]);
        let change = |user_id, name| OrganizationCommand::ChangeRole {
            acting: Acting::App,
            user_id,
            role: role(name),
            is_template: false,
            at: at(10),
        };
        let remove = OrganizationCommand::RemoveMember { acting: Acting::App, user_id: BEA, at: at(10) };
        for (commands, lives) in [
            (vec![change(BEA, "member")], false),
            (vec![change(BEA, "member"), change(BEA, "admin")], false),
            (vec![remove], false),
            (
                vec![OrganizationCommand::RevokeInvitation {
                    acting: Acting::User(OWNER),
                    invitation_id: INVITATION,
                    at: at(10),
                }],
                false,
            ),
            (vec![OrganizationCommand::Delete { acting: Acting::App, at: at(10) }], false),
            (vec![change(BEA, "owner")], true),
            (vec![change(BEA, "owner"), change(BEA, "admin")], true),
        ] {
            let mut organization = inviting(Inviter::Member(BEA), "member");
            for command in commands.clone() {
                organization.execute(command).expect("is done");
            }
            let done = accepted(&accept_at(50), &member(BEA, []), &ada, &mut organization);
            assert_eq!(done, if lives { Ok(()) } else { dead() }, "{commands:?}");
        }
        // An owner who is an admin now could no longer invite an owner.
        let mut organization = inviting(Inviter::Member(OWNER), "owner");
        organization.execute(change(BEA, "owner")).expect("is done");
        organization.execute(change(OWNER, "admin")).expect("is done");
        assert_eq!(accepted(&accept_at(50), &member(OWNER, []), &ada, &mut organization), dead());
        // Nor could somebody who is banned, or whom another stands for.
        for inviter in [member(BEA, [banned()]), member(OWNER, []), Draft::new()] {
            let mut organization = inviting(Inviter::Member(BEA), "member");
            assert_eq!(accepted(&accept_at(50), &inviter, &ada, &mut organization), dead());
        }
        let mut by_admin = inviting(Inviter::Admin(OWNER), "owner");
        assert_eq!(accepted(&accept_at(50), &member(OWNER, []), &ada, &mut by_admin), dead());
    }

    #[test]
    fn inv_v_does_not_bring_back_who_was_removed_after_it_was_made() {
        let ada = user([verified()]);
        let bea = member(BEA, []);
        let mut organization = inviting(Inviter::Member(BEA), "member");
        let another = |id, second| {
            OrganizationCommand::Invite(Invite {
                invitation_id: InvitationId(Uuid::from_u128(id)),
                invitee_id: USER,
                email: email(),
                role: role("member"),
                is_template: false,
                inviter: Inviter::Member(BEA),
                delivery: SentBy::Platform,
                ttl: 100,
                at: at(second),
            })
        };
        organization.execute(another(31, 3)).expect("is made");
        accepted(&accept_at(50), &bea, &ada, &mut organization).expect("is accepted");
        let remove = OrganizationCommand::RemoveMember { acting: Acting::App, user_id: USER, at: at(51) };
        organization.execute(remove).expect("is removed");
        let older = AcceptInvitation { invitation_id: InvitationId(Uuid::from_u128(31)), ..accept_at(52) };
        assert_eq!(accepted(&older, &bea, &ada, &mut organization), dead(), "it is from before the removal");
        organization.execute(another(32, 53)).expect("is made");
        assert_eq!(organization.departed.len(), 1, "the older one is open");
        let newer = AcceptInvitation { invitation_id: InvitationId(Uuid::from_u128(32)), ..accept_at(54) };
        accepted(&newer, &bea, &ada, &mut organization).expect("it was made for who was removed");
        organization.execute(another(33, 110)).expect("is made");
        assert!(organization.departed.is_empty(), "nothing open is older than the removal");
    }

    #[test]
    fn lets_its_address_register_and_no_other() {
        let bea = member(BEA, []);
        let platform = Draft::new();
        let organization = inviting(Inviter::Member(BEA), "member");
        let register =
            |second| RegisterInvited { invitation_id: INVITATION, invited: Some(email()), at: at(second) };
        let lets_in = |register: RegisterInvited, inviter: &User, address: &Email| {
            let inviter =
                InviterNow { user: Some(inviter), platform: &platform, templates: &RoleTemplates::default() };
            register.lets_in(&app(), inviter, &organization, address)
        };
        assert!(lets_in(register(50), &bea, &email()));
        assert!(!lets_in(register(50), &bea, &eve()));
        assert!(!lets_in(register(102), &bea, &email()), "it has expired");
        assert!(!lets_in(register(50), &member(BEA, [banned()]), &email()));
        assert!(!lets_in(RegisterInvited { invited: None, ..register(50) }, &bea, &email()));
        let absent = InvitationId(Uuid::nil());
        assert!(!lets_in(RegisterInvited { invitation_id: absent, ..register(50) }, &bea, &email()));
    }

    #[test]
    fn inv_v_dies_with_the_key_that_made_it() {
        let created = || {
            let (app_id, name) = (AppId::default_app(), "App".to_owned());
            AppEvent::AppCreated(AppCreated { app_id, name, settings: AppSettings::default(), at: at(0) })
        };
        let issued = |permission| {
            AppEvent::ApiKeyIssued(ApiKeyIssued {
                key_id: KEY,
                name: "key".to_owned(),
                permissions: [permission].into(),
                expires_at: None,
                at: at(1),
            })
        };
        let revoked = AppEvent::ApiKeyRevoked(ApiKeyRevoked { key_id: KEY, at: at(3) });
        let none = || Draft::<App>::given([created()]);
        for (app, platform, lives) in [
            (Draft::given([created(), issued(Permission::Orgs)]), none(), true),
            (none(), Draft::given([created(), issued(Permission::Platform)]), true),
            (Draft::given([created(), issued(Permission::Orgs), revoked]), none(), false),
            (Draft::given([created(), issued(Permission::OrgsWrite)]), none(), true),
            (Draft::given([created(), issued(Permission::OrgsRead)]), none(), false),
            (Draft::given([created(), issued(Permission::UsersWrite)]), none(), false),
            (none(), none(), false),
        ] {
            let mut organization = inviting(Inviter::Key(KEY), "owner");
            let inviter =
                InviterNow { user: None, platform: &platform, templates: &RoleTemplates::default() };
            let (ada, mut memberships) = (user([verified()]), Draft::new());
            let done = accept_at(50).decide(&app, inviter, &ada, &mut organization, &mut memberships);
            assert_eq!(done, if lives { Ok(()) } else { dead() });
        }
    }

    #[test]
    fn inv_v_nobody_invites_above_themselves() {
        let mut organization = inviting(Inviter::Member(BEA), "member");
        let invite = |inviter, name: &str| {
            OrganizationCommand::Invite(Invite {
                invitation_id: InvitationId(Uuid::from_u128(30)),
                invitee_id: USER,
                email: email(),
                role: role(name),
                is_template: false,
                inviter,
                delivery: SentBy::Platform,
                ttl: 100,
                at: at(2),
            })
        };
        let above = organization.execute(invite(Inviter::Member(BEA), "owner"));
        assert_eq!(above, Err(OrganizationError::AboveOneself));
        let stranger = organization.execute(invite(Inviter::Member(USER), "member"));
        assert_eq!(stranger, Err(OrganizationError::Absent));
        assert_eq!(
            organization.execute(invite(Inviter::Key(KEY), "boss")),
            Err(OrganizationError::NoSuchRole)
        );
        organization.execute(invite(Inviter::Key(KEY), "owner")).expect("is made");
        let revoke = OrganizationCommand::RevokeInvitation {
            acting: Acting::User(BEA),
            invitation_id: InvitationId(Uuid::from_u128(30)),
            at: at(3),
        };
        assert_eq!(organization.execute(revoke), Err(OrganizationError::AboveOneself));
    }
}
