use cqrs_es::Aggregate;
use cqrs_es::test::TestFramework;

use super::*;
use crate::app_id::AppId;
use crate::session::{LoginMethod, Session, SessionEvent, SessionStarted};
use crate::user::{Client, Origin, Profile, RegistrationMethod, UserBanned, UserCommand, UserRegistered};

type UserTest = TestFramework<User>;

const TTL: u32 = 100;

fn user_id() -> UserId {
    UserId(uuid::Uuid::from_u128(7))
}

fn session_id(n: u128) -> SessionId {
    SessionId(uuid::Uuid::from_u128(n))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn email(text: &str) -> Email {
    Email::parse(text).expect("valid")
}

fn ada() -> Email {
    email("ada@example.com")
}

fn hash(text: &str) -> PasswordHash {
    PasswordHash(text.to_owned())
}

fn client() -> Client {
    Client { ip: Some("192.0.2.7".to_owned()), user_agent: None }
}

/// With the password `old` and an unproven address.
fn registered() -> UserEvent {
    UserEvent::UserRegistered(UserRegistered {
        user_id: user_id(),
        app_id: AppId::default_app(),
        method: RegistrationMethod::Password,
        at: at(0),
        personal: Personal { email: Some(ada()), password_hash: Some(hash("old")), ..Personal::default() },
    })
}

fn proven(proof: MailboxProof, earlier_access_ended: bool, second: i64) -> UserEvent {
    let ended = Ended { access: earlier_access_ended, profile: false };
    verified(user_id(), &ada(), proof, ended, at(second))
}

fn verification_requested(generation: u32, second: i64) -> UserEvent {
    UserEvent::EmailVerificationRequested(EmailVerificationRequested {
        user_id: user_id(),
        generation,
        delivery: SentBy::Platform,
        expires_at: at(second + i64::from(TTL)),
        full_admin: false,
        at: at(second),
        personal: Personal { email: Some(ada()), ..Personal::default() },
    })
}

fn change_requested(generation: u32, to: &str, second: i64) -> UserEvent {
    UserEvent::EmailChangeRequested(EmailChangeRequested {
        user_id: user_id(),
        generation,
        session_id: session_id(1),
        delivery: SentBy::Platform,
        expires_at: at(second + i64::from(TTL)),
        at: at(second),
        personal: Personal { email: Some(email(to)), previous_email: Some(ada()), ..Personal::of(client()) },
    })
}

fn changed(to: &str, second: i64) -> UserEvent {
    let personal = Personal { email: Some(email(to)), previous_email: Some(ada()), ..Personal::default() };
    let (user_id, session_id) = (user_id(), session_id(1));
    UserEvent::EmailChanged(EmailChanged { user_id, session_id, at: at(second), personal })
}

fn reset_requested(generation: u32, reason: ResetReason, second: i64) -> UserEvent {
    let delivery = if reason == ResetReason::Admin { SentBy::App } else { SentBy::Platform };
    UserEvent::PasswordResetRequested(PasswordResetRequested {
        user_id: user_id(),
        generation,
        reason,
        delivery,
        expires_at: at(second + i64::from(TTL)),
        full_admin: false,
        at: at(second),
        personal: Personal { email: Some(ada()), ..Personal::of(client()) },
    })
}

fn reset(new: &str, second: i64) -> UserEvent {
    let personal = Personal { password_hash: Some(hash(new)), ..Personal::of(client()) };
    UserEvent::PasswordReset(PasswordReset { user_id: user_id(), at: at(second), personal })
}

fn password_changed(second: i64) -> UserEvent {
    let personal = Personal { password_hash: Some(hash("new")), ..Personal::default() };
    let (user_id, session_id) = (user_id(), session_id(1));
    UserEvent::PasswordChanged(PasswordChanged { user_id, session_id, at: at(second), personal })
}

fn request_verification(second: i64) -> UserCommand {
    let delivery = SentBy::Platform;
    MailboxCommand::RequestEmailVerification { delivery, full_admin: false, ttl: TTL, at: at(second) }.into()
}

fn verify(generation: u32, second: i64) -> UserCommand {
    MailboxCommand::VerifyEmail { generation, at: at(second) }.into()
}

fn prove(text: &str, second: i64) -> UserCommand {
    let proof = MailboxProof::MagicLink;
    MailboxCommand::ProveEmail { email: email(text), proof, at: at(second) }.into()
}

fn request_change(to: &str, checked: &str, second: i64) -> UserCommand {
    MailboxCommand::RequestEmailChange {
        new_email: email(to),
        checked: hash(checked),
        session_id: session_id(1),
        delivery: SentBy::Platform,
        ttl: TTL,
        client: client(),
        at: at(second),
    }
    .into()
}

fn confirm_change(generation: u32, second: i64) -> UserCommand {
    MailboxCommand::ConfirmEmailChange { generation, at: at(second) }.into()
}

fn request_reset(reason: ResetReason, second: i64) -> UserCommand {
    let (delivery, client, full_admin) = (SentBy::Platform, client(), false);
    let at = at(second);
    MailboxCommand::RequestPasswordReset { reason, delivery, full_admin, ttl: TTL, client, at }.into()
}

fn reset_password(generation: u32, second: i64) -> UserCommand {
    let (password_hash, client) = (hash("new"), client());
    MailboxCommand::ResetPassword { generation, password_hash, client, at: at(second) }.into()
}

fn change_password(checked: &str, second: i64) -> UserCommand {
    let (checked, new, session_id) = (hash(checked), hash("new"), session_id(1));
    MailboxCommand::ChangePassword { checked, new, session_id, at: at(second) }.into()
}

async fn then(given: Vec<UserEvent>, when: UserCommand, expected: Vec<UserEvent>) {
    UserTest::with(()).given(given).when_async(when).await.then_expect_events(expected);
}

async fn then_refused(given: Vec<UserEvent>, when: UserCommand, error: UserError) {
    UserTest::with(()).given(given).when_async(when).await.then_expect_error(error);
}

fn user(events: impl IntoIterator<Item = UserEvent>) -> User {
    let mut user = User::default();
    for event in events {
        user.apply(event);
    }
    user
}

fn session(n: u128, epoch: u32) -> Session {
    let mut session = Session::default();
    session.apply(SessionEvent::SessionStarted(SessionStarted {
        session_id: session_id(n),
        user_id: user_id(),
        app_id: AppId::default_app(),
        method: LoginMethod::Password,
        epoch,
        expires_at: at(1000),
        idle_expires_at: at(1000),
        at: at(0),
        personal: Personal::default(),
    }));
    session
}

#[tokio::test]
async fn a_verification_proves_the_address_once() {
    let requested = verification_requested(1, 1);
    then(vec![registered()], request_verification(1), vec![requested.clone()]).await;
    let given = vec![registered(), requested];
    let proof = proven(MailboxProof::Verification, false, 5);
    then(given.clone(), verify(1, 5), vec![proof.clone()]).await;
    then_refused(given.clone(), verify(1, 101), UserError::InvalidToken).await;
    then_refused(given.clone(), verify(2, 5), UserError::InvalidToken).await;
    let given = [given, vec![proof]].concat();
    then_refused(given.clone(), verify(1, 6), UserError::AlreadyVerified).await;
    then_refused(given.clone(), verify(2, 6), UserError::InvalidToken).await;
    then(given, request_verification(7), vec![]).await;
}

#[tokio::test]
async fn a_second_mail_does_not_spoil_the_first() {
    let given = vec![registered(), verification_requested(1, 1), verification_requested(2, 5)];
    for generation in [1, 2] {
        let proof = proven(MailboxProof::Verification, false, 6);
        then(given.clone(), verify(generation, 6), vec![proof]).await;
    }
}

#[tokio::test]
async fn whoever_confirms_a_registration_keeps_its_password_and_sessions() {
    let user =
        user([registered(), verification_requested(1, 1), proven(MailboxProof::Verification, false, 5)]);
    assert!(user.email_verified && user.password_hash == Some(hash("old")));
    assert!(user.keeps(&session(1, 0)));
}

#[tokio::test]
async fn a_proof_ends_the_change_of_address_that_a_squatter_has_asked_for() {
    for proof in [MailboxProof::Verification, MailboxProof::MagicLink, MailboxProof::PasswordReset] {
        let given = vec![registered(), change_requested(1, "eve@evil.example", 1), proven(proof, false, 2)];
        then_refused(given, confirm_change(1, 3), UserError::InvalidToken).await;
    }
}

#[tokio::test]
async fn inv_q_somebody_who_proves_the_mailbox_gets_it_without_what_was_set_up_before() {
    let given = vec![
        registered(),
        change_requested(1, "eve@example.com", 1),
        reset_requested(1, ResetReason::Admin, 1),
    ];
    let proof = proven(MailboxProof::MagicLink, true, 5);
    then(given.clone(), prove("ada@example.com", 5), vec![proof.clone()]).await;
    let given = [given, vec![proof]].concat();
    let taken_over = user(given.clone());
    assert!(taken_over.email_verified);
    assert_eq!(taken_over.password_hash, None);
    assert!(!taken_over.keeps(&session(1, 0)), "an earlier session");
    assert!(taken_over.keeps(&session(2, 1)), "one that the proof leads to");
    then_refused(given.clone(), confirm_change(1, 6), UserError::InvalidToken).await;
    then_refused(given.clone(), reset_password(1, 6), UserError::InvalidToken).await;
    then(given, prove("ada@example.com", 7), vec![]).await;
}

#[tokio::test]
async fn a_proof_takes_nothing_from_an_account_whose_address_was_proven_before() {
    let given =
        vec![registered(), verification_requested(1, 1), proven(MailboxProof::Verification, false, 2)];
    then(given, prove("ada@example.com", 5), vec![]).await;
}

#[tokio::test]
async fn inv_q_a_proof_of_another_address_proves_nothing() {
    then_refused(vec![registered()], prove("eve@example.com", 5), UserError::OtherEmail).await;
    let moved = vec![registered(), change_requested(1, "new@example.com", 1), changed("new@example.com", 2)];
    then_refused(moved, prove("ada@example.com", 5), UserError::OtherEmail).await;
}

#[tokio::test]
async fn an_account_made_with_a_proof_is_verified_and_lost_nothing() {
    let register = UserCommand::Register {
        user_id: user_id(),
        app_id: AppId::default_app(),
        method: RegistrationMethod::MagicLink,
        email: ada(),
        proof: Some(MailboxProof::MagicLink),
        password_hash: None,
        profile: Profile::default(),
        origin: Origin::default(),
        client: client(),
        at: at(0),
    };
    let made = UserEvent::UserRegistered(UserRegistered {
        user_id: user_id(),
        app_id: AppId::default_app(),
        method: RegistrationMethod::MagicLink,
        at: at(0),
        personal: Personal { email: Some(ada()), ..Personal::of(client()) },
    });
    let expected = vec![made, proven(MailboxProof::MagicLink, false, 0)];
    UserTest::with(()).given_no_previous_events().when_async(register).await.then_expect_events(expected);
}

#[tokio::test]
async fn a_change_of_address_needs_the_password_and_a_token_from_the_new_one() {
    let requested = change_requested(1, "new@example.com", 1);
    then(vec![registered()], request_change("new@example.com", "old", 1), vec![requested.clone()]).await;
    then_refused(vec![registered()], request_change("new@example.com", "no", 1), UserError::OtherPassword)
        .await;
    then(vec![registered()], request_change("ada@example.com", "old", 1), vec![]).await;
    let given = vec![registered(), requested];
    then(given.clone(), confirm_change(1, 5), vec![changed("new@example.com", 5)]).await;
    then_refused(given.clone(), confirm_change(1, 101), UserError::InvalidToken).await;
    let given = [given, vec![changed("new@example.com", 5)]].concat();
    then_refused(given.clone(), confirm_change(1, 6), UserError::InvalidToken).await;
    let user = user(given);
    assert_eq!(user.email, Some(email("new@example.com")));
    assert!(user.email_verified);
    assert!(user.keeps(&session(1, 0)), "the session that asked");
    assert!(!user.keeps(&session(2, 0)), "any other");
}

#[tokio::test]
async fn a_newer_change_of_address_takes_the_place_of_the_one_before() {
    let given = vec![
        registered(),
        change_requested(1, "one@example.com", 1),
        change_requested(2, "two@example.com", 2),
    ];
    then_refused(given.clone(), confirm_change(1, 3), UserError::InvalidToken).await;
    then(given, confirm_change(2, 3), vec![changed("two@example.com", 3)]).await;
}

#[tokio::test]
async fn tokens_sent_to_an_address_end_when_it_changes() {
    let given = vec![
        registered(),
        verification_requested(1, 1),
        reset_requested(1, ResetReason::Forgotten, 1),
        change_requested(1, "new@example.com", 1),
        changed("new@example.com", 2),
    ];
    then_refused(given.clone(), verify(1, 3), UserError::InvalidToken).await;
    then_refused(given, reset_password(1, 3), UserError::InvalidToken).await;
}

#[tokio::test]
async fn a_reset_sets_the_password_and_proves_the_mailbox() {
    let requested = reset_requested(1, ResetReason::Forgotten, 1);
    then(vec![registered()], request_reset(ResetReason::Forgotten, 1), vec![requested.clone()]).await;
    let proof = proven(MailboxProof::PasswordReset, false, 5);
    let given = vec![registered(), requested];
    then(given.clone(), reset_password(1, 5), vec![reset("new", 5), proof]).await;
    then_refused(given, reset_password(1, 101), UserError::InvalidToken).await;
    let known = vec![
        registered(),
        verification_requested(1, 0),
        proven(MailboxProof::Verification, false, 1),
        reset_requested(1, ResetReason::AddressTaken, 1),
    ];
    then(known, reset_password(1, 5), vec![reset("new", 5)]).await;
}

#[tokio::test]
async fn inv_q_a_token_that_an_admin_hands_on_proves_nothing_about_the_mailbox() {
    let requested = reset_requested(1, ResetReason::Admin, 1);
    then(vec![registered()], request_reset(ResetReason::Admin, 1), vec![requested.clone()]).await;
    then(vec![registered(), requested], reset_password(1, 5), vec![reset("new", 5)]).await;
}

#[tokio::test]
async fn a_reset_ends_all_sessions_all_other_tokens_and_a_change_of_address() {
    let given = vec![
        registered(),
        change_requested(1, "eve@example.com", 1),
        reset_requested(1, ResetReason::Forgotten, 1),
        reset_requested(2, ResetReason::Forgotten, 2),
        reset("new", 5),
    ];
    for generation in [1, 2] {
        then_refused(given.clone(), reset_password(generation, 6), UserError::InvalidToken).await;
    }
    then_refused(given.clone(), confirm_change(1, 6), UserError::InvalidToken).await;
    let user = user(given);
    assert_eq!(user.password_hash, Some(hash("new")));
    assert!(!user.keeps(&session(1, 0)));
    assert!(user.keeps(&session(1, 1)));
    assert_eq!(user.password_reset.next(), 3, "no number is reused");
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it_and_the_session_that_asked_goes_on() {
    then(vec![registered()], change_password("old", 5), vec![password_changed(5)]).await;
    then_refused(vec![registered()], change_password("other", 5), UserError::OtherPassword).await;
    let given = vec![registered(), reset_requested(1, ResetReason::Forgotten, 1), password_changed(5)];
    then_refused(given.clone(), reset_password(1, 6), UserError::InvalidToken).await;
    let changed = user(given.clone());
    assert!(changed.keeps(&session(1, 0)) && !changed.keeps(&session(2, 0)));
    let again = user([given, vec![reset("newest", 7)]].concat());
    assert!(!again.keeps(&session(1, 0)), "it was kept once, not permanently");
}

#[tokio::test]
async fn somebody_without_a_password_cannot_change_it() {
    let given = vec![registered(), proven(MailboxProof::MagicLink, true, 1)];
    then_refused(given, change_password("old", 5), UserError::OtherPassword).await;
}

#[tokio::test]
async fn mails_do_nothing_for_who_is_banned_or_erased() {
    let banned = UserEvent::UserBanned(UserBanned {
        user_id: user_id(),
        access_ended: true,
        at: at(2),
        personal: Personal::default(),
    });
    let given = vec![registered(), reset_requested(1, ResetReason::Forgotten, 1), banned];
    then_refused(given.clone(), request_reset(ResetReason::Forgotten, 3), UserError::Banned).await;
    then_refused(given.clone(), reset_password(1, 3), UserError::Banned).await;
    then_refused(given, prove("ada@example.com", 3), UserError::Banned).await;
    let UserEvent::UserRegistered(mut event) = registered() else { unreachable!() };
    event.personal = Personal::default();
    let erased = vec![UserEvent::UserRegistered(event)];
    then_refused(erased.clone(), request_reset(ResetReason::Forgotten, 3), UserError::Absent).await;
    then_refused(erased, request_verification(3), UserError::Absent).await;
}
