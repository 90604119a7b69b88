use uuid::Uuid;

use super::*;
use crate::Event;
use crate::event::Stream;
use crate::personal::Personal;
use crate::session::{
    LoginMethod, RevocationReason, SessionEvent, SessionRefreshed, SessionRevoked, SessionStarted,
};
use crate::settings::SentBy;
use crate::user::{
    EmailChanged, ErasureReason, RegistrationMethod, User, UserBanned, UserErased, UserEvent, UserRegistered,
};
use crate::{MagicLinkId, delivery, magic_link, redirect_uri};

const USER: UserId = UserId(Uuid::from_u128(7));
const SESSION: SessionId = SessionId(Uuid::from_u128(8));

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn address(text: &str) -> Claimed {
    let email = Some(Email::parse(text).expect("valid"));
    Claimed::Email { app_id: AppId::default_app(), email }
}

fn of(text: &str) -> Personal {
    Personal { email: Some(Email::parse(text).expect("valid")), ..Personal::default() }
}

fn registered() -> UserEvent {
    UserEvent::UserRegistered(UserRegistered {
        user_id: USER,
        app_id: AppId::default_app(),
        method: RegistrationMethod::Password,
        at: at(1),
        personal: of("ada@example.com"),
    })
}

fn moved() -> UserEvent {
    let personal = of("ada@elsewhere.example");
    UserEvent::EmailChanged(EmailChanged { user_id: USER, session_id: SESSION, at: at(2), personal })
}

fn erased() -> UserEvent {
    UserEvent::UserErased(UserErased { user_id: USER, reason: ErasureReason::Disowned, at: at(3) })
}

/// The claims in a user's state are those of its events: an append and a reader of the log compute the same.
#[test]
fn a_user_holds_by_its_state_what_it_holds_by_its_events() {
    use cqrs_es::Aggregate;
    let banned = UserEvent::UserBanned(UserBanned {
        user_id: USER,
        access_ended: true,
        at: at(2),
        personal: Personal::default(),
    });
    for history in [
        vec![registered()],
        vec![registered(), banned.clone(), moved()],
        vec![registered(), moved(), moved(), banned],
        vec![registered(), moved(), erased()],
    ] {
        let (mut user, mut holding) = (User::default(), Holding::default());
        for event in history {
            let by_state = event.claims(&user.held());
            assert_eq!(holding.see(&event), by_state);
            user.apply(event);
            let addresses: Vec<Claimed> = holding.of(ClaimKind::Email).cloned().collect();
            assert_eq!(user.held().of(ClaimKind::Email).cloned().collect::<Vec<_>>(), addresses);
        }
    }
}

#[test]
fn an_address_passes_to_the_next_and_is_given_back_by_an_erasure() {
    let mut holding = Holding::default();
    assert_eq!(holding.see(&registered()), [ClaimChange::Take(address("ada@example.com"))]);
    assert_eq!(
        holding.see(&moved()),
        [
            ClaimChange::Release(address("ada@example.com")),
            ClaimChange::Take(address("ada@elsewhere.example"))
        ]
    );
    assert_eq!(
        holding.see(&erased()),
        [ClaimChange::Release(address("ada@elsewhere.example")), ClaimChange::Take(Claimed::Erased(USER))]
    );
    assert_eq!(holding.iter().map(|held| held.claimed.clone()).collect::<Vec<_>>(), [Claimed::Erased(USER)]);
}

/// The key is gone, and with it every address: the rest of the event still says that there was one.
#[test]
fn an_address_that_cannot_be_read_any_more_is_still_one() {
    let mut unreadable = registered();
    let UserEvent::UserRegistered(event) = &mut unreadable else { unreachable!("made above") };
    event.personal = Personal::default();
    let mut holding = Holding::default();
    holding.see(&Event::from(unreadable));
    let held: Vec<_> = holding.of(ClaimKind::Email).cloned().collect();
    assert_eq!(held, [Claimed::Email { app_id: AppId::default_app(), email: None }]);
}

#[test]
fn a_session_holds_its_place_until_it_is_revoked_or_its_time_is_over() {
    let place = Claimed::Session { user_id: USER, session_id: SESSION };
    let started = SessionEvent::SessionStarted(SessionStarted {
        session_id: SESSION,
        user_id: USER,
        app_id: AppId::default_app(),
        method: LoginMethod::Password,
        epoch: 0,
        expires_at: at(100),
        idle_expires_at: at(10),
        at: at(1),
        personal: Personal::default(),
    });
    let refreshed = SessionEvent::SessionRefreshed(SessionRefreshed {
        session_id: SESSION,
        user_id: USER,
        generation: 1,
        idle_expires_at: at(20),
        at: at(5),
        personal: Personal::default(),
    });
    let reason = RevocationReason::Logout;
    let revoked = SessionEvent::SessionRevoked(SessionRevoked {
        session_id: SESSION,
        user_id: USER,
        reason,
        at: at(6),
    });
    let mut holding = Holding::default();
    assert_eq!(holding.see(&started), [ClaimChange::TakeUntil(place.clone(), at(10))]);
    assert_eq!(holding.see(&refreshed), [ClaimChange::Extend(place.clone(), at(20))]);
    assert_eq!(holding.iter().next(), Some(&Held { claimed: place.clone(), until: Some(at(20)) }));
    assert_eq!(holding.see(&revoked), [ClaimChange::Release(place)]);
    assert!(holding.is_empty());
}

#[test]
fn the_newest_link_takes_the_place_of_the_one_before() {
    let issued = magic_link::MagicLinkEvent::MagicLinkIssued(magic_link::MagicLinkIssued {
        link_id: MagicLinkId(Uuid::from_u128(1)),
        user_id: USER,
        app_id: AppId::default_app(),
        epoch: None,
        redirect_uri: redirect_uri::RedirectUri::parse("https://app.example/callback").expect("valid"),
        code_challenge: None,
        delivery: SentBy::Platform,
        expires_at: at(100),
        at: at(1),
        personal: of("ada@example.com"),
    });
    let email = Some(Email::parse("ada@example.com").expect("valid"));
    let place = Claimed::MagicLink { app_id: AppId::default_app(), email };
    let changes = Holding::default().see(&issued);
    assert_eq!(changes, [ClaimChange::Release(place.clone()), ClaimChange::Take(place)]);
}

#[test]
fn a_mail_is_in_one_list_at_most() {
    let (event_id, mail) = (EventId(Uuid::from_u128(1)), MailKind::MagicLink);
    let (waiting, failed) = (Claimed::MailWaiting(event_id, mail), Claimed::MailFailed(event_id, mail));
    let try_again = |retry_at| {
        delivery::DeliveryEvent::MailFailed(delivery::MailFailed {
            event_id,
            user_id: USER,
            mail,
            attempt: 1,
            reason: delivery::FailureReason::Deferred,
            smtp_code: None,
            retry_at,
            asked_again: false,
            at: at(1),
        })
    };
    let sent = delivery::DeliveryEvent::MailSent(delivery::MailSent {
        event_id,
        user_id: USER,
        mail,
        attempt: 2,
        at: at(3),
    });
    let mut holding = Holding::default();
    let release = |claimed: &Claimed| ClaimChange::Release(claimed.clone());
    let take = |claimed: &Claimed| ClaimChange::Take(claimed.clone());
    assert_eq!(holding.see(&try_again(Some(at(9)))), [release(&failed), take(&waiting)]);
    assert_eq!(holding.see(&try_again(None)), [release(&waiting), take(&failed)]);
    assert_eq!(holding.iter().map(|held| &held.claimed).collect::<Vec<_>>(), [&failed]);
    assert_eq!(holding.see(&sent), [release(&waiting), release(&failed)]);
    assert!(holding.is_empty());
}

/// They are stored under these names, which never change.
#[test]
fn kinds_have_the_names_they_always_had() {
    let names: Vec<&str> = ClaimKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(
        names,
        [
            "app",
            "email",
            "erased",
            "journal",
            "magic_link",
            "mail_failed",
            "mail_waiting",
            "session",
            "slug",
            "webhook",
            "webhook_failed",
            "webhook_waiting"
        ]
    );
}
