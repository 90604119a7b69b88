//! Given, when, then; and random histories.

use cqrs_es::test::TestFramework;
use proptest::prelude::*;

use super::*;

type LockoutTest = TestFramework<Lockout>;

fn user_id() -> UserId {
    UserId(uuid::Uuid::from_u128(7))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn failed(failures: u32, second: i64) -> LockoutEvent {
    failed_by(None, failures, second)
}

fn locked(second: i64, seconds: i64) -> LockoutEvent {
    locked_out(None, second, seconds)
}

fn fail(second: i64) -> LockoutCommand {
    fail_by(None, second)
}

const POLICY: LockoutPolicy = LockoutPolicy { failures: 3, window: 900, first_lock: 60, longest_lock: 900 };

fn device(number: u128) -> DeviceId {
    DeviceId(uuid::Uuid::from_u128(number))
}

fn failed_by(device_id: Option<DeviceId>, failures: u32, second: i64) -> LockoutEvent {
    LockoutEvent::LoginFailed(LoginFailed { user_id: user_id(), failures, device_id, at: at(second) })
}

fn locked_out(device_id: Option<DeviceId>, second: i64, seconds: i64) -> LockoutEvent {
    let until = at(second + seconds);
    LockoutEvent::AccountLocked(AccountLocked { user_id: user_id(), device_id, until, at: at(second) })
}

fn fail_by(device: Option<DeviceId>, second: i64) -> LockoutCommand {
    LockoutCommand::RecordFailure { user_id: user_id(), device, policy: POLICY, at: at(second) }
}

#[tokio::test]
async fn failures_add_up_to_a_lock() {
    LockoutTest::with(())
        .given(vec![failed(1, 0), failed(2, 1)])
        .when_async(fail(2))
        .await
        .then_expect_events(vec![failed(3, 2), locked(2, 60)]);
}

#[tokio::test]
async fn a_quiet_window_starts_the_count_again() {
    LockoutTest::with(())
        .given(vec![failed(1, 0), failed(2, 1)])
        .when_async(fail(901))
        .await
        .then_expect_events(vec![failed(1, 901)]);
}

#[tokio::test]
async fn a_locked_account_writes_nothing() {
    LockoutTest::with(())
        .given(vec![failed(3, 0), locked(0, 60)])
        .when_async(fail(59))
        .await
        .then_expect_error(AccountIsLocked { until: at(60) });
}

#[tokio::test]
async fn the_next_lock_lasts_twice_as_long() {
    LockoutTest::with(())
        .given(vec![failed(3, 0), locked(0, 60), failed(1, 61), failed(2, 62)])
        .when_async(fail(63))
        .await
        .then_expect_events(vec![failed(3, 63), locked(63, 120)]);
}

#[tokio::test]
async fn an_admin_unlocks() {
    let command = LockoutCommand::Unlock { user_id: user_id(), at: at(5) };
    LockoutTest::with(())
        .given(vec![failed(3, 0), locked(0, 60)])
        .when_async(command)
        .await
        .then_expect_events(vec![LockoutEvent::AccountUnlocked(AccountUnlocked {
            user_id: user_id(),
            at: at(5),
        })]);
}

#[tokio::test]
async fn inv_w_strangers_lock_out_strangers_and_a_device_itself() {
    let by_strangers = vec![failed(3, 0), locked(0, 60)];
    let of_the_owner = Some(device(1));
    LockoutTest::with(())
        .given(by_strangers.clone())
        .when_async(fail_by(of_the_owner, 1))
        .await
        .then_expect_events(vec![failed_by(of_the_owner, 1, 1)]);
    let by_the_owner = [failed_by(of_the_owner, 1, 1), failed_by(of_the_owner, 2, 2)];
    LockoutTest::with(())
        .given([by_strangers, by_the_owner.to_vec()].concat())
        .when_async(fail_by(of_the_owner, 3))
        .await
        .then_expect_events(vec![failed_by(of_the_owner, 3, 3), locked_out(of_the_owner, 3, 60)]);
    let locked_device = vec![failed_by(of_the_owner, 3, 3), locked_out(of_the_owner, 3, 60)];
    LockoutTest::with(())
        .given(locked_device.clone())
        .when_async(fail_by(Some(device(2)), 4))
        .await
        .then_expect_events(vec![failed_by(Some(device(2)), 1, 4)]);
    LockoutTest::with(())
        .given(locked_device)
        .when_async(fail_by(of_the_owner, 4))
        .await
        .then_expect_error(AccountIsLocked { until: at(63) });
}

#[tokio::test]
async fn one_device_more_than_are_counted_is_a_stranger() {
    let history = |seconds| {
        let numbers = 1..=u128::try_from(MAX_DEVICES).expect("small");
        numbers.map(move |number| failed_by(Some(device(number)), 1, seconds)).collect::<Vec<_>>()
    };
    let one_more = Some(device(99));
    LockoutTest::with(())
        .given(history(0))
        .when_async(fail_by(one_more, 1))
        .await
        .then_expect_events(vec![failed(1, 1)]);
    // After a day the others are forgotten.
    LockoutTest::with(())
        .given(history(0))
        .when_async(fail_by(one_more, 86_400))
        .await
        .then_expect_events(vec![failed_by(one_more, 1, 86_400)]);
}

#[tokio::test]
async fn a_lock_by_a_clock_that_was_ahead_ends_after_the_longest_lock() {
    let ahead = 400 * 86_400;
    for device in [None, Some(device(1))] {
        let history = vec![failed_by(device, 3, ahead), locked_out(device, ahead, 60)];
        LockoutTest::with(())
            .given(history.clone())
            .when_async(fail_by(device, 0))
            .await
            .then_expect_events(vec![locked_out(device, 0, 900)]);
        let shortened = [history, vec![locked_out(device, 0, 900)]].concat();
        LockoutTest::with(())
            .given(shortened.clone())
            .when_async(fail_by(device, 899))
            .await
            .then_expect_error(AccountIsLocked { until: at(900) });
        LockoutTest::with(())
            .given(shortened)
            .when_async(fail_by(device, 900))
            .await
            .then_expect_events(vec![failed_by(device, 1, 900)]);
    }
    // Nor do its failures count until then.
    LockoutTest::with(())
        .given(vec![failed(1, ahead), failed(2, ahead)])
        .when_async(fail(0))
        .await
        .then_expect_events(vec![failed(1, 0)]);
}

#[test]
fn a_state_that_was_kept_before_devices_were_counted_is_read() {
    let kept = serde_json::json!({
        "failures": 2, "window_start": at(0), "locked_until": null, "locks": 0,
    });
    let lockout: Lockout = serde_json::from_value(kept).expect("reads");
    let decided = lockout.decide(&fail(1));
    assert_eq!(decided, Ok(vec![failed(3, 1), locked(1, 60)]));
    let mut lockout = lockout;
    lockout.apply(failed_by(Some(device(1)), 1, 1));
    let kept = serde_json::to_value(&lockout).expect("is written");
    let read: Lockout = serde_json::from_value(kept).expect("reads");
    assert!(read.devices.contains_key(&device(1)) && read.strangers.failures == 2);
}

proptest! {
    /// With any guesser, in any order, and with any clock.
    #[test]
    fn inv_p_guesses_are_bounded_and_strangers_lock_out_no_device(
        guesses in proptest::collection::vec((proptest::option::of(0_u128..24), -2_000_i64..2_000), 1..200),
        moves in any::<bool>(),
    ) {
        let mut lockout = Lockout::default();
        let (mut now, mut evaluated) = (0, 0_usize);
        for (number, step) in guesses {
            now += if moves { step } else { 0 };
            let who = number.map(device);
            let open = |lockout: &Lockout, number| {
                lockout.require_open(Some(device(number)), POLICY, at(now)).is_ok()
            };
            let before: Vec<bool> = (0..24).map(|number| open(&lockout, number)).collect();
            if lockout.require_open(who, POLICY, at(now)).is_ok() {
                evaluated += 1;
            }
            let counted = lockout.counted(who, at(now));
            match lockout.decide(&fail_by(who, now)) {
                Ok(events) => events.into_iter().for_each(|event| lockout.apply(event)),
                Err(AccountIsLocked { until }) => prop_assert!(until <= at(now + 900) && until > at(now)),
            }
            for number in 0..24 {
                let is_its_own = counted == Some(device(number));
                let is_a_stranger = counted.is_none() && lockout.counted(Some(device(number)), at(now)).is_none();
                let took_its_place = lockout.counted(Some(device(number)), at(now)).is_none();
                if !is_its_own && !is_a_stranger && !took_its_place {
                    let index = usize::try_from(number).expect("small");
                    prop_assert_eq!(open(&lockout, number), before[index]);
                }
            }
            prop_assert!(lockout.devices.len() <= MAX_DEVICES);
        }
        if !moves {
            prop_assert!(evaluated <= (MAX_DEVICES + 1) * 3);
        }
    }
}

/// No action between guesses lets more of them be answered within a window.
#[test]
fn inv_p_unlocking_with_care_gives_no_more_guesses() {
    for device in [None, Some(device(1))] {
        for every in 1..=5 {
            let (mut lockout, mut evaluated) = (Lockout::default(), 0);
            let run = |lockout: &mut Lockout, command: &LockoutCommand| {
                let decided = lockout.decide(command);
                for event in decided.iter().flatten() {
                    lockout.apply(event.clone());
                }
                decided.is_ok()
            };
            for second in 0..200 {
                evaluated += u32::from(run(&mut lockout, &fail_by(device, second / 4)));
                if second % every == 0 {
                    let (user_id, policy, at) = (user_id(), POLICY, at(second / 4));
                    run(&mut lockout, &LockoutCommand::UnlockWithCare { user_id, policy, at });
                }
            }
            assert_eq!(evaluated, POLICY.failures, "with an unlock after every {every} tries");
        }
    }
}

#[tokio::test]
async fn unlocking_with_care_waits_for_a_quiet_window() {
    let policy = LockoutPolicy { longest_lock: 5000, ..POLICY };
    let unlock = |second| LockoutCommand::UnlockWithCare { user_id: user_id(), policy, at: at(second) };
    // A lock that lasts longer than the window.
    let given = vec![failed(3, 0), locked(0, 5000)];
    LockoutTest::with(())
        .given(given.clone())
        .when_async(unlock(899))
        .await
        .then_expect_error(AccountIsLocked { until: at(900) });
    let unlocked = AccountUnlocked { user_id: user_id(), at: at(900) };
    LockoutTest::with(())
        .given(given)
        .when_async(unlock(900))
        .await
        .then_expect_events(vec![LockoutEvent::AccountUnlocked(unlocked)]);
    for (given, second) in [(vec![], 0), (vec![failed(2, 0)], 1), (vec![failed(3, 0), locked(0, 60)], 60)] {
        LockoutTest::with(()).given(given).when_async(unlock(second)).await.then_expect_events(vec![]);
    }
}
