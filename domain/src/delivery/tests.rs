use cqrs_es::test::TestFramework;

use super::*;

type DeliveryTest = TestFramework<Delivery>;

const MAIL: MailKind = MailKind::MagicLink;

fn event_id() -> EventId {
    EventId(uuid::Uuid::from_u128(1))
}

fn user_id() -> UserId {
    UserId(uuid::Uuid::from_u128(7))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn policy() -> DeliveryPolicy {
    DeliveryPolicy { attempts: 4, first_pause: 5, longest_pause: 30 }
}

fn sent(attempt: u32, second: i64) -> DeliveryEvent {
    let (event_id, user_id) = (event_id(), user_id());
    DeliveryEvent::MailSent(MailSent { event_id, user_id, mail: MAIL, attempt, at: at(second) })
}

fn failed(attempt: u32, second: i64, retry: Option<i64>) -> DeliveryEvent {
    DeliveryEvent::MailFailed(MailFailed {
        event_id: event_id(),
        user_id: user_id(),
        mail: MAIL,
        attempt,
        reason: FailureReason::Unreachable,
        smtp_code: None,
        retry_at: retry.map(at),
        asked_again: false,
        at: at(second),
    })
}

fn asked_again(attempt: u32, second: i64) -> DeliveryEvent {
    let DeliveryEvent::MailFailed(event) = failed(attempt, second, Some(second)) else { unreachable!() };
    DeliveryEvent::MailFailed(MailFailed { asked_again: true, ..event })
}

fn record_sent(second: i64) -> DeliveryCommand {
    let (event_id, user_id) = (event_id(), user_id());
    DeliveryCommand::RecordSent { event_id, user_id, mail: MAIL, at: at(second) }
}

fn record_failure(useless_after: Option<i64>, second: i64) -> DeliveryCommand {
    DeliveryCommand::RecordFailure {
        event_id: event_id(),
        user_id: user_id(),
        mail: MAIL,
        reason: FailureReason::Unreachable,
        smtp_code: None,
        policy: policy(),
        useless_after: useless_after.map(at),
        at: at(second),
    }
}

fn retry(useless_after: Option<i64>, second: i64) -> DeliveryCommand {
    DeliveryCommand::Retry { mail: MAIL, useless_after: useless_after.map(at), at: at(second) }
}

async fn then(given: Vec<DeliveryEvent>, when: DeliveryCommand, expected: Vec<DeliveryEvent>) {
    DeliveryTest::with(()).given(given).when_async(when).await.then_expect_events(expected);
}

async fn then_refused(given: Vec<DeliveryEvent>, when: DeliveryCommand, error: DeliveryError) {
    DeliveryTest::with(()).given(given).when_async(when).await.then_expect_error(error);
}

fn delivery(events: impl IntoIterator<Item = DeliveryEvent>) -> Delivery {
    let mut delivery = Delivery::default();
    for event in events {
        delivery.apply(event);
    }
    delivery
}

#[tokio::test]
async fn what_is_sent_is_sent_once() {
    then(vec![], record_sent(1), vec![sent(1, 1)]).await;
    then(vec![sent(1, 1)], record_sent(2), vec![]).await;
    then(vec![sent(1, 1)], record_failure(None, 2), vec![]).await;
    then(vec![failed(1, 0, Some(5))], record_sent(6), vec![sent(2, 6)]).await;
    assert!(!delivery([sent(1, 1)]).is_due(MAIL, at(2)));
    assert!(delivery([sent(1, 1)]).is_due(MailKind::PasswordReset, at(2)), "another mail of the event");
}

#[tokio::test]
async fn pauses_grow_until_the_mail_is_given_up() {
    let history =
        [failed(1, 0, Some(5)), failed(2, 5, Some(25)), failed(3, 25, Some(55)), failed(4, 55, None)];
    for tries in 0..history.len() {
        let now = [0, 5, 25, 55][tries];
        then(history[..tries].to_vec(), record_failure(None, now), vec![history[tries].clone()]).await;
    }
    let waiting = delivery(history[..1].to_vec());
    assert!(!waiting.is_due(MAIL, at(4)) && waiting.is_due(MAIL, at(5)));
    assert!(!delivery(history).is_due(MAIL, at(10_000)));
}

#[tokio::test]
async fn what_the_server_will_never_take_is_given_up_at_once() {
    let DeliveryCommand::RecordFailure { event_id, user_id, mail, policy, useless_after, at, .. } =
        record_failure(None, 0)
    else {
        unreachable!()
    };
    let (reason, smtp_code) = (FailureReason::Rejected, Some(550));
    let when = DeliveryCommand::RecordFailure {
        event_id,
        user_id,
        mail,
        reason,
        smtp_code,
        policy,
        useless_after,
        at,
    };
    let DeliveryEvent::MailFailed(event) = failed(1, 0, None) else { unreachable!() };
    then(vec![], when, vec![DeliveryEvent::MailFailed(MailFailed { reason, smtp_code, ..event })]).await;
}

#[tokio::test]
async fn a_mail_is_not_tried_past_the_end_of_what_is_in_it() {
    then(vec![], record_failure(Some(6), 0), vec![failed(1, 0, Some(5))]).await;
    then(vec![], record_failure(Some(5), 0), vec![failed(1, 0, None)]).await;
}

#[tokio::test]
async fn somebody_asks_for_another_round() {
    let given_up = vec![failed(1, 0, Some(5)), failed(2, 5, None)];
    then(given_up.clone(), retry(None, 100), vec![asked_again(2, 100)]).await;
    then_refused(given_up.clone(), retry(Some(100), 100), DeliveryError::Expired).await;
    then_refused(vec![sent(1, 1)], retry(None, 2), DeliveryError::Sent).await;
    then_refused(vec![], retry(None, 2), DeliveryError::Absent).await;
    let again = [given_up, vec![asked_again(2, 100)]].concat();
    assert!(delivery(again.clone()).is_due(MAIL, at(100)));
    // Each round counts from the start.
    then(again, record_failure(None, 100), vec![failed(3, 100, Some(105))]).await;
}

#[test]
fn pauses_do_not_overflow() {
    let policy = DeliveryPolicy { attempts: u32::MAX, first_pause: u32::MAX, longest_pause: 3600 };
    assert_eq!(pause(policy, u32::MAX), SignedDuration::from_secs(3600));
    assert_eq!(pause(DeliveryPolicy::default(), 1), SignedDuration::from_secs(5));
    let default = DeliveryPolicy::default();
    let whole: SignedDuration =
        (1..default.attempts).map(|attempt| pause(default, attempt)).fold(SignedDuration::ZERO, |a, b| a + b);
    assert!(whole > SignedDuration::from_hours(2), "a mail server may be away for a while: {whole:?}");
}
