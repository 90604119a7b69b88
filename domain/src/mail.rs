//! Which mails an event asks for.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Event;
use crate::email::Email;
use crate::ids::UserId;
use crate::magic_link::MagicLinkEvent;
use crate::organization::OrganizationEvent;
use crate::settings::SentBy;
use crate::user::{EmailChangeRequested, ResetReason, UserEvent};

/// The purpose of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailKind {
    /// A link to log in with.
    MagicLink,
    /// A link that verifies the address.
    EmailVerification,
    /// A link, sent to the new address, that makes it the account's.
    EmailChange,
    /// A notice, sent to the current address, of a pending change.
    EmailChangeNotice,
    /// A link to choose a new password with.
    PasswordReset,
    /// A notice that somebody tried to register with the address of an existing account, with a link to reset its
    /// password.
    AddressTaken,
    /// A link to accept an invitation to an organization with.
    Invitation,
    /// A notice to an app's admin that a webhook was disabled.
    WebhookDisabled,
}

impl MailKind {
    /// The name it is stored under.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MagicLink => "magic_link",
            Self::EmailVerification => "email_verification",
            Self::EmailChange => "email_change",
            Self::EmailChangeNotice => "email_change_notice",
            Self::PasswordReset => "password_reset",
            Self::AddressTaken => "address_taken",
            Self::Invitation => "invitation",
            Self::WebhookDisabled => "webhook_disabled",
        }
    }

    /// Whether it only tells of something: it has no link, and nothing to do but to read it.
    pub fn is_notice(self) -> bool {
        matches!(self, Self::EmailChangeNotice | Self::WebhookDisabled)
    }
}

/// A mail to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The purpose.
    pub kind: MailKind,
    /// The user it is for.
    pub user_id: UserId,
    /// The recipient address.
    pub to: Email,
    /// When its token expires and the mail becomes useless; absent without a token.
    pub expires_at: Option<Timestamp>,
}

/// The mails that Watchword sends because of an event: none if the app sends them itself, or the person was erased.
/// They are a function of the event alone, so that a retry after a restart sends the same.
pub fn mails_of(event: &Event) -> Vec<Mail> {
    let mails = match event {
        Event::MagicLink(MagicLinkEvent::MagicLinkIssued(event)) if event.delivery == SentBy::Platform => {
            let end = Some(event.expires_at);
            [mail(MailKind::MagicLink, event.user_id, event.personal.email.as_ref(), end), None]
        }
        Event::User(UserEvent::EmailVerificationRequested(event)) if event.delivery == SentBy::Platform => {
            let end = Some(event.expires_at);
            [mail(MailKind::EmailVerification, event.user_id, event.personal.email.as_ref(), end), None]
        }
        Event::User(UserEvent::EmailChangeRequested(event)) if event.delivery == SentBy::Platform => {
            let EmailChangeRequested { user_id, expires_at, personal, .. } = event;
            [
                mail(MailKind::EmailChange, *user_id, personal.email.as_ref(), Some(*expires_at)),
                mail(MailKind::EmailChangeNotice, *user_id, personal.previous_email.as_ref(), None),
            ]
        }
        Event::User(UserEvent::PasswordResetRequested(event)) if event.delivery == SentBy::Platform => {
            let kind = match event.reason {
                ResetReason::Forgotten => MailKind::PasswordReset,
                ResetReason::AddressTaken => MailKind::AddressTaken,
                ResetReason::Admin => return vec![],
            };
            [mail(kind, event.user_id, event.personal.email.as_ref(), Some(event.expires_at)), None]
        }
        Event::Organization(OrganizationEvent::MemberInvited(event))
            if event.delivery == SentBy::Platform =>
        {
            let end = Some(event.expires_at);
            [mail(MailKind::Invitation, event.invitee_id, event.personal.email.as_ref(), end), None]
        }
        Event::User(UserEvent::WebhookNoticeRequested(event)) if event.delivery == SentBy::Platform => {
            [mail(MailKind::WebhookDisabled, event.user_id, event.personal.email.as_ref(), None), None]
        }
        _ => [None, None],
    };
    mails.into_iter().flatten().collect()
}

/// Whether events of this name may request a mail; others need not be opened.
pub fn asks_for_mail(name: &str) -> bool {
    matches!(
        name,
        "MagicLinkIssued"
            | "EmailVerificationRequested"
            | "EmailChangeRequested"
            | "PasswordResetRequested"
            | "MemberInvited"
            | "WebhookNoticeRequested"
    )
}

fn mail(kind: MailKind, user_id: UserId, to: Option<&Email>, expires_at: Option<Timestamp>) -> Option<Mail> {
    to.map(|to| Mail { kind, user_id, to: to.clone(), expires_at })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::app_id::AppId;
    use crate::delivery::FailureReason;
    use crate::ids::SessionId;
    use crate::magic_link::{MagicLinkId, MagicLinkIssued};
    use crate::organization::{InvitationId, MemberInvited, OrganizationId};
    use crate::personal::Personal;
    use crate::redirect_uri::RedirectUri;
    use crate::user::{EmailVerificationRequested, PasswordResetRequested, WebhookNoticeRequested};
    use crate::webhook::WebhookId;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("in range")
    }

    fn email(text: &str) -> Email {
        Email::parse(text).expect("valid")
    }

    fn change(delivery: SentBy, personal: Personal) -> Event {
        Event::User(UserEvent::EmailChangeRequested(EmailChangeRequested {
            user_id: UserId(uuid::Uuid::from_u128(7)),
            generation: 1,
            session_id: SessionId(uuid::Uuid::from_u128(8)),
            delivery,
            expires_at: at(60),
            at: at(0),
            personal,
        }))
    }

    fn reset(reason: ResetReason) -> Event {
        Event::User(UserEvent::PasswordResetRequested(PasswordResetRequested {
            user_id: UserId(uuid::Uuid::from_u128(7)),
            generation: 1,
            reason,
            delivery: SentBy::Platform,
            expires_at: at(60),
            full_admin: false,
            at: at(0),
            personal: Personal { email: Some(email("ada@example.com")), ..Personal::default() },
        }))
    }

    #[test]
    fn a_change_of_address_is_told_to_both_addresses_and_only_the_new_one_gets_a_token() {
        let personal = Personal {
            email: Some(email("new@example.com")),
            previous_email: Some(email("ada@example.com")),
            ..Personal::default()
        };
        let mails = mails_of(&change(SentBy::Platform, personal.clone()));
        let told: Vec<_> = mails.iter().map(|mail| (mail.kind, mail.to.as_str(), mail.expires_at)).collect();
        assert_eq!(
            told,
            [
                (MailKind::EmailChange, "new@example.com", Some(at(60))),
                (MailKind::EmailChangeNotice, "ada@example.com", None),
            ]
        );
        assert_eq!(mails_of(&change(SentBy::App, personal)), []);
        assert_eq!(mails_of(&change(SentBy::Platform, Personal::default())), [], "the person was erased");
    }

    #[test]
    fn a_reset_says_why() {
        let kinds = |reason| mails_of(&reset(reason)).iter().map(|mail| mail.kind).collect::<Vec<_>>();
        assert_eq!(kinds(ResetReason::Forgotten), [MailKind::PasswordReset]);
        assert_eq!(kinds(ResetReason::AddressTaken), [MailKind::AddressTaken]);
        assert_eq!(kinds(ResetReason::Admin), []);
    }

    #[test]
    fn whatever_asks_for_a_mail_is_known_by_its_name() {
        let personal = Personal {
            email: Some(email("new@example.com")),
            previous_email: Some(email("ada@example.com")),
            ..Personal::default()
        };
        let user_id = UserId(uuid::Uuid::from_u128(7));
        let (expires_at, at, delivery) = (at(60), at(0), SentBy::Platform);
        let verification = EmailVerificationRequested {
            user_id,
            generation: 1,
            delivery,
            expires_at,
            full_admin: false,
            at,
            personal: personal.clone(),
        };
        let link = MagicLinkIssued {
            link_id: MagicLinkId(uuid::Uuid::from_u128(9)),
            user_id,
            app_id: AppId::default_app(),
            epoch: None,
            redirect_uri: RedirectUri::parse("https://app.example/").expect("valid"),
            code_challenge: None,
            delivery,
            expires_at,
            at,
            personal: personal.clone(),
        };
        let invited = MemberInvited {
            organization_id: OrganizationId(uuid::Uuid::from_u128(10)),
            invitation_id: InvitationId(uuid::Uuid::from_u128(11)),
            invitee_id: user_id,
            role: crate::Role::owner(),
            invited_by: Some(user_id),
            key_id: None,
            as_admin: false,
            delivery,
            expires_at,
            at,
            personal: personal.clone(),
        };
        let notice = WebhookNoticeRequested {
            user_id,
            webhook_id: WebhookId(uuid::Uuid::from_u128(10)),
            failing_since: at,
            delivery,
            at,
            personal: personal.clone(),
        };
        let mut kinds = BTreeSet::new();
        for event in [
            Event::Organization(OrganizationEvent::MemberInvited(invited)),
            Event::User(UserEvent::EmailVerificationRequested(verification)),
            Event::MagicLink(MagicLinkEvent::MagicLinkIssued(link)),
            change(SentBy::Platform, personal),
            reset(ResetReason::Forgotten),
            reset(ResetReason::AddressTaken),
            Event::User(UserEvent::WebhookNoticeRequested(notice)),
        ] {
            assert!(asks_for_mail(event.name()), "{}", event.name());
            kinds.extend(mails_of(&event).iter().map(|mail| mail.kind));
        }
        assert_eq!(kinds.len(), 8, "each kind of mail has an event here: {kinds:?}");
        assert!(!asks_for_mail("UserRegistered"));
    }

    #[test]
    fn reasons_are_stored_under_their_names() {
        for reason in [
            FailureReason::Unreachable,
            FailureReason::Deferred,
            FailureReason::Rejected,
            FailureReason::NotMade,
            FailureReason::Expired,
        ] {
            assert_eq!(serde_json::to_value(reason).expect("JSON"), reason.as_str());
        }
    }

    #[test]
    fn kinds_are_stored_under_their_names() {
        for kind in [
            MailKind::MagicLink,
            MailKind::EmailVerification,
            MailKind::EmailChange,
            MailKind::EmailChangeNotice,
            MailKind::PasswordReset,
            MailKind::AddressTaken,
            MailKind::Invitation,
            MailKind::WebhookDisabled,
        ] {
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.as_str());
        }
    }
}
