use cqrs_es::test::TestFramework;

use super::*;
use crate::settings::SentBy;

type LinkTest = TestFramework<MagicLink>;

fn link_id() -> MagicLinkId {
    MagicLinkId(uuid::Uuid::from_u128(1))
}

fn user_id(n: u128) -> UserId {
    UserId(uuid::Uuid::from_u128(n))
}

fn session_id(n: u128) -> SessionId {
    SessionId(uuid::Uuid::from_u128(n))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn uri(text: &str) -> RedirectUri {
    RedirectUri::parse(text).expect("valid")
}

fn own() -> RedirectUri {
    uri("https://app.example/callback")
}

fn challenge(first: char) -> CodeChallenge {
    CodeChallenge::parse(format!("{first}{}", "A".repeat(42))).expect("valid")
}

fn email() -> Email {
    Email::parse("ada@example.com").expect("valid")
}

fn settings() -> Box<AppSettings> {
    Box::new(AppSettings {
        redirect_uris: vec![uri("https://app.example/other"), own()],
        magic_link_ttl: 600,
        exchange_code_ttl: 60,
        ..AppSettings::default()
    })
}

fn issue(redirect_uri: RedirectUri) -> MagicLinkCommand {
    MagicLinkCommand::Issue {
        link_id: link_id(),
        user_id: user_id(7),
        epoch: None,
        app_id: AppId::default_app(),
        settings: settings(),
        email: email(),
        redirect_uri,
        state: Some("cart".to_owned()),
        code_challenge: None,
        client: Client::default(),
        at: at(0),
    }
}

fn issued_with(code_challenge: Option<CodeChallenge>) -> MagicLinkEvent {
    MagicLinkEvent::MagicLinkIssued(MagicLinkIssued {
        link_id: link_id(),
        user_id: user_id(7),
        app_id: AppId::default_app(),
        epoch: None,
        redirect_uri: own(),
        code_challenge,
        delivery: SentBy::Platform,
        expires_at: at(600),
        at: at(0),
        personal: Personal { email: Some(email()), state: Some("cart".to_owned()), ..Personal::default() },
    })
}

fn issued() -> MagicLinkEvent {
    issued_with(None)
}

fn superseded(second: i64) -> MagicLinkEvent {
    let (link_id, user_id, at) = (link_id(), user_id(7), at(second));
    MagicLinkEvent::MagicLinkSuperseded(MagicLinkSuperseded { link_id, user_id, at })
}

fn redeemed(user: u128, registered: bool, epoch: u32, second: i64) -> MagicLinkEvent {
    MagicLinkEvent::MagicLinkRedeemed(MagicLinkRedeemed {
        link_id: link_id(),
        user_id: user_id(user),
        registered,
        epoch,
        code_expires_at: at(second + 60),
        at: at(second),
        personal: Personal::default(),
    })
}

fn exchanged(session: u128, second: i64) -> MagicLinkEvent {
    let (link_id, user_id, session_id, at) = (link_id(), user_id(7), session_id(session), at(second));
    MagicLinkEvent::ExchangeCodeRedeemed(ExchangeCodeRedeemed { link_id, user_id, session_id, at })
}

fn replayed(session: u128, second: i64) -> MagicLinkEvent {
    MagicLinkEvent::ExchangeCodeReplayed(ExchangeCodeReplayed {
        link_id: link_id(),
        user_id: user_id(7),
        session_id: session_id(session),
        at: at(second),
        personal: Personal::default(),
    })
}

fn redeem_with(account: Account, settings: Box<AppSettings>, second: i64) -> MagicLinkCommand {
    MagicLinkCommand::Redeem { account, settings, client: Client::default(), at: at(second) }
}

fn redeem(second: i64) -> MagicLinkCommand {
    redeem_with(existing(7, 0, None), settings(), second)
}

/// A user whose access was ended `epoch` times, last at that second.
fn existing(user: u128, epoch: u32, ended: Option<i64>) -> Account {
    let before = Access { epoch, ended_at: ended.map(at) };
    Account::Existing { user_id: user_id(user), epoch, before, admin_since: None }
}

fn issued_in(epoch: Option<u32>) -> MagicLinkEvent {
    let MagicLinkEvent::MagicLinkIssued(event) = issued() else { unreachable!() };
    MagicLinkEvent::MagicLinkIssued(MagicLinkIssued { epoch, ..event })
}

fn exchange_with(presented: Option<CodeChallenge>, epoch: u32, second: i64) -> MagicLinkCommand {
    let (session_id, client) = (session_id(2), Client::default());
    MagicLinkCommand::RedeemCode { presented, epoch, admin_since: None, session_id, client, at: at(second) }
}

fn exchange(second: i64) -> MagicLinkCommand {
    exchange_with(None, 0, second)
}

async fn then(given: Vec<MagicLinkEvent>, when: MagicLinkCommand, expected: Vec<MagicLinkEvent>) {
    LinkTest::with(()).given(given).when_async(when).await.then_expect_events(expected);
}

async fn then_refused(given: Vec<MagicLinkEvent>, when: MagicLinkCommand, error: MagicLinkError) {
    LinkTest::with(()).given(given).when_async(when).await.then_expect_error(error);
}

#[tokio::test]
async fn a_link_leads_to_an_address_that_the_app_has_listed() {
    then(vec![], issue(own()), vec![issued()]).await;
    then_refused(vec![issued()], issue(own()), MagicLinkError::Exists).await;
    for other in ["https://app.example/callback/", "https://app.example/callback?x", "https://evil.example/"]
    {
        then_refused(vec![], issue(uri(other)), MagicLinkError::RedirectNotAllowed).await;
    }
}

#[tokio::test]
async fn a_link_is_redeemed_once_and_in_time() {
    then(vec![issued()], redeem(599), vec![redeemed(7, false, 0, 599)]).await;
    then_refused(vec![issued()], redeem(600), MagicLinkError::Expired).await;
    then_refused(vec![issued(), redeemed(7, false, 0, 5)], redeem(6), MagicLinkError::Used).await;
    then_refused(vec![issued(), superseded(5)], redeem(6), MagicLinkError::Superseded).await;
    then_refused(vec![], redeem(6), MagicLinkError::Absent).await;
    let used = vec![issued(), redeemed(7, false, 0, 5), exchanged(2, 6)];
    then_refused(used.clone(), redeem(7), MagicLinkError::Used).await;
    then_refused([used, vec![replayed(2, 7)]].concat(), redeem(8), MagicLinkError::Used).await;
}

#[tokio::test]
async fn the_list_of_addresses_is_asked_again_when_the_link_is_redeemed() {
    let gone = Box::new(AppSettings { redirect_uris: vec![uri("https://app.example/other")], ..*settings() });
    let account = existing(7, 0, None);
    then_refused(vec![issued()], redeem_with(account, gone, 5), MagicLinkError::RedirectNotAllowed).await;
}

#[tokio::test]
async fn an_unknown_address_is_registered_if_registration_is_open_by_then() {
    then(vec![issued()], redeem_with(Account::New, settings(), 5), vec![redeemed(7, true, 0, 5)]).await;
    for registration in [Registration::Closed, Registration::InviteOnly] {
        let closed = Box::new(AppSettings { registration, ..*settings() });
        let when = redeem_with(Account::New, closed.clone(), 5);
        then_refused(vec![issued()], when, MagicLinkError::RegistrationClosed).await;
        let known = existing(7, 0, None);
        then(vec![issued()], redeem_with(known, closed, 5), vec![redeemed(7, false, 0, 5)]).await;
    }
}

#[tokio::test]
async fn the_link_is_for_who_has_the_address_by_now() {
    let registered_meanwhile = existing(9, 3, None);
    let when = redeem_with(registered_meanwhile, settings(), 5);
    then(vec![issued()], when, vec![redeemed(9, false, 3, 5)]).await;
}

#[tokio::test]
async fn a_newer_link_takes_the_place_of_one_that_is_not_used() {
    let supersede = |second| MagicLinkCommand::Supersede { at: at(second) };
    then(vec![issued()], supersede(5), vec![superseded(5)]).await;
    then(vec![issued(), superseded(5)], supersede(6), vec![]).await;
    then(vec![issued(), redeemed(7, false, 0, 5)], supersede(6), vec![]).await;
    then(vec![issued()], supersede(600), vec![]).await;
    then_refused(vec![], supersede(5), MagicLinkError::Absent).await;
}

#[tokio::test]
async fn a_code_is_exchanged_once_and_in_time() {
    let given = vec![issued(), redeemed(7, false, 0, 5)];
    then(given.clone(), exchange(64), vec![exchanged(2, 64)]).await;
    then_refused(given, exchange(65), MagicLinkError::InvalidCode).await;
    then_refused(vec![issued()], exchange(6), MagicLinkError::InvalidCode).await;
    then_refused(vec![issued(), superseded(5)], exchange(6), MagicLinkError::InvalidCode).await;
    then_refused(vec![], exchange(6), MagicLinkError::InvalidCode).await;
}

#[tokio::test]
async fn inv_d_a_link_ends_with_the_access_of_its_user() {
    let redeem = |account| redeem_with(account, settings(), 5);
    // Issued to this user, whose access was ended that often.
    let own = issued_in(Some(2));
    then(vec![own.clone()], redeem(existing(7, 2, Some(-9))), vec![redeemed(7, false, 2, 5)]).await;
    for (epoch, ended) in [(3, Some(1)), (3, Some(-1)), (1, None)] {
        let account = existing(7, epoch, ended);
        then_refused(vec![own.clone()], redeem(account), MagicLinkError::Superseded).await;
    }
    // Issued to a different or unknown owner of the address, or before links had epochs: the time decides.
    for (link, user) in [(issued_in(None), 7), (issued_in(None), 9), (issued_in(Some(3)), 9)] {
        for ended in [None, Some(-1)] {
            let account = existing(user, 3, ended);
            then(vec![link.clone()], redeem(account), vec![redeemed(user, false, 3, 5)]).await;
        }
        for ended in [0, 1, 5] {
            let account = existing(user, 3, Some(ended));
            then_refused(vec![link.clone()], redeem(account), MagicLinkError::Superseded).await;
        }
    }
}

#[tokio::test]
async fn a_code_that_comes_again_is_reported_once_with_its_session() {
    let given = vec![issued_with(Some(challenge('A'))), redeemed(7, false, 0, 5), exchanged(1, 6)];
    for presented in [Some(challenge('A')), Some(challenge('B')), None] {
        for second in [7, 10_000] {
            let when = exchange_with(presented.clone(), 1, second);
            then(given.clone(), when, vec![replayed(1, second)]).await;
        }
    }
    let given = [given, vec![replayed(1, 7)]].concat();
    then_refused(given, exchange(8), MagicLinkError::InvalidCode).await;
}

#[tokio::test]
async fn a_code_with_a_challenge_needs_its_verifier() {
    let given = vec![issued_with(Some(challenge('A'))), redeemed(7, false, 0, 5)];
    then(given.clone(), exchange_with(Some(challenge('A')), 0, 6), vec![exchanged(2, 6)]).await;
    for presented in [None, Some(challenge('B'))] {
        then_refused(given.clone(), exchange_with(presented, 0, 6), MagicLinkError::InvalidCode).await;
    }
    // Somebody removed the challenge in transit.
    let without = vec![issued(), redeemed(7, false, 0, 5)];
    then_refused(without, exchange_with(Some(challenge('A')), 0, 6), MagicLinkError::InvalidCode).await;
}

#[tokio::test]
async fn inv_d_a_code_ends_with_the_sessions_of_its_user() {
    let given = vec![issued(), redeemed(7, false, 1, 5)];
    then(given.clone(), exchange_with(None, 1, 6), vec![exchanged(2, 6)]).await;
    then_refused(given, exchange_with(None, 2, 6), MagicLinkError::InvalidCode).await;
}

#[tokio::test]
async fn an_erased_person_does_not_come_back_by_an_old_mail() {
    let MagicLinkEvent::MagicLinkIssued(mut event) = issued() else { unreachable!() };
    event.personal = Personal::default();
    let erased = vec![MagicLinkEvent::MagicLinkIssued(event)];
    then_refused(erased, redeem_with(Account::New, settings(), 5), MagicLinkError::Absent).await;
}
