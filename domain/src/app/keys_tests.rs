use std::collections::BTreeSet;

use cqrs_es::Aggregate as _;
use proptest::prelude::*;

use super::super::events::{AppCreated, AppSettingsChanged};
use super::*;
use crate::app_id::AppId;
use crate::settings::AppSettings;

use TokenAlgorithm::{EdDsa, Es256, Rs256};

const PROPAGATION: u32 = 600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("in range")
}

fn key(kid: &str, alg: TokenAlgorithm) -> PublicJwk {
    PublicJwk {
        kty: "X".to_owned(),
        usage: "sig".to_owned(),
        alg,
        kid: kid.to_owned(),
        crv: None,
        x: None,
        y: None,
        n: None,
        e: None,
    }
}

/// An app with the keys `a`, which signs, and `b`, made at 0.
fn fresh() -> App {
    let settings = AppSettings { key_propagation: PROPAGATION, ..AppSettings::default() };
    let made = AppCreated { app_id: AppId::default_app(), name: "Acme".to_owned(), settings, at: at(0) };
    let mut app = App::default();
    app.apply(AppEvent::AppCreated(made));
    for event in [
        created(key("a", Es256), at(0)),
        activated("a".to_owned(), at(0), at(0)),
        created(key("b", Es256), at(0)),
    ] {
        app.apply(event);
    }
    app
}

fn apply(app: &mut App, events: Vec<AppEvent>) {
    for event in events {
        app.apply(event);
    }
}

fn rotate(app: &mut App, kid: &str, now: Timestamp) {
    let events = app.rotate(key(kid, app.settings.token_algorithm), now);
    apply(app, events);
}

fn replace(app: &mut App, kid: &str, now: Timestamp) {
    let events = app.replace(key(kid, app.settings.token_algorithm), now);
    apply(app, events);
}

/// Changes the algorithm, with keys named after `kid`.
fn change(app: &mut App, kid: &str, alg: TokenAlgorithm, now: Timestamp) {
    let count = app.keys_needed_for(alg, now);
    let keys = (0..count).map(|n| key(&format!("{kid}{n}"), alg)).collect();
    let settings = AppSettings { token_algorithm: alg, ..app.settings.clone() };
    let events = app.change(None, settings, keys, now);
    apply(app, events);
}

/// Each published key with its status at a time: `a previous, b current, c next`.
fn shown(app: &App, now: Timestamp) -> String {
    let one = |key: &SigningKey| format!("{} {:?}", key.public.kid, app.status_of(key, now)).to_lowercase();
    app.published_keys(now).map(one).collect::<Vec<_>>().join(", ")
}

fn signs(app: &App, now: Timestamp) -> &str {
    &app.signing_key(now).expect("one signs").kid
}

#[test]
fn a_key_that_verifiers_know_signs_at_once() {
    let mut app = fresh();
    rotate(&mut app, "c", at(600));
    assert_eq!(shown(&app, at(600)), "a previous, b current, c next");
    assert!(app.scheduled_key(at(600)).is_none());
}

#[test]
fn a_key_that_they_cannot_know_signs_by_itself_once_they_do() {
    let mut app = fresh();
    rotate(&mut app, "c", at(599));
    assert_eq!(shown(&app, at(599)), "a current, b next, c next");
    assert_eq!(app.scheduled_key(at(599)).and_then(|key| key.signs_from), Some(at(600)));
    assert_eq!(shown(&app, at(600)), "a previous, b current, c next");
    assert!(app.scheduled_key(at(600)).is_none());
}

#[test]
fn rotations_in_quick_succession_are_one_after_the_other() {
    let mut app = fresh();
    rotate(&mut app, "c", at(1000));
    rotate(&mut app, "d", at(1001));
    assert_eq!(shown(&app, at(1001)), "a previous, b current, c next, d next");
    assert_eq!(app.scheduled_key(at(1001)).and_then(|key| key.signs_from), Some(at(1600)));
    assert_eq!(app.rotate(key("e", Es256), at(1002)), [], "it is the scheduled one");
    assert_eq!(shown(&app, at(1600)), "a previous, b previous, c current, d next");
    rotate(&mut app, "e", at(1600));
    assert_eq!(app.scheduled_key(at(1600)).and_then(|key| key.signs_from), Some(at(1601)), "d is of 1001");
}

#[test]
fn another_algorithm_is_published_before_it_signs() {
    let mut app = fresh();
    change(&mut app, "x", EdDsa, at(1000));
    assert_eq!(shown(&app, at(1000)), "a current, x0 next, x1 next");
    assert_eq!(signs(&app, at(1599)), "a");
    assert_eq!(shown(&app, at(1600)), "a previous, x0 current, x1 next");
    rotate(&mut app, "y", at(1601));
    assert_eq!(shown(&app, at(1601)), "a previous, x0 previous, x1 current, y next");
}

#[test]
fn a_change_that_is_taken_back_in_time_never_happens() {
    let mut app = fresh();
    change(&mut app, "x", EdDsa, at(1000));
    change(&mut app, "z", Es256, at(1100));
    assert_eq!(shown(&app, at(1100)), "a current, z0 next");
    assert_eq!(shown(&app, at(1700)), "a current, z0 next");
    assert_eq!(app.signing_keys[0].superseded_at, None);
}

#[test]
fn a_change_of_another_mind_counts_from_the_last() {
    let mut app = fresh();
    change(&mut app, "x", EdDsa, at(1000));
    change(&mut app, "y", Rs256, at(1100));
    assert_eq!(shown(&app, at(1600)), "a current, y0 next, y1 next");
    assert_eq!(shown(&app, at(1700)), "a previous, y0 current, y1 next");
}

/// Another node, whose clock is ahead, may have signed with it already.
#[test]
fn a_key_that_is_about_to_sign_is_not_withdrawn() {
    let mut app = fresh();
    change(&mut app, "x", EdDsa, at(1000));
    change(&mut app, "z", Es256, at(1550));
    assert_eq!(shown(&app, at(1600)), "a previous, x0 current, z0 next, z1 next");
    assert_eq!(shown(&app, at(2150)), "a previous, x0 previous, z0 current, z1 next");
}

#[test]
fn an_emergency_waits_for_nothing_and_keeps_nothing() {
    let mut app = fresh();
    rotate(&mut app, "c", at(1000));
    replace(&mut app, "d", at(1001));
    assert_eq!(shown(&app, at(1001)), "c current, d next");
    assert_eq!(signs(&app, at(900)), "c", "also for a token that is made again");
    replace(&mut app, "e", at(1002));
    assert_eq!(shown(&app, at(1002)), "d current, e next");

    let mut app = fresh();
    change(&mut app, "x", EdDsa, at(1000));
    replace(&mut app, "y", at(1001));
    assert_eq!(shown(&app, at(1001)), "x0 current, x1 next", "what was scheduled is now");
}

#[test]
fn keys_stay_until_their_tokens_have_expired_and_are_bounded() {
    let mut app = fresh();
    for n in 1..=200 {
        let now = at(n * 1000);
        rotate(&mut app, &n.to_string(), now);
        assert!(app.signing_keys.len() <= MAX_PREVIOUS + 3, "{}", shown(&app, now));
        for key in app.signing_keys.iter().filter(|key| key.status == KeyStatus::Previous) {
            assert!(!key.is_spent(now), "{} is forgotten when its tokens have expired", key.public.kid);
        }
    }
    let longest = i64::from(LONGEST_TOKEN);
    assert_eq!(app.published_keys(at(400_000 + longest)).count(), 2);
}

/// Keys of a version that did not record when they stopped.
#[test]
fn old_keys_are_retired_by_their_number() {
    let mut app = App { settings: fresh().settings, ..App::default() };
    for n in 0..30 {
        let kid = n.to_string();
        let old = SigningKeyActivated { kid: kid.clone(), at: None, signs_from: None };
        app.apply(AppEvent::SigningKeyCreated(SigningKeyCreated { public: key(&kid, Es256), at: None }));
        app.apply(AppEvent::SigningKeyActivated(old));
    }
    app.apply(AppEvent::SigningKeyCreated(SigningKeyCreated { public: key("next", Es256), at: None }));
    assert_eq!(signs(&app, at(0)), "29");
    rotate(&mut app, "new", at(1));
    assert_eq!(signs(&app, at(1)), "next", "it was published before that was recorded");
    assert_eq!(app.signing_keys.len(), MAX_PREVIOUS + 2);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Rotate,
    Emergency,
    Change(TokenAlgorithm),
    /// Something else of the settings, with keys as a handler makes them.
    Rename,
    Sign(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..900_i64).prop_map(Step::Wait),
        1 => (0..100_000_i64).prop_map(Step::Wait),
        4 => Just(Step::Rotate),
        1 => Just(Step::Emergency),
        2 => prop_oneof![Just(Es256), Just(EdDsa), Just(Rs256)].prop_map(Step::Change),
        1 => Just(Step::Rename),
        4 => prop_oneof![Just(1_800_i64), Just(86_400_i64)].prop_map(Step::Sign),
    ];
    prop::collection::vec(step, 1..120)
}

/// A verifier with a key set that it fetched at a time.
struct Fetched {
    at: Timestamp,
    kids: BTreeSet<String>,
}

proptest! {
    /// At every moment, a valid token verifies with any key set that was fetched within `key_propagation` seconds, unless
    /// there was an emergency since.
    #[test]
    fn a_valid_token_verifies_with_any_recent_key_set(steps in steps()) {
        let mut app = fresh();
        let mut log = Vec::new();
        let mut now = at(0);
        let mut tokens: Vec<(String, Timestamp)> = Vec::new();
        let mut sets: Vec<Fetched> = Vec::new();
        for (names, step) in steps.into_iter().enumerate() {
            let mut events = vec![];
            let alg = app.settings.token_algorithm;
            let name = |n: usize| format!("{names}-{n}");
            match step {
                Step::Wait(seconds) => now += SignedDuration::from_secs(seconds),
                Step::Rotate => events = app.rotate(key(&name(0), alg), now),
                Step::Emergency => {
                    events = app.replace(key(&name(0), alg), now);
                    // What was fetched before may not know the key, and tokens of before are refused.
                    sets.clear();
                    tokens.clear();
                }
                Step::Change(alg) => {
                    let keys = (0..app.keys_needed_for(alg, now)).map(|n| key(&name(n), alg)).collect();
                    let settings = AppSettings { token_algorithm: alg, ..app.settings.clone() };
                    events = app.change(None, settings, keys, now);
                }
                Step::Rename => {
                    let settings = app.settings.clone();
                    events = vec![AppEvent::AppSettingsChanged(AppSettingsChanged { name: name(0), settings, at: now })];
                }
                Step::Sign(ttl) => {
                    let kid = signs(&app, now).to_owned();
                    tokens.push((kid, now + SignedDuration::from_secs(ttl)));
                }
            }
            log.extend(events.clone());
            apply(&mut app, events);
            // Also the moments between two steps: a switch happens by itself.
            tokens.push((signs(&app, now).to_owned(), now + SignedDuration::from_secs(1_800)));
            tokens.retain(|(_, expires)| *expires > now);
            let kids = app.published_keys(now).map(|key| key.public.kid.clone()).collect();
            sets.push(Fetched { at: now, kids });
            let window = SignedDuration::from_secs(PROPAGATION.into());
            // One that is as old may be of the very moment before the key was published.
            sets.retain(|set| now.duration_since(set.at) < window);
            for (kid, _) in &tokens {
                prop_assert!(app.verification_key(kid).is_some(), "{kid} is valid, and refused here");
                for set in &sets {
                    prop_assert!(set.kids.contains(kid), "{kid} is not among {:?} of {}", set.kids, set.at);
                }
            }
            prop_assert!(app.signing_keys.len() <= MAX_PREVIOUS + 4);
            let statuses: Vec<_> = app.published_keys(now).map(|key| app.status_of(key, now)).collect();
            prop_assert_eq!(statuses.iter().filter(|status| **status == KeyStatus::Current).count(), 1);
            prop_assert!(statuses.contains(&KeyStatus::Next), "one is published for the next rotation");
        }
        // A restart, and another node: everything follows from the events.
        let mut again = fresh();
        apply(&mut again, log);
        prop_assert_eq!(&again.signing_keys, &app.signing_keys);
        prop_assert_eq!(signs(&again, now), signs(&app, now));
    }
}
