//! Redeeming a magic link: it proves control of the mailbox, or registers its reader.

use jiff::Timestamp;

use super::enter::{AppClosed, require_active};
use crate::app::App;
use crate::draft::Draft;
use crate::email::Email;
use crate::ids::UserId;
use crate::magic_link::{Account, MagicLink, MagicLinkCommand, MagicLinkError};
use crate::user::{
    Client, MailboxCommand, MailboxProof, Origin, Profile, RegistrationMethod, User, UserCommand, UserError,
};

/// Redeems a link.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct RedeemLink {
    /// The user with the address, as last seen, or the id for a new one.
    pub user_id: UserId,
    /// Whether the address has a user.
    pub is_owned: bool,
    /// The address the link was sent to.
    pub email: Email,
    pub client: Client,
    pub at: Timestamp,
}

/// Why the link is not redeemed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRedeemed {
    /// The app takes no requests.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// The link refused.
    #[error(transparent)]
    Link(#[from] MagicLinkError),
    /// The address has another owner than the one seen: look again.
    #[error("the address changed hands")]
    AddressMoved,
    /// The person is banned.
    #[error("the user is banned")]
    Banned,
    /// Another link to the address registered the person, who has changed their address since.
    #[error("the account was made by another link")]
    MadeByTwin,
    /// The account refused.
    #[error(transparent)]
    User(UserError),
}

impl RedeemLink {
    /// Decides it.
    ///
    /// # Errors
    /// See [`NotRedeemed`].
    pub fn decide(
        &self,
        app: &App,
        user: &mut Draft<User>,
        link: &mut Draft<MagicLink>,
    ) -> Result<(), NotRedeemed> {
        let app_id = require_active(app)?;
        let Self { user_id, is_owned, email, client, at } = self.clone();
        // Checked first, so that a used link says so, whatever became of the account.
        let issued = link.require_live(at)?;
        if issued.app_id != *app_id || issued.email.as_ref() != Some(&email) {
            return Err(MagicLinkError::Absent.into());
        }
        let account = if is_owned {
            // The claim on the address, or the read model, may name the wrong owner.
            if !user.is_of(app_id) {
                return Err(NotRedeemed::AddressMoved);
            }
            let before = user.access();
            let prove = MailboxCommand::ProveEmail { email, proof: MailboxProof::MagicLink, at };
            user.execute(prove.into()).map_err(|error| match error {
                UserError::OtherEmail | UserError::Absent => NotRedeemed::AddressMoved,
                UserError::Banned => NotRedeemed::Banned,
                other => NotRedeemed::User(other),
            })?;
            Account::Existing { user_id, epoch: user.epoch, before, admin_since: app.admin_since(user) }
        } else {
            let register = UserCommand::Register {
                user_id,
                app_id: app_id.clone(),
                method: RegistrationMethod::MagicLink,
                email,
                proof: Some(MailboxProof::MagicLink),
                password_hash: None,
                profile: Profile::default(),
                origin: Origin::default(),
                client: client.clone(),
                at,
            };
            user.execute(register).map_err(|error| match error {
                UserError::Exists => NotRedeemed::MadeByTwin,
                other => NotRedeemed::User(other),
            })?;
            Account::New
        };
        let settings = Box::new(app.settings.clone());
        Ok(link.execute(MagicLinkCommand::Redeem { account, settings, client, at })?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::app_id::AppId;
    use crate::settings::Registration;
    use crate::user::{RoleGranted, UserEvent, UserUnbanned};

    fn redeem(is_owned: bool) -> RedeemLink {
        RedeemLink { user_id: USER, is_owned, email: email(), client: Client::default(), at: at(10) }
    }

    #[test]
    fn proves_the_address_of_who_has_it() {
        let (mut user, mut link) = (registered(), link(Some(0)));
        redeem(true).decide(&app(), &mut user, &mut link).expect("is redeemed");
        assert_eq!((user.decided(), link.decided()), (vec!["EmailVerified"], vec!["MagicLinkRedeemed"]));
        // The creator of the account had proven nothing.
        assert_eq!((user.password_hash.as_ref(), user.epoch), (None, 1));
    }

    #[test]
    fn registers_where_nobody_has_the_address_if_the_app_is_open() {
        let (mut user, mut link) = (Draft::new(), link(None));
        redeem(false).decide(&app(), &mut user, &mut link).expect("is redeemed");
        assert_eq!(user.decided(), ["UserRegistered", "EmailVerified"]);
        let closed = app_with(AppId::default_app(), |it| it.registration = Registration::Closed);
        let refused =
            redeem(false).decide(&closed, &mut Draft::new(), &mut super::super::testing::link(None));
        assert_eq!(refused, Err(NotRedeemed::Link(MagicLinkError::RegistrationClosed)));
    }

    #[test]
    fn is_looked_at_again_where_the_address_changed_hands() {
        let other = RedeemLink { email: eve(), ..redeem(true) };
        for mut user in [registered(), user([erased()]), Draft::new()] {
            let mut link = link_to(AppId::default_app(), eve(), Some(0));
            let refused = other.decide(&app(), &mut user, &mut link);
            assert_eq!(refused, Err(NotRedeemed::AddressMoved));
        }
        let mut there = link_to(another_app().id.clone().expect("is there"), email(), Some(0));
        let refused = redeem(true).decide(&another_app(), &mut registered(), &mut there);
        assert_eq!(refused, Err(NotRedeemed::AddressMoved), "another app's user has the same address");
        let refused = redeem(false).decide(&app(), &mut registered(), &mut link(None));
        assert_eq!(refused, Err(NotRedeemed::MadeByTwin));
    }

    #[test]
    fn a_link_of_another_app_or_to_another_address_does_nothing() {
        let absent = Err(NotRedeemed::Link(MagicLinkError::Absent));
        let another = another_app().id.clone().expect("is there");
        for (is_owned, app_id, email) in [
            (true, another.clone(), email()),
            (false, another, email()),
            (true, AppId::default_app(), eve()),
            (false, AppId::default_app(), eve()),
        ] {
            let mut user = if is_owned { registered() } else { Draft::new() };
            let mut link = link_to(app_id, email, None);
            assert_eq!(redeem(is_owned).decide(&app(), &mut user, &mut link), absent);
            assert!(user.events().is_empty() && link.events().is_empty());
        }
    }

    /// An app's server that asked for a link to an address of nobody was not asked whether it may act on an admin.
    #[test]
    fn an_admin_comes_in_only_by_a_link_that_was_made_for_them() {
        // By a clock that was behind, so that the link looks newer than the role.
        let (role, access_ended) = (crate::role::Role::admin(), false);
        let granted = RoleGranted { user_id: USER, role, access_ended, admin_role_changes: None, at: at(-5) };
        let admin = || user([verified(), UserEvent::RoleGranted(granted.clone())]);
        redeem(true).decide(&app(), &mut admin(), &mut link(Some(0))).expect("is redeemed");
        let refused = redeem(true).decide(&app(), &mut admin(), &mut link(None));
        assert_eq!(refused, Err(NotRedeemed::Link(MagicLinkError::Superseded)));
        redeem(true).decide(&app(), &mut user([verified()]), &mut link(None)).expect("nobody else does");
    }

    #[test]
    fn a_ban_and_the_end_of_a_ban_end_the_link() {
        let refused = redeem(true).decide(&app(), &mut user([banned()]), &mut link(Some(0)));
        assert_eq!(refused, Err(NotRedeemed::Banned));
        let unbanned = UserEvent::UserUnbanned(UserUnbanned { user_id: USER, at: at(2) });
        let refused = redeem(true).decide(&app(), &mut user([banned(), unbanned]), &mut link(Some(0)));
        assert_eq!(refused, Err(NotRedeemed::Link(MagicLinkError::Superseded)));
    }

    #[test]
    fn a_link_that_is_used_up_says_so_whatever_became_of_the_account() {
        let mut used = link(Some(0));
        redeem(true).decide(&app(), &mut registered(), &mut used).expect("is redeemed");
        let refused = redeem(true).decide(&app(), &mut user([banned()]), &mut used);
        assert_eq!(refused, Err(NotRedeemed::Link(MagicLinkError::Used)));
        let refused = redeem(true).decide(&disabled(), &mut registered(), &mut used);
        assert_eq!(refused, Err(NotRedeemed::App(AppClosed::Disabled)));
    }
}
