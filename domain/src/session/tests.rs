use cqrs_es::test::TestFramework;
use proptest::prelude::*;

use super::*;
use crate::draft::Draft;

type SessionTest = TestFramework<Session>;

const TTL: u32 = 1000;
const IDLE_TTL: u32 = 100;
const GRACE: u32 = 10;

fn session_id() -> SessionId {
    SessionId(uuid::Uuid::from_u128(1))
}

fn user_id() -> UserId {
    UserId(uuid::Uuid::from_u128(2))
}

fn at(second: u32) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + i64::from(second)).expect("in range")
}

fn client() -> Client {
    Client { ip: Some("192.0.2.7".to_owned()), user_agent: Some("Analytical Engine/1.0".to_owned()) }
}

fn started() -> SessionEvent {
    SessionEvent::SessionStarted(SessionStarted {
        session_id: session_id(),
        user_id: user_id(),
        app_id: AppId::default_app(),
        method: LoginMethod::Password,
        epoch: 0,
        expires_at: at(TTL),
        idle_expires_at: at(IDLE_TTL),
        at: at(0),
        personal: Personal::of(client()),
    })
}

fn refreshed(generation: u32, second: u32) -> SessionEvent {
    SessionEvent::SessionRefreshed(SessionRefreshed {
        session_id: session_id(),
        user_id: user_id(),
        generation,
        idle_expires_at: at(second + IDLE_TTL),
        at: at(second),
        personal: Personal::default(),
    })
}

fn reused(generation: u32, current: u32, second: u32) -> Vec<SessionEvent> {
    let (session_id, user_id, at) = (session_id(), user_id(), at(second));
    let reason = RevocationReason::RefreshTokenReused;
    vec![
        SessionEvent::RefreshTokenReused(RefreshTokenReused { session_id, user_id, generation, current, at }),
        SessionEvent::SessionRevoked(SessionRevoked { session_id, user_id, reason, at }),
    ]
}

fn refresh(generation: u32, second: u32) -> SessionCommand {
    refresh_after(generation, second, second)
}

fn refresh_after(generation: u32, second: u32, latest: u32) -> SessionCommand {
    let (client, at, latest) = (client(), at(second), at(latest));
    SessionCommand::Refresh { generation, grace: GRACE, idle_ttl: IDLE_TTL, client, at, latest }
}

#[tokio::test]
async fn a_refresh_moves_the_chain_on() {
    SessionTest::with(())
        .given(vec![started()])
        .when_async(refresh(0, 5))
        .await
        .then_expect_events(vec![refreshed(1, 5)]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_shorten_a_session() {
    let behind = |generation, second, idle_expires_at| {
        SessionEvent::SessionRefreshed(SessionRefreshed {
            session_id: session_id(),
            user_id: user_id(),
            generation,
            idle_expires_at: at(idle_expires_at),
            at: at(second),
            personal: Personal::default(),
        })
    };
    let mut given = vec![started(), refreshed(1, 90)];
    for (generation, second) in [(1, 10), (2, 12)] {
        let refreshed = behind(generation + 1, second, 90 + IDLE_TTL);
        SessionTest::with(())
            .given(given.clone())
            .when_async(refresh(generation, second))
            .await
            .then_expect_events(vec![refreshed.clone()]);
        given.push(refreshed);
    }
    // It is right again: the rest of the idle time counts from then.
    SessionTest::with(())
        .given(given)
        .when_async(refresh(3, 150))
        .await
        .then_expect_events(vec![refreshed(4, 150)]);
}

/// The clock is behind, and is right again later.
#[tokio::test]
async fn a_session_that_starts_while_a_clock_is_behind_lasts_from_the_latest_event() {
    let SessionEvent::SessionStarted(plain) = started() else { unreachable!() };
    let start = |latest| SessionCommand::Start {
        session_id: session_id(),
        user_id: user_id(),
        app_id: AppId::default_app(),
        method: LoginMethod::Password,
        epoch: 0,
        ttl: TTL,
        idle_ttl: IDLE_TTL,
        client: client(),
        at: at(0),
        latest,
    };
    let until = |from: u32| {
        let (expires_at, idle_expires_at) = (at(from + TTL), at(from + IDLE_TTL));
        SessionEvent::SessionStarted(SessionStarted { expires_at, idle_expires_at, ..plain.clone() })
    };
    // However far ahead another clock was, it lasts no longer than twice.
    for (latest, from) in [(at(0), 0), (at(TTL / 2), TTL / 2), (Timestamp::MAX, TTL), (Timestamp::MIN, 0)] {
        let when = SessionTest::with(()).given_no_previous_events().when_async(start(latest)).await;
        when.then_expect_events(vec![until(from)]);
    }
    let SessionEvent::SessionRefreshed(first) = refreshed(1, 5) else { unreachable!() };
    let kept = SessionRefreshed { idle_expires_at: at(TTL / 2 + IDLE_TTL), ..first };
    SessionTest::with(())
        .given(vec![until(TTL / 2)])
        .when_async(refresh_after(0, 5, TTL / 2))
        .await
        .then_expect_events(vec![SessionEvent::SessionRefreshed(kept)]);
}

#[tokio::test]
async fn a_refresh_tells_where_from_only_where_that_changes() {
    let elsewhere = Client { ip: Some("198.51.100.4".to_owned()), ..client() };
    let other_program = Client { user_agent: Some("Difference Engine/2".to_owned()), ..client() };
    for moved in [elsewhere, other_program, Client::default()] {
        let from = |generation, client: &Client, second| {
            let (client, idle_ttl, at) = (client.clone(), IDLE_TTL, at(second));
            SessionCommand::Refresh { generation, grace: GRACE, idle_ttl, client, at, latest: at }
        };
        let SessionEvent::SessionRefreshed(plain) = refreshed(1, 5) else { unreachable!() };
        let told = SessionRefreshed { personal: Personal::of(moved.clone()), ..plain };
        let told = SessionEvent::SessionRefreshed(told);
        let given = vec![started()];
        SessionTest::with(())
            .given(given.clone())
            .when_async(from(0, &moved, 5))
            .await
            .then_expect_events(vec![told.clone()]);
        if moved == Client::default() {
            // If nothing is known of the request, nothing is recorded.
            continue;
        }
        // From then on it is the last known place.
        let given = vec![started(), told];
        let same = SessionTest::with(()).given(given.clone());
        same.when_async(from(1, &moved, 6)).await.then_expect_events(vec![refreshed(2, 6)]);
        let SessionEvent::SessionRefreshed(plain) = refreshed(2, 6) else { unreachable!() };
        let back = SessionRefreshed { personal: Personal::of(client()), ..plain };
        let test = SessionTest::with(()).given(given);
        test.when_async(from(1, &client(), 6))
            .await
            .then_expect_events(vec![SessionEvent::SessionRefreshed(back)]);
    }
}

#[tokio::test]
async fn a_lost_reply_is_answered_again_within_the_grace() {
    let given = vec![started(), refreshed(1, 5)];
    SessionTest::with(()).given(given).when_async(refresh(0, 15)).await.then_expect_events(vec![]);
}

#[tokio::test]
async fn reuse_past_the_grace_ends_the_session() {
    let given = vec![started(), refreshed(1, 5)];
    SessionTest::with(()).given(given).when_async(refresh(0, 16)).await.then_expect_events(reused(0, 1, 16));
}

#[tokio::test]
async fn without_a_grace_a_racing_reuse_ends_the_session() {
    let (generation, grace, idle_ttl) = (0, 0, IDLE_TTL);
    let racing =
        SessionCommand::Refresh { generation, grace, idle_ttl, client: client(), at: at(4), latest: at(4) };
    let given = vec![started(), refreshed(1, 5)];
    SessionTest::with(()).given(given).when_async(racing).await.then_expect_events(reused(0, 1, 4));
}

#[tokio::test]
async fn a_token_two_generations_old_has_no_grace() {
    let given = vec![started(), refreshed(1, 5), refreshed(2, 6)];
    SessionTest::with(()).given(given).when_async(refresh(0, 6)).await.then_expect_events(reused(0, 2, 6));
}

#[tokio::test]
async fn a_revoked_or_expired_session_is_over() {
    let given = [vec![started(), refreshed(1, 5)], reused(0, 1, 16)].concat();
    let test = || SessionTest::with(());
    test().given(given).when_async(refresh(1, 17)).await.then_expect_error(SessionError::Revoked);
    test().given(vec![started()]).when_async(refresh(0, 100)).await.then_expect_error(SessionError::Expired);
    let long = (1..=11).map(|n| refreshed(n, n * 90)).collect::<Vec<_>>();
    let given = [vec![started()], long].concat();
    test().given(given).when_async(refresh(11, 1000)).await.then_expect_error(SessionError::Expired);
}

#[tokio::test]
async fn a_token_from_the_future_is_none() {
    let given = vec![started()];
    SessionTest::with(())
        .given(given)
        .when_async(refresh(3, 1))
        .await
        .then_expect_error(SessionError::Absent);
}

#[tokio::test]
async fn revoking_twice_is_one_event() {
    let reason = RevocationReason::Logout;
    let revoke = SessionCommand::Revoke { reason, at: at(1) };
    let revoked = SessionEvent::SessionRevoked(SessionRevoked {
        session_id: session_id(),
        user_id: user_id(),
        reason,
        at: at(1),
    });
    let test = || SessionTest::with(());
    test().given(vec![started()]).when_async(revoke.clone()).await.then_expect_events(vec![revoked.clone()]);
    test().given(vec![started(), revoked]).when_async(revoke).await.then_expect_events(vec![]);
}

proptest! {
    /// Invariant f: whatever is presented, in any order, at most one generation can advance the chain, and none can
    /// after a reuse.
    #[test]
    fn inv_f_at_most_one_live_leaf(tries in prop::collection::vec((0_u32..6, 0_u32..8), 1..40)) {
        let mut session = Session::default();
        session.apply(started());
        let mut now = 0;
        for (generation, step) in tries {
            now += step;
            let live = (0..10).filter(|&generation| {
                let decided = session.decide(refresh(generation, now));
                matches!(decided.as_deref(), Ok([SessionEvent::SessionRefreshed(_)]))
            });
            prop_assert!(live.count() <= usize::from(!session.revoked));
            if let Ok(events) = session.decide(refresh(generation, now)) {
                for event in events {
                    session.apply(event);
                }
            }
        }
    }
}

#[test]
fn chooses_an_organization_and_keeps_it_over_a_refresh() {
    let organization = |number| Some(OrganizationId(uuid::Uuid::from_u128(number)));
    let choose =
        |organization_id, second| SessionCommand::ChooseOrganization { organization_id, at: at(second) };
    let mut session = Draft::<Session>::given([started()]);
    session.execute(choose(None, 1)).expect("has chosen none");
    session.execute(choose(organization(1), 1)).expect("chooses");
    session.execute(choose(organization(1), 2)).expect("changes nothing");
    assert_eq!(session.decided(), ["ActiveOrganizationChosen"]);
    assert_eq!((session.organization, session.choices), (organization(1), 1));

    let mut session = Draft::<Session>::given([
        started(),
        SessionEvent::ActiveOrganizationChosen(ActiveOrganizationChosen {
            session_id: session_id(),
            user_id: user_id(),
            organization_id: organization(1),
            number: 1,
            at: at(1),
        }),
        refreshed(1, 2),
    ]);
    assert_eq!(session.organization, organization(1));
    session.execute(choose(organization(2), 3)).expect("chooses");
    session.execute(choose(None, 4)).expect("clears it");
    assert_eq!((session.organization, session.choices), (None, 3));
    assert_eq!(session.claims(), []);
    assert_eq!(session.execute(choose(organization(1), 2 + IDLE_TTL)), Err(SessionError::Expired));
    let revoke = SessionCommand::Revoke { reason: RevocationReason::User, at: at(5) };
    session.execute(revoke).expect("ends");
    assert_eq!(session.execute(choose(organization(1), 5)), Err(SessionError::Revoked));
}
