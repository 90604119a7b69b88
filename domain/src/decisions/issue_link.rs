//! Issuing a magic link to an address, possibly replacing an earlier one.

use jiff::Timestamp;

use super::enter::AppClosed;
use super::recipient::{Recipient, TokenOfAdmin};
use crate::app::App;
use crate::draft::Draft;
use crate::ids::UserId;
use crate::magic_link::{MagicLink, MagicLinkCommand, MagicLinkError, MagicLinkId};
use crate::pkce::CodeChallenge;
use crate::redirect_uri::RedirectUri;
use crate::settings::Registration;
use crate::user::{Client, User};

/// Issues a link. Does nothing if the address has no account and the app is closed, or if its user may not enter.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct IssueLink {
    /// The new link.
    pub link_id: MagicLinkId,
    /// The user with the address, or a new id.
    pub user_id: UserId,
    /// The recipient of the mail.
    pub recipient: Recipient,
    /// Where the browser is sent with the code.
    pub redirect_uri: RedirectUri,
    /// The `state` that the app gets back there.
    pub state: Option<String>,
    /// The challenge whose verifier the app must present.
    pub code_challenge: Option<CodeChallenge>,
    pub client: Client,
    pub at: Timestamp,
}

/// Why no link is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotIssued {
    /// The app takes no requests.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// The recipient may not have it.
    #[error(transparent)]
    TokenOfAdmin(#[from] TokenOfAdmin),
    /// The link refused.
    #[error(transparent)]
    Link(#[from] MagicLinkError),
}

impl IssueLink {
    /// Decides it. `user` is the user with the address, if any; `superseded` is the link that this one replaces, if
    /// any.
    ///
    /// # Errors
    /// See [`NotIssued`].
    pub fn decide(
        &self,
        app: &App,
        user: Option<&User>,
        superseded: Option<&mut Draft<MagicLink>>,
        link: &mut Draft<MagicLink>,
    ) -> Result<(), NotIssued> {
        let app_id = self.recipient.require_active(app)?;
        let settings = &app.settings;
        let is_wanted = match user {
            Some(user) => self.recipient.is(app, user)?,
            None => settings.registration == Registration::Open && self.recipient.email.may_be_new(),
        };
        if !is_wanted {
            return Ok(());
        }
        let at = self.at;
        // The claim that names it is a row that others may have written: it ends no link to anybody else.
        let is_to_them = |link: &MagicLink| {
            link.issued.as_ref().is_some_and(|issued| {
                issued.app_id == *app_id && issued.email.as_ref() == Some(&self.recipient.email)
            })
        };
        if let Some(superseded) = superseded.filter(|link| is_to_them(link)) {
            superseded.execute(MagicLinkCommand::Supersede { at })?;
        }
        let Self { link_id, user_id, redirect_uri, state, code_challenge, client, .. } = self.clone();
        Ok(link.execute(MagicLinkCommand::Issue {
            link_id,
            user_id,
            epoch: user.map(|user| user.epoch),
            app_id: app_id.clone(),
            settings: Box::new(settings.clone()),
            email: self.recipient.email.clone(),
            redirect_uri,
            state,
            code_challenge,
            client,
            at,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::app_id::AppId;
    use crate::email::Email;

    const NEXT: MagicLinkId = MagicLinkId(uuid::Uuid::from_u128(90));

    fn issue() -> IssueLink {
        let recipient = Recipient { app_id: AppId::default_app(), email: email(), server_is_limited: false };
        IssueLink {
            link_id: NEXT,
            user_id: USER,
            recipient,
            redirect_uri: callback(),
            state: None,
            code_challenge: None,
            client: Client::default(),
            at: at(10),
        }
    }

    #[test]
    fn takes_the_place_of_the_link_before() {
        let (mut before, mut next) = (link(Some(0)), Draft::new());
        issue().decide(&app(), Some(&registered()), Some(&mut before), &mut next).expect("is made");
        assert_eq!(
            (before.decided(), next.decided()),
            (vec!["MagicLinkSuperseded"], vec!["MagicLinkIssued"])
        );
        assert_eq!(next.issued.as_ref().and_then(|issued| issued.epoch), Some(0));
    }

    #[test]
    fn ends_no_link_of_another_app_or_to_another_address() {
        let another = another_app().id.clone().expect("is there");
        let to_another = link_to(another, email(), Some(0));
        let to_eve = link_to(AppId::default_app(), eve(), Some(0));
        for mut before in [to_another, to_eve, Draft::new()] {
            let mut next = Draft::new();
            issue().decide(&app(), Some(&registered()), Some(&mut before), &mut next).expect("is made");
            assert_eq!((before.decided(), next.decided()), (vec![], vec!["MagicLinkIssued"]));
        }
    }

    #[test]
    fn nobody_gets_one_in_a_closed_app_or_who_may_not_come_in() {
        let closed = app_with(AppId::default_app(), |it| it.registration = Registration::InviteOnly);
        let mut next = Draft::new();
        issue().decide(&closed, None, None, &mut next).expect("nothing comes of it");
        let banned = user([banned()]);
        issue().decide(&app(), Some(&banned), None, &mut next).expect("nothing comes of it");
        let mut option = issue();
        option.recipient.email = Email::parse("-f@example.com").expect("valid");
        option.decide(&app(), None, None, &mut next).expect("nothing comes of it");
        assert!(next.events().is_empty());
        issue().decide(&app(), None, None, &mut next).expect("is made");
        assert_eq!(next.issued.as_ref().and_then(|issued| issued.epoch), None);
    }

    #[test]
    fn refuses_what_the_app_does_not() {
        let elsewhere = IssueLink {
            redirect_uri: RedirectUri::parse("https://evil.example/").expect("valid"),
            ..issue()
        };
        let refused = elsewhere.decide(&app(), None, None, &mut Draft::new());
        assert_eq!(refused, Err(NotIssued::Link(MagicLinkError::RedirectNotAllowed)));
        for (app, why) in [(disabled(), AppClosed::Disabled), (another_app(), AppClosed::Absent)] {
            let refused = issue().decide(&app, None, None, &mut Draft::new());
            assert_eq!(refused, Err(NotIssued::App(why)));
        }
    }
}
